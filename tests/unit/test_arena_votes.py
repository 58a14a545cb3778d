"""Votes and the reading of vote files: schemas, words, faults, and votes beyond memory."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coded_votes import coded
from finepref import Votes, gaps, rate, read_votes
from finepref.arena import blocks as blocks_module
from finepref.arena.blocks import components, image_blocks
from finepref.arena.counts import count
from finepref.arena.image import image_gaps
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats import tables
from finepref.formats.store import codes_on_disk, dense_codes, hash_names
from finepref.formats.votefiles import NO_MODEL


def write_csv(path: Path, *rows: tuple[Any, ...]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)
    return path


def pickapic(path: Path, n: int = 400, **change: Any) -> Path:
    """A table with Pick-a-Pic v2's columns; images recur."""
    rng = numpy_generator(0, "pickapic", n)
    left = rng.integers(0, 5, n)
    right = (left + rng.integers(1, 5, n)) % 5
    prompt = rng.integers(0, n // 8, n)
    label = rng.choice([1.0, 0.0, 0.5], n, p=[0.5, 0.38, 0.12])
    columns: dict[str, Any] = {
        "are_different": [True] * n, "best_image_uid": ["x"] * n, "caption": [f"prompt {p}" for p in prompt],
        "created_at": ["2023"] * n, "has_label": [k % 50 != 7 for k in range(n)],
        "image_0_uid": [f"{p}-{m}" for p, m in zip(prompt, left, strict=True)], "image_0_url": [""] * n,
        "image_1_uid": [f"{p}-{m}" for p, m in zip(prompt, right, strict=True)], "image_1_url": [""] * n,
        "jpg_0": [b"\x00" * 64] * n, "jpg_1": [b"\x00" * 64] * n, "label_0": label, "label_1": 1.0 - label,
        "model_0": [f"maker/m{m}" for m in left], "model_1": [f"maker/m{m}" for m in right],
        "ranking_id": np.arange(n), "user_id": rng.integers(0, 20, n), "num_example_per_prompt": [8] * n,
    }  # fmt: skip
    pq.write_table(pa.table({**columns, **change}), path, row_group_size=128)
    return path


@pytest.mark.parametrize(
    ("word", "sign"),
    [("left", 1), ("a", 1), ("model_a", 1), ("1", 1), (1, 1), (1.0, 1), ("right", -1), ("b", -1), ("model_b", -1),
     ("0", -1), (0, -1), (0.0, -1), ("tie", 0), ("tie (bothbad)", 0), ("0.5", 0), (0.5, 0),
     ("Left", 1), (" RIGHT ", -1), ("Draw", 0), ("both", 0), ("neither", 0), ("A", 1),
     ("Both bad", 0), ("both good", 0), ("X", 1), ("Y", -1)],
)  # fmt: skip
def test_outcome_words(word: Any, sign: int) -> None:
    assert Votes.from_columns(left=["X"], right=["Y"], outcome=[word]).outcome.tolist() == [sign]


@pytest.mark.parametrize("word", ["better", "x", 2, -0.7, True, None, float("nan"), ""])
def test_any_other_word_is_an_error_that_names_it(word: Any) -> None:
    with pytest.raises(InputError, match="row 1") as error:
        Votes.from_columns(left=["A", "A"], right=["B", "B"], outcome=["left", word])
    missing = word is None or word != word or word == ""
    shown = "true" if word is True else str(word)
    assert ("missing" if missing else repr(shown)) in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"left": ["A", ""]}, "missing"),
        ({"left": ["A", None]}, "row 1: left is missing"),
        ({"right": ["B", float("nan")]}, "row 1: right is missing"),
        ({"right": ["B"]}, "right has 1 rows and left 2"),
        ({"left_image": ["x", "y"]}, "only one of"),
        ({"left": [], "right": [], "outcome": []}, "no votes"),
    ],
)
def test_bad_columns(change: dict[str, Any], says: str) -> None:
    columns = {"left": ["A", "A"], "right": ["B", "B"], "outcome": ["left", "right"]} | change
    with pytest.raises(InputError, match=says):
        Votes.from_columns(**columns)


def test_pickapic_is_recognised_and_its_images_are_not_read(tmp_path: Path) -> None:
    found = read_votes([pickapic(tmp_path / "train.parquet")])
    assert found.layout.schema == "pickapic"
    assert not {"jpg_0", "jpg_1"} & set(found.layout.wanted)
    assert len(found.votes) == 400 - 8
    assert found.left_out == {"nobody voted": 8}
    assert 7 not in found.row.tolist()
    assert found.ids is not None
    assert found.ids.to_pylist() == [str(row) for row in found.row]
    votes = found.votes
    assert votes.models[0].startswith("maker/m")
    assert votes.voters is not None
    assert votes.has_images
    assert votes.prompt is not None
    table = pq.read_table(tmp_path / "train.parquet").take(pa.array(found.row))
    assert [votes.models[k] for k in votes.left] == table["model_0"].to_pylist()
    assert ((votes.outcome + 1) / 2).tolist() == table["label_0"].to_pylist()
    same = np.equal.outer(votes.left_image, votes.right_image)  # one space of images
    uid = np.array(table["image_0_uid"].to_pylist())[:, None] == np.array(table["image_1_uid"].to_pylist())[None]
    assert np.array_equal(same, uid)


def test_contradicting_labels_and_skipping(tmp_path: Path) -> None:
    label = np.ones(400)
    path = pickapic(tmp_path / "x.parquet", label_0=label, label_1=np.where(np.arange(400) == 3, 1.0, 0.0))
    with pytest.raises(InputError, match=r"row 3: label_0 and label_1 do not add up"):
        read_votes([path])
    found = read_votes([path], skip_bad_rows=True)
    assert [place.rsplit(" ", 1)[1] for place, _ in found.rejected] == ["3"]
    assert 3 not in found.row.tolist()


def test_other_schemas(tmp_path: Path) -> None:
    hpd = [{"prompt": "p", "path1": f"a{k}", "path2": f"b{k}", "model1": "A", "model2": "B"} for k in range(3)]
    (tmp_path / "h.json").write_text(json.dumps(hpd))
    found = read_votes([tmp_path / "h.json"])
    assert (found.layout.schema, found.votes.outcome.tolist()) == ("hpdv3", [1, 1, 1])
    assert found.votes.has_images
    plain = read_votes([write_csv(tmp_path / "c.csv", ("prompt", "chosen", "rejected"), ("p", "A", "B"))])
    assert (plain.layout.schema, plain.votes.models) == ("chosen_rejected", ("A", "B"))
    named = read_votes(
        [write_csv(tmp_path / "d.csv", ("chosen", "rejected", "chosen_model", "rejected_model"), ("x", "y", "A", "B"))]
    )
    assert named.votes.models == ("A", "B")
    assert named.votes.has_images
    bare = read_votes(
        [write_csv(tmp_path / "e.csv", ("chosen_file_name", "rejected_file_name"), ("x", "y"), ("x", "z"))]
    )
    assert bare.votes.models == (NO_MODEL,)
    assert len(set(bare.votes.left_image.tolist())) == 1
    winner = read_votes([write_csv(tmp_path / "w.csv", ("winner", "loser"), ("A", "B"))])
    assert (winner.votes.models, winner.votes.outcome.tolist()) == (("A", "B"), [1])
    (tmp_path / "v.jsonl").write_text(
        '{"model_a":"A","model_b":"B","winner":"tie (bothbad)"}\n\n{"model_a":"B","model_b":"A","winner":"model_b"}\n'
    )
    arena = read_votes([tmp_path / "v.jsonl"])
    assert arena.votes.outcome.tolist() == [0, -1]


def test_rankings_become_all_pairs(tmp_path: Path) -> None:
    rows = [("g1", "A", 1), ("g1", "B", 2), ("g1", "C", 2), ("g2", "C", 0), ("g2", "A", 3), ("g3", "A", 1)]
    found = read_votes([write_csv(tmp_path / "k.csv", ("group", "model", "rank"), *rows)])
    votes = found.votes
    said = {
        (votes.models[a], votes.models[b], int(o))
        for a, b, o in zip(votes.left, votes.right, votes.outcome, strict=True)
    }
    assert said == {("A", "B", 1), ("A", "C", 1), ("B", "C", 0), ("C", "A", 1)}
    assert found.row.tolist() == [0, 0, 1, 3]
    assert found.other is not None
    assert found.other.tolist() == [1, 2, 2, 4]
    assert votes.games is not None
    assert len(votes.games) == 3
    images = [("p1", "a", 1), ("p1", "b", 2), ("p2", "c", 2), ("p2", "d", 1)]
    reward = read_votes([write_csv(tmp_path / "i.csv", ("prompt_id", "image_path", "rank"), *images)])
    assert (reward.layout.schema, reward.votes.models) == ("imagereward", (NO_MODEL,))
    assert reward.votes.outcome.tolist() == [1, -1]


HEAD = ("left", "right", "winner")


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        ([HEAD], {}, "no votes"),
        ([], {}, "no rows"),
        (
            [HEAD, ("A", "B", "better")],
            {},
            "line 2: winner 'better' is no outcome that is known here; .*--outcome better=left",
        ),
        ([HEAD, ("A", "B", "left"), ("A", " ", "left")], {}, "line 3: right is missing"),
        ([HEAD, ("A", "B", "")], {}, "line 2: winner is missing"),
        (
            [("left", "right", "win"), ("A", "B", "left")],
            {},
            "column 'winner' is missing; .* left, right, win",
        ),
        ([HEAD, ("A", "B", "left")], {"left": "lef"}, "did you mean 'left'"),
        ([(*HEAD, "key"), ("A", "B", "left", "x"), ("A", "B", "left", "x")], {"id": "key"}, "'x' is repeated"),
        ([("group", "model", "rank"), ("g", "A", "first")], {}, "line 2: rank is not a number"),
        ([("group", "model", "rank"), ("g", "A", 1), ("h", "A", 1)], {}, "no group has two rows"),
    ],
)
def test_bad_files(tmp_path: Path, rows: list[Any], columns: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_votes([write_csv(tmp_path / "v.csv", *rows)], columns=columns)


def test_bad_paths(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "no.csv", "no such file"),
        (tmp_path, "holds no table"),
        (tmp_path / "x.txt", "unknown"),
    ):
        if path.suffix == ".txt":
            path.write_text("left,right,winner\n")
        with pytest.raises(InputError, match=says):
            read_votes([path])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a readable parquet"):
        read_votes([tmp_path / "b.parquet"])
    (tmp_path / "b.jsonl").write_text('{"left": "A"\n')
    with pytest.raises(InputError, match="not valid JSON"):
        read_votes([tmp_path / "b.jsonl"])


def test_a_vote_id_is_never_repeated(tmp_path: Path) -> None:
    rows = (("left", "right", "winner", "vote_id"), ("A", "B", "left", "x"), ("A", "B", "right", "x"))
    path = write_csv(tmp_path / "v.csv", *rows)
    for columns in (None, {"id": "vote_id"}):
        with pytest.raises(InputError, match="repeated"):
            read_votes([path], columns=columns)


def test_shards_and_columns_of_images(tmp_path: Path) -> None:
    """A folder of shards reads like one table; a bytes column plays no role by itself and is refused by name."""
    whole = read_votes([pickapic(tmp_path / "whole.parquet")])
    table = pq.read_table(tmp_path / "whole.parquet")
    (tmp_path / "shards").mkdir()
    for k in range(4):
        pq.write_table(table.slice(100 * k, 100), tmp_path / "shards" / f"{k}.parquet")
    parts = read_votes([tmp_path / "shards"])
    assert parts.row.tolist() == whole.row.tolist()
    assert rate(parts.votes).mu == pytest.approx(rate(whole.votes).mu, abs=1e-12)
    with pytest.raises(InputError, match="holds lists, records or bytes"):
        read_votes([tmp_path / "whole.parquet"], columns={"left": "jpg_0"})


def test_votes_beyond_memory_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes in files, small batches and blocks: ratings, intervals and gaps as from memory."""
    path = pickapic(tmp_path / "v.parquet", 3000)
    inside = read_votes([path])
    monkeypatch.setattr(tables, "ROWS", 256)
    monkeypatch.setattr(blocks_module, "ROWS", 500)
    monkeypatch.setattr(blocks_module.slices, "__defaults__", (500,))
    monkeypatch.setattr(blocks_module, "VOTES_PER_BLOCK", 300)
    (tmp_path / "spill").mkdir()
    seen: list[int] = []
    outside = read_votes([path], spill=tmp_path / "spill", in_memory=1000, on_rows=seen.append)
    assert isinstance(outside.votes.left, np.memmap)
    assert seen[-1] == 3000
    assert outside.row.tolist() == inside.row.tolist()
    assert outside.ids.to_pylist() == inside.ids.to_pylist()  # type: ignore[union-attr]
    first, second = rate(inside.votes), rate(outside.votes)
    assert second.mu.tolist() == first.mu.tolist()
    assert second.sigma == pytest.approx(first.sigma, rel=1e-12)
    assert len(list(image_blocks(outside.votes))) > 3
    for kind, rho in (("truncated", None), ("image", 0.5), ("image", None)):
        assert gaps(outside.votes, second, kind=kind, rho=rho) == pytest.approx(
            gaps(inside.votes, first, kind=kind, rho=rho), abs=5e-3, nan_ok=True
        )
    out = np.zeros(len(outside.votes))
    assert np.shares_memory(image_gaps(outside.votes, second, 0.5, out=out), out)


def test_hashes_and_codes(tmp_path: Path) -> None:
    """Hashes see every byte and the length; codes in files are codes in memory up to their order."""
    names = [f"{'x' * (k % 23)}{k}" for k in range(5000)] + ["", "a", "a\0", "ab", "ab\0", "é" * 40]
    plain = hash_names(pa.array(names))
    assert len(set(plain.tolist())) == len(names)
    assert hash_names(pa.array(names).slice(7, 9)).tolist() == plain[7:16].tolist()
    columns = [plain[numpy_generator(0, side).integers(0, 300, 1000)] for side in ("a", "b")]
    memory, distinct = dense_codes(*columns)
    disk, same = codes_on_disk(columns, tmp_path, "c")
    assert same == distinct
    pairs = set(zip(np.concatenate(memory).tolist(), np.concatenate(disk).tolist(), strict=True))
    assert len(pairs) == distinct


def test_components_of_images() -> None:
    """Connected groups as scipy finds them, on random sparse graphs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    for seed in range(5):
        rng = numpy_generator(seed, "graph")
        a, b = rng.integers(0, 200, 130), rng.integers(0, 200, 130)
        label = components(a, b, 200)
        _, theirs = connected_components(coo_matrix((np.ones(130), (a, b)), shape=(200, 200)), directed=False)
        assert len(set(zip(label.tolist(), theirs.tolist(), strict=True))) == len(set(theirs.tolist()))


def test_counts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense and sorted counts are the same; a model against itself is not counted."""
    from finepref.arena import counts as module

    rng = numpy_generator(0, "counts")
    votes = coded(rng.integers(0, 6, 500), rng.integers(0, 6, 500), rng.integers(-1, 2, 500), models=list("ABCDEF"))
    dense = count(votes)
    monkeypatch.setattr(module, "DENSE_UP_TO", 0)
    monkeypatch.setattr(blocks_module.slices, "__defaults__", (64,))
    for what in ("wins", "ties", "games"):
        assert count(votes).matrix(what).tolist() == dense.matrix(what).tolist()
    assert dense.total == int((votes.left != votes.right).sum())
    assert dense.record().sum() == 2 * dense.total
