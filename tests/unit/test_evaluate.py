"""Scores and their cache, rewards of preference data, protocols, printed win rates, the papers' tables."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluation_folder import Table, make_folder
from finepref.core.errors import InputError
from finepref.core.files import parquet_meta
from finepref.core.rows import PROMPTS as SETS
from finepref.evaluate import scored_pairs
from finepref.evaluate.papers import best_and_second, load_tables, same_metric, tables_for
from finepref.evaluate.protocols import choose_prompts, choose_scorers, family_of, load_protocol, names
from finepref.evaluate.published_counts import counts_lines, read_counts
from finepref.evaluate.score import score
from finepref.evaluate.scored_pairs import score_preferences
from finepref.formats.manifest import LINES, read_rows
from finepref.formats.preferences import ImageRef, Preference
from finepref.formats.rewards import read_rewards, scorers_in
from finepref.formats.scores import read_scores

PROMPTS = {"set": ["a dog", "a cat", "a dog"]}


def test_every_image_is_scored_once_and_a_second_run_scores_nothing(tmp_path: Path) -> None:
    rows = make_folder(tmp_path, PROMPTS, seeds=(0, 1))
    scorer = Table(rows, lambda row: row.prompt_index + row.seed / 10)
    assert score(tmp_path, [scorer], batch_size=5) == read_scores(tmp_path)
    path = tmp_path / "scores.parquet"
    found = pq.read_table(path).to_pylist()
    assert len(found) == 12 == scorer.seen
    assert {(r["model"], r["prompt_index"], r["seed"]): r["value"] for r in found} == {
        (row.model, row.prompt_index, row.seed): row.prompt_index + row.seed / 10 for row in rows
    }
    assert parquet_meta(path)["scorers"] == {"metric": {"fingerprint": "print-1", "higher_is_better": True}}
    score(tmp_path, [scorer])
    assert scorer.seen == 12
    score(tmp_path, [scorer], overwrite=True)
    assert scorer.seen == 24


def test_a_second_scorer_keeps_the_first_and_a_new_fingerprint_replaces_the_old(tmp_path: Path) -> None:
    rows = make_folder(tmp_path, PROMPTS)
    score(tmp_path, [Table(rows, lambda row: 1.0)])
    score(tmp_path, [Table(rows, lambda row: 2.0, name="other", fingerprint="x", higher_is_better=False)])
    score(tmp_path, [Table(rows, lambda row: 3.0, fingerprint="print-2")])
    found = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert {(r["scorer"], r["fingerprint"], r["value"]) for r in found} == {
        ("metric", "print-2", 3.0),
        ("other", "x", 2.0),
    }
    assert parquet_meta(tmp_path / "scores.parquet")["scorers"]["other"]["higher_is_better"] is False


def test_equal_images_of_equal_prompts_share_a_score(tmp_path: Path) -> None:
    rows = make_folder(tmp_path, {"set": ["a dog"]}, models=("base", "copy"))
    (tmp_path / rows[1].path).write_bytes((tmp_path / rows[0].path).read_bytes())
    text = (tmp_path / LINES).read_text().replace(rows[1].image_sha256, rows[0].image_sha256)
    (tmp_path / LINES).write_text(text)
    scorer = Table(rows, lambda row: 5.0)
    score(tmp_path, [scorer])
    assert scorer.seen == 1
    assert pq.read_table(tmp_path / "scores.parquet")["value"].to_pylist() == [5.0, 5.0]


def test_an_unreadable_image_has_no_score_but_a_reason_and_is_tried_again(tmp_path: Path) -> None:
    rows = make_folder(tmp_path, PROMPTS)
    good = (tmp_path / rows[2].path).read_bytes()
    (tmp_path / rows[0].path).unlink()
    (tmp_path / rows[2].path).write_bytes(good[:40])
    scorer = Table(rows, lambda row: math.inf if row is rows[4] else 1.0)
    score(tmp_path, [scorer])
    found = {(r["model"], r["prompt_index"]): r for r in pq.read_table(tmp_path / "scores.parquet").to_pylist()}
    for index, said in ((0, "cannot be read"), (1, "changed"), (2, "the scorer returned inf")):
        assert math.isnan(found[("base", index)]["value"])
        assert said in found[("base", index)]["reason"]
    assert found[("new", 0)]["reason"] == ""
    (tmp_path / rows[2].path).write_bytes(good)
    score(tmp_path, [Table(rows, lambda row: 1.0)])
    assert pq.read_table(tmp_path / "scores.parquet")["value"].to_pylist().count(1.0) == 5


def test_scorers_are_refused_twice_or_never(tmp_path: Path) -> None:
    rows = make_folder(tmp_path, PROMPTS)
    with pytest.raises(InputError, match="no scorer"):
        score(tmp_path, [])
    with pytest.raises(InputError, match="two scorers are named 'metric'"):
        score(tmp_path, [Table(rows, lambda row: 1.0), Table(rows, lambda row: 1.0)])
    first = Table(rows, lambda row: 1.0)
    for second, said in (("nothing", "nothing"), ("pickscore@gone", "no such file"), (f"clip:odd@{tmp_path}", "odd")):
        with pytest.raises(InputError, match=said):
            score(tmp_path, [first, second])
    with pytest.raises(InputError, match="metric is made already"):
        score(tmp_path, [first], precision="bf16")
    assert first.seen == 0
    with pytest.raises(InputError, match="no manifest"):
        score(tmp_path / "none", [Table(rows, lambda row: 1.0)])


def test_a_scorer_that_returns_another_number_of_scores_is_an_error(tmp_path: Path) -> None:
    rows = make_folder(tmp_path, PROMPTS)
    scorer = Table(rows, lambda row: 1.0)
    scorer.score = lambda images, prompts: np.zeros(1)
    with pytest.raises(InputError, match=r"shape \(1,\) for 6 images"):
        score(tmp_path, [scorer])


def test_broken_manifests_are_refused_with_their_line(tmp_path: Path) -> None:
    make_folder(tmp_path, PROMPTS)
    lines = (tmp_path / LINES).read_text().splitlines(keepends=True)
    (tmp_path / LINES).write_text("".join([*lines, lines[0]]))
    with pytest.raises(InputError, match="line 7: base, prompt 0, seed 0 is listed twice"):
        read_rows(tmp_path)
    (tmp_path / LINES).write_text(lines[0] + '{"model": "x"}\n')
    with pytest.raises(InputError, match=r"line 2: prompt_set: field required"):
        read_rows(tmp_path)
    (tmp_path / LINES).write_text(lines[0] + lines[1][:50])
    assert len(read_rows(tmp_path, partial=True)) == 1


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


class Red:
    """Scores an image by its red channel."""

    name, fingerprint, higher_is_better = "red", "red-1", True

    def __init__(self) -> None:
        self.seen = 0

    def score(self, images, prompts):
        self.seen += len(images)
        return np.array(
            [image.getpixel((0, 0))[0] + len(prompt) / 100 for image, prompt in zip(images, prompts, strict=True)]
        )


def _pairs(count: int = 5) -> list[Preference]:
    return [
        Preference(f"p{n}", "dog", ImageRef(data=_png(n)), ImageRef(data=_png(n + 1)), label=1.0) for n in range(count)
    ]


def test_rewards_of_preferences(tmp_path: Path) -> None:
    scorer = Red()
    broken = Preference("bad", "x", ImageRef(data=b"no image"), ImageRef(path=tmp_path / "none.png"), label=0.0)
    path = score_preferences([*_pairs(), broken], [scorer], tmp_path / "rewards.parquet", batch_size=2)
    table = pq.read_table(path).to_pylist()
    assert [(r["pair_id"], r["side"], r["value"]) for r in table[:10]] == [
        (f"p{n}", side, n + side + 0.03) for n in range(5) for side in (0, 1)
    ]
    assert scorer.seen == 6  # images that recur are scored once
    assert [math.isnan(r["value"]) for r in table[10:]] == [True, True]
    assert "not a readable image" in table[10]["reason"]
    assert "cannot be read" in table[11]["reason"]
    again = Red()
    score_preferences([*_pairs(6)], [again], tmp_path / "rewards.parquet")
    assert again.seen == 1
    score_preferences(_pairs(), [again], tmp_path / "rewards.parquet", overwrite=True)
    assert again.seen == 7


def test_shards_of_rewards_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored_pairs, "BLOCK", 2)
    whole = pq.read_table(score_preferences(_pairs(7), [Red(), Blue()], tmp_path / "whole.parquet")).to_pylist()
    out = tmp_path / "r.parquet"
    for index in (2, 0):
        score_preferences(_pairs(7), [Red(), Blue()], out, shard=(index, 3))
        assert not out.exists()
    score_preferences(_pairs(7), [Red(), Blue()], out, shard=(1, 3))
    assert pq.read_table(out).to_pylist() == whole
    assert [path.name for path in tmp_path.iterdir() if path != out] == ["whole.parquet"]


@pytest.mark.parametrize(("shard", "said"), [((3, 3), "shard 3 of 3"), ((-1, 2), "shard -1 of 2")])
def test_shards_outside_are_refused(tmp_path: Path, shard: tuple[int, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        score_preferences(_pairs(), [Red()], tmp_path / "r.parquet", shard=shard)


def test_rewards_without_pairs_or_scorers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no preference"):
        score_preferences([], [Red()], tmp_path / "r.parquet")
    with pytest.raises(InputError, match="no scorer"):
        score_preferences(_pairs(), [], tmp_path / "r.parquet")
    assert not (tmp_path / "r.parquet").exists()


def test_protocols_say_what_the_papers_did() -> None:
    assert names() == ["recommended", "sdpo-2025", "smpo-2025"]
    sdpo, smpo = load_protocol("sdpo-2025"), load_protocol("smpo-2025")
    # Diffusion-SDPO's code: Euler, 50 steps, cond + 7.5 (cond - uncond) = guidance 8.5, seed 0 again for every prompt
    assert (sdpo.scheduler, sdpo.steps, sdpo.guidance, sdpo.seeds) == ("euler", 50, {"sd15": 8.5, "sdxl": 8.5}, (0,))
    assert (sdpo.noise, sdpo.negative_prompt, sdpo.statistic) == ("shared", "", "mean")
    assert sdpo.scorers == ("pickscore", "hpsv2.0:pil_round", "aesthetic", "clip-h", "imagereward")
    assert sdpo.sampling("sdxl")["size"] == (1024, 1024)
    assert smpo.guidance == {"sd15": 7.5, "sdxl": 5.0}
    assert (smpo.statistic, smpo.scale) == ("median", {"pickscore": 100, "hpsv2.1": 100, "clip-h": 100})
    assert smpo.prompts == ("hpsv2", "partiprompts", "papv2")
    assert len(load_protocol("recommended").seeds) >= 3
    with pytest.raises(InputError, match="did you mean 'sdpo-2025'"):
        load_protocol("sdpo")
    with pytest.raises(InputError, match="no settings for FluxPipeline"):
        sdpo.sampling("FluxPipeline")


def test_every_scorer_of_a_protocol_exists() -> None:
    from finepref.evaluate.scorers.scorer_rows import parse

    for name in names():
        for spec in load_protocol(name).scorers:
            assert parse(spec).name == spec


def test_a_protocol_takes_its_own_sets_and_local_weights() -> None:
    sdpo = load_protocol("sdpo-2025")
    assert choose_prompts(sdpo, []) == ["papv2", "hpsv2", "partiprompts"]
    assert choose_prompts(sdpo, ["hpsv2=x.json"]) == ["hpsv2=x.json"]
    with pytest.raises(InputError, match="no prompt set of sdpo-2025"):
        choose_prompts(sdpo, ["mine.txt"])
    assert choose_scorers(sdpo, ["pickscore@/w", "extra"]) == [
        "pickscore@/w", "hpsv2.0:pil_round", "aesthetic", "clip-h", "imagereward", "extra",
    ]  # fmt: skip
    assert family_of({"a": "StableDiffusionPipeline", "b": "sd15"}) == "sd15"
    with pytest.raises(InputError, match="several families"):
        family_of({"a": "StableDiffusionPipeline", "b": "StableDiffusionXLPipeline"})


@pytest.fixture
def smpo_counts(tmp_path: Path) -> Path:
    """SmPO's Table 2 as a csv, from the shipped tables."""
    lines = ["comparison,metric,prompts,n,win_rate"]
    for table in load_tables():
        for method, rates in (table.win_rates or {}).items():
            lines += [
                f"{table.family} over {method},{label},{table.prompt_set},{table.n},{rate}"
                for label, rate in zip(table.labels, rates, strict=True)
                if rate is not None
            ]
    path = tmp_path / "counts.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_smpo_table_2_read_again(smpo_counts: Path) -> None:
    """The verdicts of the evaluators research, section 5: intervals and p-values computed there with other code."""
    rows = {(r.comparison, r.metric, r.prompts): r for r in read_counts(smpo_counts)}
    assert len(rows) == 80

    def judged(comparison: str, metric: str, prompts: str) -> tuple[float, float, str]:
        row = rows[(comparison, metric, prompts)]
        return round(row.low, 1), round(row.high, 1), row.verdict

    assert judged("sdxl over DPO", "CLIP", "hpsv2") == (48.8, 52.2, "no evidence")
    assert judged("sdxl over DPO", "CLIP", "partiprompts") == (49.1, 53.9, "no evidence")
    assert judged("sdxl over MaPO", "Aesthetic", "hpsv2") == (45.9, 49.3, "loss")
    assert judged("sdxl over SDXL", "CLIP", "hpsv2") == (54.5, 57.9, "win")
    assert round(rows[("sdxl over DPO", "CLIP", "hpsv2")].p, 2) == 0.58
    assert round(rows[("sdxl over MaPO", "Aesthetic", "hpsv2")].p, 3) == 0.007
    assert sum(row.verdict == "no evidence" for row in rows.values()) == 2
    assert sum(row.verdict == "loss" for row in rows.values()) == 2
    assert any("no evidence" in line for line in counts_lines(list(rows.values())))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("comparison,metric,prompts,n\na,b,c,5\n", "column 'win_rate' is missing"),
        ("comparison,metric,prompts,n,win_rate\n", "no row"),
        ("comparison,metric,prompts,n,win_rate\na,b,c,x,50\n", "is no number"),
        ("comparison,metric,prompts,n,win_rate\na,b,c,10,101\n", "101"),
        ("comparison,metric,prompts,n,win_rate\na,b,c,0,50\n", "of 0 prompts"),
        ("comparison,metric,prompts,n,win_rate\na,b,c,10,0.5\n", "write percent"),
    ],
)
def test_bad_counts_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_counts(path)


def test_best_and_second_of_a_column() -> None:
    assert best_and_second([1.0, 3.0, None, 2.0, 3.0]) == ({1, 4}, {3})
    assert best_and_second([1.0, 3.0, 2.0], lower=True) == ({0}, {2})
    assert best_and_second([None, None]) == (set(), set())
    assert best_and_second([2.0, 2.0]) == ({0, 1}, set())


def test_papers_mark_their_own_best_rows() -> None:
    """ArenaPO prints its own SD1.5 row as best of all five metrics on Pick v2 (Table 2); checked from the numbers."""
    table = next(t for t in load_tables() if t.id == "arenapo-2-sd15-papv2")
    methods = list(table.rows)
    for place in range(5):
        best, _ = best_and_second([row[place] for row in table.rows.values()])
        assert [methods[k] for k in best] == ["ArenaPO (ours)"]


def test_tables_hold_together() -> None:
    tables = load_tables()
    assert len({table.id for table in tables}) == len(tables) == 31
    for table in tables:
        assert len(table.metrics) == len(table.labels) == len(table.scale)
        assert all(len(row) == len(table.metrics) for row in table.rows.values())
        assert table.protocol in (None, *names())
        assert table.win_rates is None or table.win_rates.keys() == table.rows.keys()


def test_tables_are_found_by_metric_and_set() -> None:
    assert same_metric("hpsv2.0:pil_round", ["hpsv2.0"]) == "hpsv2.0"
    assert same_metric("hpsv2.0:pil_round", ["hpsv2.1"]) is None
    assert tables_for(["lab-true"], ["hpsv2"]) == []
    found = [table.id for table in tables_for(["pickscore", "clip-h"], ["papv2"])]
    assert "arenapo-2-sd15-papv2" in found
    assert "smpo-8-median" in found
    assert not any("hpsv2" in name for name in found)


class Blue(Red):
    """The same under another name."""

    name, fingerprint = "blue", "blue-1"


def test_other_scorers_stay(tmp_path: Path) -> None:
    """A second scorer adds to the file, also when it is scored again; what is of other images goes."""
    out = tmp_path / "rewards.parquet"
    score_preferences(_pairs(), [Red()], out)
    first = pq.read_table(out).to_pylist()
    score_preferences(_pairs(), [Blue()], out)
    rows = pq.read_table(out).to_pylist()
    assert [row for row in rows if row["scorer"] == "red"] == first
    assert len([row for row in rows if row["scorer"] == "blue"]) == len(first)
    assert {*scorers_in(out)} == {"red", "blue"}
    score_preferences(_pairs(), [Blue()], out, overwrite=True)
    assert len(pq.read_table(out)) == 2 * len(first)
    moved = [replace(pair, image_1=ImageRef(data=_png(40 + n))) for n, pair in enumerate(_pairs())]
    score_preferences(moved, [Blue()], out)
    assert {row["side"] for row in pq.read_table(out).to_pylist() if row["scorer"] == "red"} == {0}
    score_preferences(_pairs(2), [Blue()], out)
    assert {row["pair_id"] for row in pq.read_table(out).to_pylist()} == {"p0", "p1"}


def test_the_truth_is_no_reward(tmp_path: Path) -> None:
    """The lab's truth may be looked at, and is refused where a signal reads it."""
    prompt = next(iter(SETS["lab-train"].load()))
    pairs = [replace(pair, prompt=prompt) for pair in _pairs()]
    out = score_preferences(pairs, ["lab-true"], tmp_path / "rewards.parquet")
    with pytest.raises(InputError, match="lab-true is the truth, which no training may read"):
        read_rewards(out, [pair.pair_id for pair in pairs])
