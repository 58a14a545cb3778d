"""Vote files to `Votes`: recognise the dialect, read only its columns batch by batch, check every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finepref.core.errors import InputError
from finepref.formats import kwise
from finepref.formats.dialects import flat, has_vote
from finepref.formats.hashing import hash_names
from finepref.formats.layout import Layout, layout_of
from finepref.formats.outcomes import LEFT, UNKNOWN, Coded, outcome_codes, side_of, unknown_outcome
from finepref.formats.sources import Paths, tables
from finepref.formats.store import IN_MEMORY, Store
from finepref.formats.tables import are_missing
from finepref.formats.votes import Games, Votes

Bools = npt.NDArray[np.bool_]
NAME_ROLES = {
    "left": "model", "right": "model", "model": "model",
    "left_image": "image", "right_image": "image", "image": "image",
    "prompt": "prompt", "voter": "voter", "group": "group",
}  # fmt: skip
NO_MODEL = "(model not named)"
LEAVE_OUT = "fill it in, or leave such rows out with --skip-bad-rows"


@dataclass(frozen=True, slots=True)
class VoteTable:
    """Votes and where each one stands in its files.

    row: [n] number of each vote's row over all files in order, counted from 0 (K-wise: of its left item), other: the
    right item's row or None. ids: [n] names of the votes, where there is an id column. rejected: (place, reason) of
    rows that were left out on request. unlabelled: rows that say themselves that they hold no vote.
    """

    votes: Votes
    layout: Layout
    paths: tuple[Path, ...]
    row: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64] | None = None
    ids: pa.ChunkedArray | None = None
    rejected: tuple[tuple[str, str], ...] = ()
    unlabelled: int = 0


@dataclass
class _Rows:
    """What has been read so far."""

    store: Store
    skip: bool
    models: dict[str, int] = field(default_factory=dict)
    voters: dict[str, int] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    unlabelled: int = 0


@dataclass
class _Batch:
    """Rows read together. first: number of the first one in its file; good: [n] those that are votes so far."""

    columns: pa.RecordBatch
    path: Path
    first: int
    rows: _Rows
    good: Bools

    def reject(self, bad: Bools, reason: Callable[[int], InputError]) -> None:
        """Refuse the first bad row, or leave bad rows out on request; reason: row of the batch -> refusal."""
        bad = bad & self.good
        for at in np.flatnonzero(bad).tolist():
            error = reason(at)
            if not self.rows.skip:
                raise error
            self.rows.rejected.append((str(error.where), error.what))
        self.good[bad] = False

    def fault(self, at: int, what: str, remedy: str = LEAVE_OUT) -> InputError:
        """A refusal with the place of a row."""
        return InputError(what, where=self.place(at), remedy=remedy)

    def place(self, at: int) -> str:
        """File and row."""
        return f"{self.path}: row {self.first + at}"


def read_votes(
    paths: Paths,
    *,
    columns: Mapping[str, str] | None = None,
    skip_bad_rows: bool = False,
    spill: Path | None = None,
    in_memory: int = IN_MEMORY,
    on_rows: Callable[[int], None] | None = None,
) -> VoteTable:
    """Read votes from files and folders.

    Args:
        paths: csv, tsv, jsonl, json and parquet files, folders of them, patterns, hub names.
        columns: role -> column, for what the dialect does not say by itself; roles: left, right, winner, left_image,
            right_image, prompt, voter, id, or group, model, rank (and image).
        skip_bad_rows: leave out rows with a missing name or outcome and list them, instead of stopping at the first.
        spill: an empty folder for the codes of more than `in_memory` votes; the result stays mapped to its files.
        on_rows: called with the number of rows read so far.

    Raises:
        InputError: nothing to read, a column is missing, a bad row, an unknown outcome word, a repeated id in a column
            that `columns` names as id.
    """
    named = dict(columns or {})
    opened = tables(paths)
    rows = _Rows(Store(spill, in_memory), skip_bad_rows)
    layouts = [layout_of(table, named) for table in opened]
    layout, offset = layouts[0], 0
    for table, found in zip(opened, layouts, strict=True):
        if found != layout:
            what = "its columns differ from those of the files before it"
            raise InputError(what, where=table.path, remedy="read it by itself")
        start = offset
        for batch in flat(table, layout.dialect, named).batches(layout.wanted):
            good = np.ones(batch.num_rows, dtype=bool)
            _read_batch(_Batch(batch, table.path, offset - start, rows, good), layout, offset)
            rows.store.settle()
            offset += batch.num_rows
            if on_rows is not None:
                on_rows(offset)
    if rows.store.rows == 0:
        raise InputError("there are no votes in it", where=opened[0].path, remedy="give at least one vote")
    files = tuple(table.path for table in opened)
    ids = _ids(rows, files[0], unique="id" in named)
    return (_game_table if layout.dialect.kwise else _pair_table)(rows, layout, files, ids)


def _read_batch(batch: _Batch, layout: Layout, offset: int) -> None:
    rows, good = batch.rows, batch.good
    names: dict[str, pa.Array] = {}
    for role, column in layout.columns.items():
        if role in NAME_ROLES:
            names[role] = _as_text(batch.columns.column(column))
    if "has_label" in layout.columns:
        said = batch.columns.column(layout.columns["has_label"]).to_pylist()
        _leave_unlabelled(batch, np.array([not has_vote(value) for value in said], dtype=bool))
    for role, array in names.items():
        if role in ("prompt", "voter"):  # one without a name is one like any other
            names[role] = array if pa.types.is_dictionary(array.type) else array.fill_null("")
        else:
            column = layout.columns[role]
            batch.reject(_is_empty(array), lambda at, c=column: batch.fault(at, f"{c} is empty"))  # type: ignore[misc]
    if layout.dialect.kwise:
        ranks = _ranks(batch, layout.columns["rank"])
        rows.store.add("rank", ranks[good])
    else:
        outcome = _outcomes(batch, layout, names)
        rows.store.add("outcome", outcome[good])
    for role, array in names.items():
        rows.store.add(role, _name_codes(rows, role, array, good))
    rows.store.add("row", np.flatnonzero(good) + offset)
    if "id" in layout.columns:
        ids = _as_text(batch.columns.column(layout.columns["id"])).cast(pa.string())
        rows.store.add("id", ids.filter(pa.array(good)))


def _leave_unlabelled(batch: _Batch, unlabelled: Bools) -> None:
    batch.rows.unlabelled += int((unlabelled & batch.good).sum())
    batch.good[unlabelled] = False


def _coded(text: pa.Array) -> Coded:
    """[n] codes of an array of text and the words they stand for; the last word is None (missing)."""
    encoded = text if pa.types.is_dictionary(text.type) else text.dictionary_encode()
    empty = are_missing(encoded.dictionary).to_pylist()
    words = [None if nothing else word for word, nothing in zip(encoded.dictionary.to_pylist(), empty, strict=True)]
    indices = encoded.indices.fill_null(len(words)) if encoded.null_count else encoded.indices
    return indices.to_numpy(zero_copy_only=False), [*words, None]


def _outcomes(batch: _Batch, layout: Layout, names: Mapping[str, pa.Array]) -> npt.NDArray[np.int8]:
    """[n] outcomes; numbers without one are no vote, words without one are a fault."""
    dialect = layout.dialect
    if "winner" not in layout.columns:
        return np.full(len(batch.good), LEFT, dtype=np.int8)
    own, shares, column = dialect.words, dialect.shares, layout.columns["winner"]
    codes, words = _coded(_as_text(batch.columns.column(column)))
    absent = np.array([word is None for word in words], dtype=bool)[codes]
    if dialect.null_is_no_vote:
        _leave_unlabelled(batch, absent)
    batch.reject(absent, lambda at: batch.fault(at, f"{column} is missing"))
    left, right = (_coded(names[side]) if side in names else None for side in ("left", "right"))
    outcome = outcome_codes((codes, words), left, right, own=own, shares=shares)
    batch.reject(
        outcome == UNKNOWN,
        lambda at: unknown_outcome(str(words[codes[at]]), where=batch.place(at), column=column, own=own, shares=shares),
    )
    if "other_label" in layout.columns:
        other = layout.columns["other_label"]
        at_other, others = _coded(_as_text(batch.columns.column(other)))
        sides = [None if word is None else side_of(word, own=own, shares=shares) for word in others]
        says = np.array([UNKNOWN if side is None else -side for side in sides], dtype=np.int8)[at_other]
        silent = np.array([word is None for word in others], dtype=bool)[at_other]
        remedy = "correct the row, or leave such rows out with --skip-bad-rows"
        batch.reject(
            (says != outcome) & ~silent, lambda at: batch.fault(at, f"{column} and {other} do not add up to 1", remedy)
        )
    return outcome


def _ranks(batch: _Batch, name: str) -> npt.NDArray[np.float64]:
    column = batch.columns.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        numbers = np.array([_number(word) for word in column.to_pylist()])
    else:
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    batch.reject(~np.isfinite(numbers), lambda at: batch.fault(at, f"{name} is not a number"))
    return np.asarray(numbers, dtype=np.float64)


def _as_text(column: pa.Array) -> pa.Array:
    """A column as strings or as a dictionary of strings."""
    if pa.types.is_dictionary(column.type):
        if pa.types.is_string(column.type.value_type):
            return column
        return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(pa.string()))
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _is_empty(names: pa.Array) -> Bools:
    """[n] whether the name is missing, empty or blank."""
    if pa.types.is_dictionary(names.type):
        table = np.append(_is_empty(names.dictionary), True)
        codes = names.indices.fill_null(len(names.dictionary)) if names.null_count else names.indices
        return np.asarray(table[codes.to_numpy(zero_copy_only=False)], dtype=bool)
    return np.asarray(are_missing(names).to_numpy(zero_copy_only=False), dtype=bool)


def _name_codes(rows: _Rows, role: str, names: pa.Array, good: Bools) -> npt.NDArray[Any]:
    """The good rows' model and voter names as codes, image, prompt and group names as hashes."""
    kind = NAME_ROLES[role]
    if kind in ("image", "prompt", "group"):
        return hash_names(names)[good]
    book = rows.models if kind == "model" else rows.voters
    encoded = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
    indices = encoded.indices.fill_null(len(encoded.dictionary)) if encoded.null_count else encoded.indices
    codes = indices.to_numpy(zero_copy_only=False)[good]
    words = [*encoded.dictionary.to_pylist(), ""]
    used = np.zeros(len(words), dtype=bool)
    used[codes] = True
    table = np.zeros(len(words), dtype=np.int32)
    for position in np.flatnonzero(used):
        table[position] = book.setdefault(words[position] or "", len(book))
    return table[codes]


def _number(word: str | None) -> float:
    try:
        return float(word) if word is not None else float("nan")
    except ValueError:
        return float("nan")


def _ids(rows: _Rows, where: Path, *, unique: bool) -> pa.ChunkedArray | None:
    if "id" not in rows.store:
        return None
    ids = rows.store.column("id")
    if not unique:
        return ids
    if ids.null_count:
        raise InputError("an id is missing", where=where, remedy="fill it in, or do not name an id column")
    hashes = np.concatenate([hash_names(chunk) for chunk in ids.chunks])
    ordered = np.sort(hashes)
    for value in ordered[1:][ordered[1:] == ordered[:-1]]:
        names = ids.take(pa.array(np.flatnonzero(hashes == value))).to_pylist()
        if len(set(names)) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            remedy = "make ids unique, or do not name an id column"
            raise InputError(f"the id {double!r} is repeated", where=where, remedy=remedy)
    return ids


def _optional(rows: _Rows, role: str) -> npt.NDArray[np.int32] | None:
    return rows.store.codes(role)[0][0] if role in rows.store else None


def _common(rows: _Rows) -> dict[str, Any]:
    voter = rows.store.column("voter") if "voter" in rows.store else None
    return {"voter": voter, "voters": None if voter is None else tuple(rows.voters)}


def _pair_table(rows: _Rows, layout: Layout, paths: tuple[Path, ...], ids: pa.ChunkedArray | None) -> VoteTable:
    row = rows.store.column("row")
    n = len(row)
    images: list[Any] = [None, None]
    if "left_image" in rows.store and "right_image" in rows.store:
        images, _ = rows.store.codes("left_image", "right_image")
    one_model = np.zeros(n, dtype=np.int32)
    votes = Votes(
        models=tuple(rows.models) or (NO_MODEL,),
        left=rows.store.column("left") if "left" in rows.store else one_model,
        right=rows.store.column("right") if "right" in rows.store else one_model,
        outcome=rows.store.column("outcome"), left_image=images[0], right_image=images[1],
        prompt=_optional(rows, "prompt"), **_common(rows),
    )  # fmt: skip
    return VoteTable(votes, layout, paths, row, None, ids, tuple(rows.rejected), rows.unlabelled)


def _game_table(rows: _Rows, layout: Layout, paths: tuple[Path, ...], ids: pa.ChunkedArray | None) -> VoteTable:
    (group,), n_groups = rows.store.codes("group")
    order, start = kwise.group_rows(group, n_groups)
    model = rows.store.column("model") if "model" in rows.store else np.zeros(len(group), dtype=np.int32)
    games = Games(start, model[order], rows.store.column("rank")[order])
    first, second, game = kwise.all_pairs(games)
    if len(first) == 0:
        raise InputError("no group has two rows", where=paths[0], remedy="a ranking needs at least two items")
    row = rows.store.column("row")[order]
    image = rows.store.codes("image")[0][0][order] if "image" in rows.store else None
    prompt, common = _optional(rows, "prompt"), _common(rows)
    if common["voter"] is not None:
        common["voter"] = common["voter"][order][first]
    votes = Votes(
        models=tuple(rows.models) or (NO_MODEL,), left=games.model[first], right=games.model[second],
        outcome=kwise.outcomes(games, first, second),
        left_image=None if image is None else image[first], right_image=None if image is None else image[second],
        prompt=None if prompt is None else prompt[order][first], game=game, games=games, **common,
    )  # fmt: skip
    pair_ids = None if ids is None else ids.take(pa.array(order)).take(pa.array(first))
    return VoteTable(votes, layout, paths, row[first], row[second], pair_ids, tuple(rows.rejected), rows.unlabelled)
