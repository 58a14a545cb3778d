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
from finepref.formats.dialects import Layout, has_vote, layout_of
from finepref.formats.outcomes import LEFT, UNKNOWN, Codes
from finepref.formats.sources import Paths, tables
from finepref.formats.store import IN_MEMORY, Store, hash_names
from finepref.formats.tables import are_missing, text_column
from finepref.formats.votes import Games, Votes

Bools = npt.NDArray[np.bool_]
BOOKS = {"left": "model", "right": "model", "model": "model", "voter": "voter"}  # whose names are kept
HASHED = ("left_image", "right_image", "image", "prompt", "group")
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
    row: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64] | None = None
    ids: pa.ChunkedArray | None = None
    rejected: tuple[tuple[str, str], ...] = ()
    unlabelled: int = 0


def votes_in(given: Votes | VoteTable) -> Votes:
    """Votes as they are; of what `read_votes` returned, its votes."""
    return given.votes if isinstance(given, VoteTable) else given


@dataclass
class _Rows:
    """What has been read so far. skip: bad rows are left out and listed, not refused."""

    store: Store
    skip: bool = False
    books: dict[str, dict[str, int]] = field(default_factory=lambda: {"model": {}, "voter": {}})
    rejected: list[tuple[str, str]] = field(default_factory=list)
    unlabelled: int = 0


@dataclass(frozen=True, slots=True)
class _Cells:
    """A column of a batch: [n] codes and the names they stand for; the code len(names) is a cell without one."""

    column: str
    codes: Codes
    names: pa.Array

    @property
    def missing(self) -> Bools:
        """[n] whether a cell holds no name."""
        return np.asarray(self.codes == len(self.names), dtype=bool)

    @property
    def words(self) -> list[str | None]:
        """The name of every code, None for that of missing ones."""
        return [*self.names.to_pylist(), None]


@dataclass
class _Batch:
    """Rows read together. first: number of the first one in its file; good: [n] those that are votes so far."""

    path: Path
    first: int
    cells: Mapping[str, _Cells]
    rows: _Rows
    good: Bools

    def reject(self, bad: Bools, what: str, remedy: str = LEAVE_OUT) -> None:
        """Refuse the first bad row, or leave bad rows out on request."""
        self.reject_each(bad, lambda at, where: InputError(what, where=where, remedy=remedy))

    def reject_each(self, bad: Bools, reason: Callable[[int, str], InputError]) -> None:
        """`reject` with a reason for each row: row of the batch and place -> refusal."""
        bad = bad & self.good
        for at in np.flatnonzero(bad).tolist():
            error = reason(at, f"{self.path}: row {self.first + at}")
            if not self.rows.skip:
                raise error
            self.rows.rejected.append((str(error.where), error.what))
        self.good[bad] = False

    def leave_unlabelled(self, unlabelled: Bools) -> None:
        """Leave out rows that say themselves that they hold no vote."""
        self.rows.unlabelled += int((unlabelled & self.good).sum())
        self.good[unlabelled] = False


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
    rows, layout, offset = _Rows(Store(spill, in_memory), skip_bad_rows), None, 0
    for table in opened:
        table, found = layout_of(table, named)
        if layout is not None and found != layout:
            what = "its columns differ from those of the files before it"
            raise InputError(what, where=table.path, remedy="read it by itself")
        layout, start = found, offset
        for batch in table.batches(layout.wanted):
            _read_batch(batch, layout, rows, table.path, first=offset - start, offset=offset)
            rows.store.settle()
            offset += batch.num_rows
            if on_rows is not None:
                on_rows(offset)
    assert layout is not None
    if rows.store.rows == 0:
        raise InputError("there are no votes in it", where=opened[0].path, remedy="give at least one vote")
    return _vote_table(rows, layout, opened[0].path, unique_ids="id" in named)


def votes_of(columns: Mapping[str, Any]) -> Votes:
    """The votes of columns of names by role, for `Votes.from_columns`."""
    arrays = {role: text_column(values) for role, values in columns.items()}
    rows = {role: len(values) for role, values in arrays.items()}
    for role, count in rows.items():
        if count != rows["left"]:
            what = f"{role} has {count} rows and left {rows['left']}"
            raise InputError(what, remedy="give columns of equal length")
    if not rows["left"]:
        raise InputError("there are no votes", remedy="give at least one vote")
    layout = Layout("votes", {role: "outcome" if role == "winner" else role for role in columns})
    held = _Rows(Store(None))
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(layout.columns.values()))
    _read_batch(batch, layout, held, Path("columns"), first=0, offset=0)
    return _vote_table(held, layout, Path("columns"), unique_ids=False).votes


def _read_batch(
    columns: pa.RecordBatch, layout: Layout, rows: _Rows, path: Path, *, first: int, offset: int
) -> None:  # fmt: skip
    """Check the rows of a batch and keep the good ones. offset: number of the first one over all files."""
    cells = {role: _cells(columns, name) for role, name in layout.columns.items() if role != "id"}
    batch = _Batch(path, first, cells, rows, np.ones(columns.num_rows, dtype=bool))
    if "has_label" in cells:
        said = np.array([has_vote(word) for word in cells["has_label"].words], dtype=bool)
        batch.leave_unlabelled(~said[cells["has_label"].codes])
    for role in (*BOOKS, *HASHED):
        if role in cells and role not in ("prompt", "voter"):  # those may lack a name
            batch.reject(cells[role].missing, f"{cells[role].column} is empty")
    if layout.dialect.kwise:
        rows.store.add("rank", _ranks(batch)[batch.good])
    else:
        rows.store.add("outcome", _outcomes(batch, layout)[batch.good])
    for role, column in cells.items():
        if role in BOOKS:
            rows.store.add(role, _book_codes(rows.books[BOOKS[role]], column.words, column.codes[batch.good]))
        elif role in HASHED:
            hashes = np.append(hash_names(column.names), hash_names(pa.array([""])))
            rows.store.add(role, hashes[column.codes[batch.good]])
    if "prompt" in cells:
        rows.store.add("no_prompt", cells["prompt"].missing[batch.good])
    rows.store.add("row", np.flatnonzero(batch.good) + offset)
    if "id" in layout.columns:
        ids = _as_text(columns.column(layout.columns["id"])).cast(pa.string())
        rows.store.add("id", ids.filter(pa.array(batch.good)))


def _cells(columns: pa.RecordBatch, name: str) -> _Cells:
    text = _as_text(columns.column(name))
    encoded = text if pa.types.is_dictionary(text.type) else text.dictionary_encode()
    names = encoded.dictionary
    indices = encoded.indices.fill_null(len(names)) if encoded.null_count else encoded.indices
    codes = indices.to_numpy(zero_copy_only=False)
    empty = are_missing(names).to_numpy(zero_copy_only=False)
    if empty.any():
        codes = np.append(np.where(empty, len(names), np.arange(len(names))), len(names))[codes]
    return _Cells(name, codes, names)


def _as_text(column: pa.Array) -> pa.Array:
    """A column as strings or as a dictionary of strings."""
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(pa.string()))
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column.cast(pa.string())


def _book_codes(book: dict[str, int], words: list[str | None], codes: Codes) -> npt.NDArray[np.int32]:
    """Codes by the order in which names were met first; -1: not named."""
    used = np.zeros(len(words), dtype=bool)
    used[codes] = True
    table = np.zeros(len(words), dtype=np.int32)
    for position in np.flatnonzero(used).tolist():
        word = words[position]
        table[position] = -1 if word is None else book.setdefault(word, len(book))
    return table[codes]


def _outcomes(batch: _Batch, layout: Layout) -> npt.NDArray[np.int8]:
    """[n] outcomes of the good rows; +1 everywhere where the dialect lists the winner on the left."""
    cells, dialect = batch.cells, layout.dialect
    if "winner" not in cells:
        return np.full(len(batch.good), LEFT, dtype=np.int8)
    vocabulary, said = dialect.vocabulary, cells["winner"]
    if dialect.null_is_no_vote:
        batch.leave_unlabelled(said.missing)
    batch.reject(said.missing, f"{said.column} is missing")
    words = said.words
    left, right = ((cells[side].codes, cells[side].words) if side in cells else None for side in ("left", "right"))
    outcome = vocabulary.outcomes((said.codes, words), left, right)
    batch.reject_each(
        outcome == UNKNOWN,
        lambda at, where: vocabulary.refusal(str(words[said.codes[at]]), said.column, where),
    )
    if "other_label" in cells:
        other = cells["other_label"]
        sides = [0 if word is None else vocabulary.side(word) for word in other.words]
        mirror = np.array([UNKNOWN if side is None else -side for side in sides], dtype=np.int8)[other.codes]
        remedy = "correct the row, or leave such rows out with --skip-bad-rows"
        wrong = (mirror != outcome) & ~other.missing
        batch.reject(wrong, f"{said.column} and {other.column} do not add up to 1", remedy)
    return outcome


def _ranks(batch: _Batch) -> npt.NDArray[np.float64]:
    def number(word: str | None) -> float:
        try:
            return float(word or "nan")
        except ValueError:
            return float("nan")

    said = batch.cells["rank"]
    ranks = np.array([number(word) for word in said.words])[said.codes]
    batch.reject(~np.isfinite(ranks), f"{said.column} is not a number")
    return ranks


def _refuse_repeated(ids: pa.ChunkedArray, where: Path) -> None:
    """Ids are compared by hash first, to find repeated ones among very many."""
    if ids.null_count:
        raise InputError("an id is missing", where=where, remedy="fill it in, or do not name an id column")
    hashes = np.concatenate([hash_names(chunk) for chunk in ids.chunks])
    ordered = np.sort(hashes)
    for value in ordered[1:][ordered[1:] == ordered[:-1]]:
        names = ids.take(pa.array(np.flatnonzero(hashes == value))).to_pylist()
        if len(set(names)) < len(names):
            what = f"the id {max(names, key=names.count)!r} is repeated"
            raise InputError(what, where=where, remedy="make ids unique, or do not name an id column")


def _vote_table(rows: _Rows, layout: Layout, where: Path, *, unique_ids: bool) -> VoteTable:
    """Everything that was read, as votes; of rankings, all pairs of their items."""
    store = rows.store

    def codes(*roles: str) -> list[Any]:
        return store.codes(*roles)[0] if all(role in store for role in roles) else [None] * len(roles)

    columns = {role: store.column(role) for role in ("left", "right", "model", "voter", "id", "row") if role in store}
    row, ids = columns["row"], columns.get("id")
    if unique_ids:
        _refuse_repeated(ids, where)
    nobody, other = np.zeros(len(row), dtype=np.int32), None
    first: Any = slice(None)  # rows of the left items
    if layout.dialect.kwise:
        (group,), count = store.codes("group")
        order, start = np.argsort(group, kind="stable"), np.append(0, np.cumsum(np.bincount(group, minlength=count)))
        model, (image,) = columns.get("model", nobody), codes("image")
        games = Games(start, model[order], store.column("rank")[order])
        a, b, game = games.pairs()
        if len(a) == 0:
            raise InputError("no group has two rows", where=where, remedy="a ranking needs at least two items")
        first, second, other = order[a], order[b], row[order[b]]
        found = {"left": model[first], "right": model[second], "outcome": games.outcomes(a, b)}
        found |= {"game": game, "games": games}
        found |= {} if image is None else {"left_image": image[first], "right_image": image[second]}
        ids = None if ids is None else ids.take(pa.array(first))
    else:
        found = {"left": columns.get("left", nobody), "right": columns.get("right", nobody)}
        found["left_image"], found["right_image"] = codes("left_image", "right_image")
        found["outcome"] = store.column("outcome")
    prompt = codes("prompt")[0]
    if prompt is not None and (missing := store.column("no_prompt")).any():
        prompt = np.where(missing, -1, prompt)
    for role, column in (("prompt", prompt), ("voter", columns.get("voter"))):
        found[role] = None if column is None else column[first]
    voters = None if found["voter"] is None else tuple(rows.books["voter"])
    votes = Votes(models=tuple(rows.books["model"]) or (NO_MODEL,), voters=voters, **found)
    return VoteTable(votes, layout, row[first], other, ids, tuple(rows.rejected), rows.unlabelled)
