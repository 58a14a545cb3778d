"""Preferences as columns, without their pictures: for who looks at all of them and at no picture.

What a row says is read by the same code as row by row (`pairrows`), once for all rows that say the same. Where a row
must be looked at by itself, because something in it is wrong or its id is a hash of its pictures, there are no columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.core.errors import InputError
from finepref.core.progress import progress
from finepref.formats.dialects import PICTURES
from finepref.formats.pairrows import PairRows, bad_name
from finepref.formats.preferences import Preferences
from finepref.formats.repeated import once
from finepref.formats.stretches import open_rows
from finepref.formats.tables import Batch, are_missing, are_no_prompts
from finepref.formats.textcolumn import TextColumn, distinct
from finepref.formats.textfiles import Line

UNREAD = ("time", "game", "id")
OWN = ("pair_id", "prompt", "voter", "left_uid", "right_uid", *UNREAD)
"""Roles that tell rows apart and say nothing of who won."""
TEXTS = ("pair_id", "prompt", "model_0", "model_1", "image_0", "image_1")


@dataclass(frozen=True, slots=True)
class PairColumns:
    """n usable preferences in order; see `pairrows.Preference`. image_0, image_1: the data set's own names of them."""

    pair_id: TextColumn
    prompt: TextColumn
    model_0: TextColumn
    model_1: TextColumn
    image_0: TextColumn
    image_1: TextColumn
    label: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Piece:
    texts: dict[str, pa.Array]
    label: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]


class _Alone(Exception):
    """A row must be looked at by itself."""


def columns_of(preferences: Preferences) -> PairColumns | None:
    """The columns of preferences; None where they are to be gone through row by row.

    Raises:
        InputError: a column is missing, or the table is of no known dialect.
    """
    sources = open_rows(preferences.data, preferences.reading, images=False, account=preferences.account)
    if not all(map(_is_plain, sources)):
        return None
    try:
        pieces = [*progress((piece for source in sources for piece in _pieces(source)), "votes", unit="batch")]
    except _Alone:
        return None
    texts = {name: TextColumn(pa.chunked_array([piece.texts[name] for piece in pieces])) for name in TEXTS}
    if not pieces or distinct(texts["pair_id"]) < len(texts["pair_id"]):
        return None
    label, weight = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("label", "weight"))
    return PairColumns(**texts, label=label, weight=weight)


def _is_plain(source: PairRows) -> bool:
    """Whether a table can be read as columns, and has ids of its own."""
    is_flat = source.dialect.flatten is None and not source.dialect.kwise
    return is_flat and source.table.read_batches is not None and "pair_id" in source.cast


def _pieces(source: PairRows) -> Iterator[_Piece]:
    wanted = [column for role, column in source.cast.items() if role not in (*PICTURES, *UNREAD)]
    rows = 0
    for batch in source.table.batches(wanted):
        yield _piece(source, batch)
        rows += batch.size
    source.account.sources[str(source.table.path)] = rows
    source.account.notes.update(dict.fromkeys(source.table.notes))


def _piece(source: PairRows, batch: Batch) -> _Piece:
    cast, held = source.cast, batch.columns
    if batch.faults:
        raise _Alone
    names = [column for role, column in cast.items() if role not in (*OWN, *PICTURES)]
    rows: list[dict[str, Any]] = [{}]
    became = np.zeros(held.num_rows, dtype=np.int64)
    if names:
        seen = once(batch._replace(columns=held.select(names)))
        became, rows = seen.became, seen.batch.columns.to_pylist()
    lines = ((at, Line(at, {**row, cast.get("prompt", "prompt"): "a prompt"})) for at, row in enumerate(rows))
    try:
        drafts = [*source.pairs(lines)]
    except InputError:
        raise _Alone from None
    said = [draft.preference for draft in drafts if draft.preference is not None and not draft.problem]
    if len(said) < len(rows):
        raise _Alone
    _check_voters(source, held)
    texts = {
        "pair_id": _texts(held.column(cast["pair_id"])), "prompt": _prompts(source, held),
        "model_0": _spread([each.model_0 for each in said], became),
        "model_1": _spread([each.model_1 for each in said], became),
        "image_0": _own_names(source, held, "left_uid"), "image_1": _own_names(source, held, "right_uid"),
    }  # fmt: skip
    if texts["pair_id"].null_count:
        raise _Alone
    label, weight = (np.array([getattr(each, name) for each in said])[became] for name in ("label", "weight"))
    return _Piece(texts, label, weight)


def _spread(names: list[str | None], became: npt.NDArray[np.int64]) -> pa.Array:
    """[n] a name for each row; names of rows that say the same stand once."""
    known = [*dict.fromkeys(name for name in names if name is not None)]
    place = np.array([-1 if name is None else known.index(name) for name in names], dtype=np.int32)[became]
    return pa.DictionaryArray.from_arrays(pa.array(place, mask=place < 0), pa.array(known, pa.string()))


def _texts(column: pa.Array) -> pa.Array:
    """[n] cells as text, null where one is missing."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise _Alone  # 12.0 may be written in several ways
    text = column.cast(pa.string())
    missing = are_missing(text)
    return pa.compute.if_else(missing, pa.scalar(None, pa.string()), text) if missing.true_count else text


def _own_names(source: PairRows, held: pa.RecordBatch, role: str) -> pa.Array:
    if role not in source.cast:
        return pa.nulls(held.num_rows, pa.string())
    return _texts(held.column(source.cast[role]))


def _prompts(source: PairRows, held: pa.RecordBatch) -> pa.Array:
    column = held.column(source.cast["prompt"])
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    prompts = encoded.dictionary
    if encoded.null_count or not pa.types.is_string(prompts.type) or are_no_prompts(prompts).true_count:
        raise _Alone
    return encoded


def _check_voters(source: PairRows, held: pa.RecordBatch) -> None:
    if "voter" not in source.cast:
        return
    column = source.cast["voter"]
    for value in held.column(column).unique().to_pylist():
        if bad_name(source.name({column: value}, "voter")):
            raise _Alone
