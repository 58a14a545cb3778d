"""The shipped tables hold exactly the numbers parsed from the two papers."""

from __future__ import annotations

from finepref.evaluate.papers import load_tables

SETS = {"Pick v2": "papv2", "HPS v2": "hpsv2", "PartiPrompts": "partiprompts"}


def check(case, meta) -> None:
    """Every number of the golden file stands in a shipped table, and those tables hold no other rows."""
    tables = {table.id: table for table in load_tables()}
    for number, key in (("2", "train_pickapic_v2"), ("3", "train_hpdv3")):
        for words, prompt_set in SETS.items():
            for family in ("sd15", "sdxl"):
                rows = tables[f"arenapo-{number}-{family}-{prompt_set}"].rows
                assert rows == {name: tuple(v[family]) for name, v in case["arenapo"][key][words].items()}
    for family, found in case["smpo"]["table2_median"].items():
        for words, prompt_set in (("hpdv2", "hpsv2"), ("parti", "partiprompts")):
            table = tables[f"smpo-2-{family}-{prompt_set}"]
            assert table.rows == {name: tuple(v[words]["score"]) for name, v in found.items()}
            assert table.win_rates == {name: tuple(v[words]["win_rate_smpo_over"]) for name, v in found.items()}
    for family, number in (("sdxl", "8"), ("sd15", "9")):
        for statistic in ("median", "mean"):
            found = case["smpo"]["tables8_9_pickapic_v2_test"][family]
            assert tables[f"smpo-{number}-{statistic}"].rows == {n: tuple(v[statistic]) for n, v in found.items()}
    assert case["metric_order"] == ["PickScore", "HPS", "Aesthetic", "CLIP", "ImageReward"]
    assert [m.partition(":")[0] for m in tables["arenapo-2-sd15-papv2"].metrics] == [
        "pickscore", "hpsv2.0", "aesthetic", "clip-h", "imagereward",
    ]  # fmt: skip
    assert case["smpo"]["metric_order"] == ["PickScore", "HPSv2.1", "ImageReward", "Aesthetic", "CLIP"]
    assert tables["smpo-8-mean"].metrics == ("pickscore", "hpsv2.1", "imagereward", "aesthetic", "clip-h")
