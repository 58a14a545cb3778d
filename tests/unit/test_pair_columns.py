"""Preferences read as columns are those that are read row by row; what needs a look at a row is read so."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finepref.core.rng import numpy_generator
from finepref.formats import tables
from finepref.formats.paircolumns import columns_of
from finepref.formats.preferences import Preferences, Quarantined, read_preferences
from finepref.formats.reading import Reading
from finepref.formats.textcolumn import TextColumn, codes_of, content_of, distinct, picked
from finepref.signals import parts
from finepref.signals.make import make_signals, vote_table

N = 700


def pickapic(n: int = N) -> dict[str, Any]:
    """Columns of Pick-a-Pic; one row in nine was not voted on, one in eight is a tie, some models have no name."""
    chance = numpy_generator(0, "pair columns", n)
    label = chance.choice([1.0, 0.0, 0.5], n, p=[0.45, 0.43, 0.12])
    models = np.array(["a/one", "b/two", " b/two", None], object)
    uids = [[f"uid {row % count}" for row in range(n)] for count in (200, 130)]
    return {
        "ranking_id": np.arange(n), "caption": [f"prompt {row % 90}" for row in range(n)], "label_0": label,
        "label_1": 1.0 - label, "has_label": np.arange(n) % 9 > 0, "best_image_uid": ["x"] * n,
        "image_0_uid": uids[0], "image_1_uid": uids[1],
        "model_0": models[chance.integers(0, 4, n)], "model_1": models[chance.integers(0, 4, n)],
        "user_id": chance.integers(0, 20, n), "created_at": pa.array(np.arange(n), pa.timestamp("ns")),
    }  # fmt: skip


def house(n: int = N) -> dict[str, Any]:
    """Columns of the house format, with weights, shares and both-bad."""
    chance = numpy_generator(1, "pair columns", n)
    return {
        "pair_id": [f"p{row}" for row in range(n)], "prompt": ["a cat", "a dog"] * (n // 2),
        "image_0": [b"x"] * n, "image_1": [b"y"] * n, "label": chance.choice([1.0, 0.0, 0.5, 0.75], n),
        "model_0": ["m"] * n, "model_1": ["k"] * n, "voter": ["v", None] * (n // 2),
        "weight": chance.choice([1.0, 2.0, 3.5], n), "both_bad": [False] * n,
    }  # fmt: skip


def write(path: Path, columns: dict[str, Any], **kinds: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=150, **kinds)
    return path


def preferences(*paths: Path, **reading: Any) -> Preferences:
    return Preferences(data=[*paths], reading=Reading(**reading), images=False)


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("make", [pickapic, house])
def test_columns_are_the_rows(tmp_path: Path, make: Any, dictionary: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PARQUET_ROWS", 64)
    columns = make()
    names = [name for name, values in columns.items() if name != "created_at"]
    first = {name: columns[name][:400] for name in names}
    second = {name: columns[name][400:] for name in names}
    paths = [
        write(tmp_path / f"{number}.parquet", held, use_dictionary=dictionary)
        for number, held in enumerate((first, second))
    ]
    quick = columns_of(preferences(*paths))
    assert quick is not None
    found, expected = parts.table_of(quick), parts.vote_table(preferences(*paths))
    for field in fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert (None if ours is None else [*ours]) == (None if theirs is None else [*theirs]), field.name


def test_the_account_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.parquet", pickapic())
    quick, slow = preferences(path), preferences(path)
    assert columns_of(quick) is not None
    assert [*slow]
    assert quick.account == slow.account


def spoilt(name: str) -> dict[str, Any]:
    columns = {key: np.array(values, object) for key, values in pickapic().items() if key != "created_at"}
    at, value = {
        "an empty prompt": ("caption", ""), "an id twice": ("ranking_id", 6), "no id": ("ranking_id", None),
        "labels that do not add up": ("label_1", 0.7), "a name that cannot be seen": ("model_0", "a\u202eb"),
        "an unknown label": ("label_0", 7.5),
    }[name]  # fmt: skip
    columns[at][5] = value
    return {key: [*values] for key, values in columns.items()}


@pytest.mark.parametrize(
    "name",
    ["an empty prompt", "an id twice", "no id", "labels that do not add up", "a name that cannot be seen",
     "an unknown label"],
)  # fmt: skip
def test_a_row_that_must_be_looked_at(tmp_path: Path, name: str) -> None:
    assert columns_of(preferences(write(tmp_path / "votes.parquet", spoilt(name)))) is None


def test_other_tables_have_no_columns(tmp_path: Path) -> None:
    columns = pickapic()
    hashed = write(tmp_path / "hashed.parquet", {k: v for k, v in columns.items() if k != "ranking_id"})
    assert columns_of(preferences(hashed)) is None
    text = tmp_path / "votes.jsonl"
    text.write_text('{"prompt": "a cat", "chosen": "a.png", "rejected": "b.png"}\n')
    assert columns_of(preferences(text)) is None
    memory = read_preferences([{"prompt": "a cat", "chosen": b"1", "rejected": b"2"}])
    assert columns_of(memory) is None


def test_bad_rows_are_listed_as_ever(tmp_path: Path) -> None:
    faults: list[Quarantined] = []
    path = write(tmp_path / "votes.parquet", spoilt("an empty prompt"))
    table = vote_table(Preferences(data=[path], images=False, quarantine=faults), named_images=False)
    assert len(table.pair_id) == N - 1
    assert [fault.row for fault in faults] == [5]


def test_signals_are_equal(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.parquet", pickapic())
    prefs = preferences(path)
    for kind, options in (("binary", {}), ("uniform", {"margin": 2.0}), ("kto", {"desirable": "only_wins"})):
        found, expected = make_signals(prefs, kind=kind, **options), make_signals([*prefs], kind=kind, **options)
        assert found.pair_id == expected.pair_id
        assert found.meta == expected.meta
        for name in ("winner", "margin_0", "margin_1", "weight", "label_0", "label_1"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


texts = st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=30)


@settings(max_examples=200)
@given(values=texts, other=texts)
def test_a_column_is_its_list(values: list[str | None], other: list[str | None]) -> None:
    coded = pa.array(values, pa.string()).dictionary_encode()
    for arrow in (pa.chunked_array([pa.array(values, pa.string())]), pa.chunked_array([coded[:3], coded[3:]])):
        column = TextColumn(arrow)
        assert column == values
        assert column[0] == values[0]
        assert column[1:] == values[1:]
        assert (None in column) == (None in values)
        assert distinct(column) == len({*values} - {None})
        rows = np.arange(len(values))[::-1]
        assert picked(column, rows) == values[::-1]
        same = b"".join(content_of(column)) == b"".join(content_of(other))
        assert same == (values == other)
        if None not in values:
            (codes,), count = codes_of(column)
            assert count == len({*values})
            assert [values[place] for place in np.unique(codes, return_index=True)[1]] == [*dict.fromkeys(values)]
