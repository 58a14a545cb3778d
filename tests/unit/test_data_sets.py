"""Looking at a data set, converting it, and making one from scores alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_readers import pickapic_rows, png, write

from finepref.core.errors import InputError
from finepref.core.files import parquet_meta
from finepref.core.provenance import sha256_bytes
from finepref.data.convert import convert
from finepref.data.inspect import inspect
from finepref.data.pairing import pair_from_scores
from finepref.formats.manifest import ImageRow, write_rows
from finepref.formats.preferences import detect_format, read_pair_ids, read_preferences
from finepref.formats.scores import Score, ScoredBy, Scores, write_scores


def test_inspect_counts(tmp_path: Path) -> None:
    rows = pickapic_rows(6)
    rows[4]["jpg_1"] = b"broken"
    rows[5]["caption"] = ""
    rows += [{**rows[0], "ranking_id": 77, "label_0": 0.0, "label_1": 1.0}, {**rows[1], "ranking_id": 78}]
    rows[3]["jpg_1"] = rows[3]["jpg_0"]
    report = inspect(write(tmp_path / "v.parquet", rows))
    assert (report.format, report.pairs, report.prompts, report.voters) == ("pickapic", 7, 2, 2)
    assert report.labels == {"image_0": 2, "image_1": 4, "tie": 1, "none": 0}
    assert report.models["small"] == {"shown": 7, "won": 2, "tied": 1, "lost": 4}
    assert report.models["large"] == {"shown": 7, "won": 4, "tied": 1, "lost": 2}
    assert (report.repeated, report.contradicted, report.identical) == (2, 1, 1)
    assert report.sizes == {"4 x 4": 8}
    assert report.images == 8
    assert [(p.row, p.pair_id) for p in report.problems] == [(4, "1004"), (5, "1005")]
    assert inspect(tmp_path / "v.parquet", limit=2).pairs == 2
    json.dumps(asdict(report))


def test_only_a_full_look_finds_a_truncated_image(tmp_path: Path) -> None:
    rows = pickapic_rows(2)
    rows[1]["jpg_0"] = png(3, (64, 64))[:-30]
    path = write(tmp_path / "v.parquet", rows)
    assert inspect(path).problems == []
    (problem,) = inspect(path, full=True).problems
    assert (problem.row, problem.pair_id) == (1, "1001")
    assert problem.reason.startswith("image_0: ")


def test_convert_keeps_ids_and_bytes(tmp_path: Path) -> None:
    rows = pickapic_rows(5)
    rows[2]["has_label"] = False
    rows[3]["caption"] = ""
    source = write(tmp_path / "v.parquet", rows)
    assert convert(source, tmp_path / "out" / "pairs.parquet") == (4, 1)
    out = tmp_path / "out" / "pairs.parquet"
    assert detect_format(out) == "pairs"
    before = list(read_preferences(source, quarantine=[]))
    after = list(read_preferences(out))
    assert [(p.pair_id, p.prompt, p.model_0, p.voter) for p in after] == [
        (p.pair_id, p.prompt, p.model_0, p.voter) for p in before
    ]
    assert [p.image_1.read() for p in after] == [p.image_1.read() for p in before]
    assert read_pair_ids(out)[1][:2].tolist() == [1.0, 0.0]
    lines = (tmp_path / "out" / "pairs.parquet.quarantine.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "row": 3,
        "pair_id": "1003",
        "reason": "the prompt is empty",
        "where": f"{source}: row 3",
    }
    assert convert(source, out) == (4, 1)  # its own result, as after a kill at the very end
    table = pq.read_table(source)
    pq.write_table(table.slice(0, len(table) - 1), source)
    with pytest.raises(InputError, match="the file is there already"):
        convert(source, out)
    assert convert(source, out, overwrite=True)[0] <= 4


def test_convert_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    row = {"chosen_file_name": "a.png", "rejected_file_name": "b.png", "prompt": "p"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match="no pair is usable"):
        convert(tmp_path, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def evaluation_folder(folder: Path, values: dict[str, list[float]], *, higher: bool = True) -> Path:
    """A manifest and scores as `finepref generate` and `finepref score` write them."""
    folder.mkdir()
    lines, scores, number = [], [], 0
    sampler = {"sampler": "ddim", "steps": 1, "guidance": 1.0, "size": (4, 4)}
    for index, (prompt, row) in enumerate(values.items()):
        for seed, value in enumerate(row):
            number += 1
            (folder / f"{number}.png").write_bytes(png(number))
            shared = {
                "model": f"m{seed % 2}", "prompt_set": "prompts", "prompt_index": index, "seed": seed,
                "prompt_sha256": sha256_bytes(prompt.encode()), "image_sha256": sha256_bytes(png(number)),
            }  # fmt: skip
            lines.append(ImageRow(prompt=prompt, path=f"{number}.png", **shared, **sampler))
            for name, each in (("good", value), ("other", -value)):
                scores.append(Score(**shared, scorer=name, fingerprint=f"f-{name}", value=each))
    write_rows(folder, lines)
    write_scores(folder, Scores(tuple(scores), {name: ScoredBy(f"f-{name}", higher) for name in ("good", "other")}))
    return folder


def test_pairs_from_scores(tmp_path: Path) -> None:
    folder = evaluation_folder(tmp_path / "e", {"p": [1.0, 3.0, 2.0], "q": [5.0, 5.0], "r": [0.0, float("nan")]})
    counts = pair_from_scores(folder, tmp_path / "all", scorer="good")
    assert counts == {"pairs": 4, "prompts": 2, "skipped": 1}
    pairs = list(read_preferences(tmp_path / "all" / "pairs.parquet"))
    assert [(p.prompt, p.label) for p in pairs] == [("p", 0.0), ("p", 0.0), ("p", 1.0), ("q", 0.5)]
    assert pairs[0].image_1.read() == png(2)
    assert pairs[0].model_1 == "m1"
    rewards = pq.read_table(tmp_path / "all" / "rewards.parquet").to_pylist()
    assert [(r["pair_id"], r["side"], r["value"]) for r in rewards[:2]] == [
        (pairs[0].pair_id, 0, 1.0),
        (pairs[0].pair_id, 1, 3.0),
    ]
    assert rewards[0]["fingerprint"] == "f-good"
    assert parquet_meta(tmp_path / "all" / "rewards.parquet")["scorers"]["good"]["higher_is_better"] is True
    pair_from_scores(folder, tmp_path / "best", scorer="good", choose="best_worst")
    best = list(read_preferences(tmp_path / "best" / "pairs.parquet"))
    assert [(p.prompt, p.label, p.image_0.read(), p.image_1.read()) for p in best] == [("p", 1.0, png(2), png(1))]
    wide = pair_from_scores(folder, tmp_path / "wide", scorer="good", min_gap=1.5)
    assert wide["pairs"] == 1


def test_a_lower_score_can_be_better(tmp_path: Path) -> None:
    folder = evaluation_folder(tmp_path / "e", {"p": [1.0, 3.0]}, higher=False)
    pair_from_scores(folder, tmp_path / "o", scorer="good")
    assert [p.label for p in read_preferences(tmp_path / "o" / "pairs.parquet")] == [1.0]


def test_pairing_refusals(tmp_path: Path) -> None:
    folder = evaluation_folder(tmp_path / "e", {"p": [1.0]})
    with pytest.raises(InputError, match="no scores of 'godo'; did you mean 'good'"):
        pair_from_scores(folder, tmp_path / "o", scorer="godo")
    with pytest.raises(InputError, match="no prompt has two scored images"):
        pair_from_scores(folder, tmp_path / "o", scorer="good")
    with pytest.raises(InputError, match="unknown choice 'some'"):
        pair_from_scores(folder, tmp_path / "o", scorer="good", choose="some")
    (folder / "manifest.jsonl").unlink()
    with pytest.raises(InputError, match="no manifest of images"):
        pair_from_scores(folder, tmp_path / "o", scorer="good")
    assert not (tmp_path / "o").exists()
