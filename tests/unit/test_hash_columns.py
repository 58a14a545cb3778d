"""Columns in a few bytes a row are the sequences of text that they stand for."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from finepref.formats import hashcolumns
from finepref.formats.hashcolumns import Hashes, chosen, coded, hash_bytes, packed, places, repeats, sorted_rows, taken
from finepref.formats.textcolumn import TextColumn


def digests(count: int, *, size: int = 64, seed: int = 0) -> list[str]:
    return [hashlib.sha256(f"{seed} {n}".encode()).hexdigest()[:size] for n in range(count)]


@pytest.mark.parametrize("size", [64, 32, 16])
def test_hashes_are_their_text(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashcolumns, "PIECE", 7)
    texts = digests(50, size=size)
    column = packed([pa.array(texts[:20]), pa.array(texts[20:]).slice(0, 30)])
    assert isinstance(column, Hashes)
    assert column.data.shape == (50, size // 2)
    assert [*column] == texts == [column[n] for n in range(50)]
    assert column == texts
    assert (column[-1], column[3:5]) == (texts[-1], texts[3:5])
    with pytest.raises(IndexError):
        column[50]
    order = sorted_rows(column)
    ordered = Hashes(column.data[order])
    assert [*ordered] == sorted(texts)


@pytest.mark.parametrize("other", ["p1", "A" * 32, "", "0" * 31, "0" * 34, None])
def test_what_is_no_hash_stays_text(other: str | None) -> None:
    texts = [*digests(5, size=32), other, *digests(2, size=32, seed=1)]
    for cut in (0, 3, 5, 6):
        column = packed([pa.array(texts[:cut], pa.string()), pa.array(texts[cut:], pa.string())])
        assert isinstance(column, TextColumn)
        assert [*column] == texts
    assert hash_bytes(pa.array(["0" * 64, "g" * 64]), 32) is None
    assert [*packed([])] == []


def test_views_are_the_rows_that_they_stand_for() -> None:
    pool = Hashes(np.frombuffer(bytes.fromhex("".join(digests(9))), np.uint8).reshape(9, 32))
    codes = np.array([3, 0, 8, 3, 2], np.int32)
    first, second = coded(pool, codes), coded(["a", "b"], codes % 2)
    assert [*first] == [digests(9)[code] for code in codes]
    assert [*second] == ["b", "a", "a", "b", "a"]
    rows = np.array([4, 4, 1], np.int32)
    assert [*taken(first, rows)] == [first[4], first[4], first[1]]
    assert [*taken(["v", "w", "x", "y", "z"], rows)] == ["z", "z", "w"]
    assert [*chosen((first, second), np.array([1, 0, 1], np.int8), rows)] == ["a", first[4], "a"]
    assert np.array_equal(np.asarray(second), ["b", "a", "a", "b", "a"])


@pytest.mark.parametrize("kind", ["hashes", "text"])
def test_places_and_repeats(kind: str) -> None:
    names = digests(300, size=32) if kind == "hashes" else [f"p{n}" for n in range(300)]
    rng = np.random.default_rng(0)
    among = [names[n] for n in rng.permutation(200)]
    wanted = [names[n] for n in rng.integers(0, 300, 500)]
    found = places(packed([pa.array(wanted)]), packed([pa.array(among)]))
    assert found.tolist() == [among.index(name) if name in among else -1 for name in wanted]
    assert places(packed([pa.array(wanted)]), packed([])).tolist() == [-1] * 500
    assert not repeats(packed([pa.array(among)]))
    assert repeats(packed([pa.array([*among, among[17]])]))


def test_hashes_of_one_head_are_told_apart() -> None:
    """They differ after the eighth byte alone, which no two contents that people have do."""
    texts = [f"{'ab' * 8}{n:048x}" for n in (5, 3, 9, 1)]
    column = packed([pa.array(texts)])
    assert isinstance(column, Hashes)
    assert [texts[row] for row in sorted_rows(column)] == sorted(texts)
    wanted = packed([pa.array([texts[2], f"{'ab' * 8}{4:048x}", texts[3], "00" * 32])])
    assert places(wanted, column).tolist() == [2, -1, 3, -1]
    assert not repeats(column)
