"""Vote files to `Votes`: recognise the dialect, read only its columns batch by batch, check every row."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.core.errors import InputError, check_word, nearest
from finepref.core.text import clean_name, visible
from finepref.formats.cells import Gathered
from finepref.formats.dialects import IN_COLUMNS
from finepref.formats.layout import ALONE, Layout, elsewhere, layout_of
from finepref.formats.outcomes import canonical
from finepref.formats.ratings import SourceRows
from finepref.formats.reading import Reading
from finepref.formats.repeated import can_repeat, is_full, join, once
from finepref.formats.sources import Paths, tables
from finepref.formats.store import IN_MEMORY, Store, hash_names
from finepref.formats.tables import Batch, Table, memory_table, text_column
from finepref.formats.votebatch import EVERY, NO_TIME, take_batch
from finepref.formats.votes import Games, Rows, Votes

NO_MODEL = "(model not named)"
OWN_IDS = ("vote_id", "pair_id")  # columns of names of votes, which no two votes share


@dataclass(frozen=True, slots=True)
class VoteTable:
    """Votes and where each one stands in its files.

    row: [n] number of each vote's row over all files in order, counted from 0 (K-wise: of its left item), other: the
    right item's row or None. Both are empty where equal votes are one row. ids: [n] names of the votes, where there
    is an id column. sources: the files. rejected: (place, reason) of rows that were left out on request. left_out:
    reason -> how many rows, those that say themselves that they hold no vote among them. outcome_words: outcome word ->
    how it was taken. notes: sentences on what was read otherwise than it stands in the file.
    """

    votes: Votes
    layout: Layout
    row: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64] | None = None
    ids: pa.ChunkedArray | None = None
    sources: tuple[SourceRows, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    outcome_words: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def votes_in(given: Votes | VoteTable) -> Votes:
    """Votes as they are; of what `read_votes` returned, its votes.

    Raises:
        InputError: it is neither.
    """
    if isinstance(given, VoteTable):
        return given.votes
    if not isinstance(given, Votes):
        what = f"a {type(given).__name__} is given for votes"
        raise InputError(what, where="votes", remedy="give what `read_votes` or `Votes.from_columns` returned")
    return given


def read_votes(
    paths: Paths,
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    outcomes: Mapping[str, str] | None = None,
    encoding: str | None = None,
    split: str | None = None,
    question: str | None = None,
    skip_bad_rows: bool = False,
    spill: Path | None = None,
    in_memory: int = IN_MEMORY,
    on_rows: Callable[[int], None] | None = None,
) -> VoteTable:
    """Read votes from files and folders.

    Args:
        paths: csv, tsv, jsonl, json and parquet files (text also .gz, .zst), folders of them, patterns, hub names;
            parquet at an address (s3://...); a database of DuckDB with one table (.duckdb), a query for it (.sql).
        format: a name of `dialects.DIALECTS`, or auto.
        columns: role -> column, for what the dialect does not say by itself; roles: left, right, winner, left_image,
            right_image, prompt, voter, id, or group, model, rank (and image).
        outcomes: word -> left, right, tie, both_bad or none, for outcome words that the dialect does not know.
        encoding: of text files, utf-8 by default. split: of a folder with several. question: the one whose votes are
            read, where several were asked; `all`: every one.
        skip_bad_rows: leave out rows with a missing name or outcome and list them, instead of stopping at the first.
        spill: an empty folder for the codes of more than `in_memory` votes; the result stays mapped to its files.
        on_rows: called with the number of rows read so far.

    Raises:
        InputError: nothing to read, a column is missing, a bad row, an unknown outcome word, an outcome column that is
            not read, several questions, a repeated id.
    """
    reading = Reading(
        format=format, columns=columns or {}, outcomes=outcomes or {}, encoding=encoding, split=split, question=question
    )
    return read_as(paths, reading, skip_bad_rows=skip_bad_rows, spill=spill, in_memory=in_memory, on_rows=on_rows)


def read_as(
    paths: Paths,
    reading: Reading,
    *,
    skip_bad_rows: bool = False,
    spill: Path | None = None,
    in_memory: int = IN_MEMORY,
    on_rows: Callable[[int], None] | None = None,
    repeated: bool = False,
) -> VoteTable:
    """`read_votes` with a record of how the tables are to be read.

    repeated: equal votes may be one row, with `Votes.repeats`, where nothing but their place tells them apart.
    """
    opened = tables(paths, reading)
    gathered, layout, offset = Gathered(Store(spill, in_memory), skip_bad_rows), None, 0
    sources: list[SourceRows] = []
    edges = [0]
    for number, table in enumerate(opened):
        table, own = layout_of(table, reading, number=number)
        if layout is not None and own != layout:
            what = f"its columns are read otherwise than those of {opened[0].path}"
            raise InputError(what, where=table.path, remedy="read it by itself, or give both the same columns")
        layout = own
        gathered.notes.update(dict.fromkeys(table.notes))
        rows, places, last = 0, 0, -1
        for batch in table.batches(layout.wanted):
            if repeated and can_repeat(layout):
                _take_once(batch, layout, gathered, table, reading=reading)
            else:
                take_batch(batch, layout, gathered, table, reading=reading, offset=offset)
            gathered.store.settle()
            offset += batch.size
            rows += batch.size
            if layout.dialect.flatten is not None:
                every = np.sort(np.append(batch.at, [line.at for line in batch.faults]))
                places += int(np.count_nonzero(np.diff(every, prepend=last)))
                last = int(every[-1]) if len(every) else last
            if on_rows is not None:
                on_rows(offset)
        rows = rows if layout.dialect.flatten is None else places
        edges.append(gathered.store.votes)
        sources.append(SourceRows(path=str(table.path), rows=rows, used=edges[-1] - edges[-2]))
    assert layout is not None
    if reading.question is not None and "question" not in layout.columns:
        raise InputError("the votes name no question", where="--question", remedy="leave it out, or name the column")
    _check_said(reading, gathered)
    if gathered.store.rows == 0:
        why = "".join(f"; {count} left out: {reason}" for reason, count in gathered.left_out.items())
        raise InputError(f"there are no votes in it{why}", where=opened[0].path, remedy="give at least one vote")
    ids = layout.columns.get("id")
    unique = ids in OWN_IDS or "id" in reading.columns
    return _vote_table(gathered, layout, tuple(sources), np.array(edges), unique_ids=unique)


def _take_once(batch: Batch, layout: Layout, gathered: Gathered, table: Table, *, reading: Reading) -> None:
    """`take_batch` of a batch's equal rows once each; a refusal names the row as it stands in the file."""
    try:
        take_batch(once(batch, each=gathered.skip).batch, layout, gathered, table, reading=reading, offset=0)
    except InputError:
        take_batch(batch, layout, gathered, table, reading=reading, offset=0)
        raise
    if is_full(gathered.store):
        join(gathered.store)


def _check_said(reading: Reading, gathered: Gathered) -> None:
    """Refuse a question, or an outcome word, that no row has.

    Raises:
        InputError: with the nearest one that is there.
    """
    asked = [*gathered.books["question"]]
    if reading.question not in (None, EVERY) and asked and clean_name(str(reading.question)) not in asked:
        check_word(str(reading.question), asked, "question", where="--question")
    met = {canonical(word) for word in gathered.words}
    for word in reading.outcomes:
        if canonical(word) not in met:
            what = f"no row says {visible(word)!r}"
            raise InputError(what, where="--outcome", remedy=nearest(word, [*gathered.words]))


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
    layout = Layout(IN_COLUMNS, {role: "outcome" if role == "winner" else role for role in columns})
    gathered, number = Gathered(Store(None)), np.arange(rows["left"])
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(layout.columns.values()))
    table = replace(memory_table([]), path=Path("columns"))
    reading = Reading(question="all" if "question" in columns else None)
    take_batch(Batch(batch, number, number, len(number)), layout, gathered, table, reading=reading, offset=0)
    source = SourceRows(path="columns", rows=len(number), used=len(number))
    return _vote_table(gathered, layout, (source,), np.array([0, len(number)]), unique_ids=False).votes


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


def _vote_table(
    gathered: Gathered, layout: Layout, sources: tuple[SourceRows, ...], edges: Rows, *, unique_ids: bool
) -> VoteTable:
    """Everything that was read, as votes; of rankings, all pairs of their items. edges: of the files in the store."""
    store, where = gathered.store, Path(sources[0].path)
    if "repeats" in store:
        join(store)

    def codes(*roles: str) -> list[Any]:
        return store.codes(*roles)[0] if all(role in store for role in roles) else [None] * len(roles)

    def column(name: str) -> Any:
        return store.column(name) if name in store else None

    row, ids = store.column("row"), column("id")
    if unique_ids and ids is not None:
        _refuse_repeated(ids, where)
    nobody, other = np.zeros(len(row), dtype=np.int32), None
    first: Any = slice(None)  # rows of the left items
    prompt, compared = codes("prompt")[0], None
    if prompt is not None and (missing := store.column("no_prompt")).any():
        prompt = np.where(missing, -1, prompt)
    if layout.dialect.kwise:
        (group,), count = store.codes("group")
        order, start = np.argsort(group, kind="stable"), np.append(0, np.cumsum(np.bincount(group, minlength=count)))
        _refuse_elsewhere(order, start, edges, sources, layout.columns["group"])
        compared = np.diff(start)[group] > 1
        if alone := int(np.count_nonzero(~compared)):
            gathered.left_out[ALONE] += alone
        prompt = None if prompt is None else _told(prompt[order], start)[group]
        model, (image,) = column("model"), codes("image")
        games = Games(start, (nobody if model is None else model)[order], store.column("rank")[order])
        a, b, game = games.pairs()
        if len(a) == 0:
            raise InputError("no group has two rows", where=where, remedy="a ranking needs at least two items")
        first, second, other = order[a], order[b], row[order[b]]
        model = nobody if model is None else model
        found = {"left": model[first], "right": model[second], "outcome": games.outcomes(a, b)}
        found |= {"game": game, "games": games}
        found |= {} if image is None else {"left_image": image[first], "right_image": image[second]}
        ids = None if ids is None else ids.take(pa.array(first))
    else:
        left, right = column("left"), column("right")
        found = {"left": nobody if left is None else left, "right": nobody if right is None else right}
        found["left_image"], found["right_image"] = codes("left_image", "right_image")
        found["outcome"], found["game"] = store.column("outcome"), _games(codes("game")[0], column("no_game"))
        found["share"], bad = column("share"), column("both_bad")
        found["share"] = None if found["share"] is None or np.isnan(found["share"]).all() else found["share"]
        found["both_bad"] = bad if bad is not None and bad.any() else None
    plain = {"prompt": prompt} | {name: column(name) for name in ("voter", "weight", "question", "repeats")}
    found |= {name: None if values is None else values[first] for name, values in plain.items()}
    found["time"] = _times(gathered, column("time"), first)
    names = {f"{book}s": tuple(known) for book, known in gathered.books.items()}
    votes = Votes(
        models=names["models"] or (NO_MODEL,), voters=None if found["voter"] is None else names["voters"],
        questions=None if found["question"] is None else names["questions"], **found,
    )  # fmt: skip
    if compared is not None or layout.dialect.flatten is not None:
        sources = _used(sources, edges, store.column("at"), compared)
    row = row[first] if votes.repeats is None else row[:0]
    return VoteTable(
        votes, layout, row, other, ids, sources, tuple(gathered.rejected), dict(gathered.left_out),
        dict(gathered.words), (*gathered.notes, *_alike(votes.models)),
    )  # fmt: skip


def _games(game: Any, missing: Any) -> Any:
    """[n] codes of the rankings that pairs came from, a pair of none by itself; None where no row names one."""
    if game is None or missing.all():
        return None
    return np.where(missing, np.cumsum(missing) + game.max(), game)


def _refuse_elsewhere(order: Rows, start: Rows, edges: Rows, sources: tuple[SourceRows, ...], column: str) -> None:
    """Refuse a ranking with items in two files. order: items by ranking, in each as they were read."""
    ends = np.searchsorted(edges, np.stack([order[start[:-1]], order[start[1:] - 1]]), side="right") - 1
    for one, two in ends.T[ends[0] != ends[1]][:1].tolist():
        raise elsewhere(f"one {column}", sources[one].path, sources[two].path)


def _told(prompt: Any, start: Rows) -> Any:
    """[games] prompt of the first item that has one, -1 where none does. prompt: of the items by ranking."""
    place = np.where(prompt >= 0, np.arange(len(prompt)), len(prompt))
    return np.append(prompt, -1)[np.minimum.reduceat(place, start[:-1])]


def _used(sources: tuple[SourceRows, ...], edges: Rows, at: Rows, compared: Any) -> tuple[SourceRows, ...]:
    """With the rows of each file that gave a vote. at: [n] place of each; compared: [n] whether it did, None: all."""
    kept = np.ones(len(at), dtype=bool) if compared is None else compared
    rows = [np.unique(at[a:b][kept[a:b]]) for a, b in pairwise(edges.tolist())]
    return tuple(replace(source, used=len(each)) for source, each in zip(sources, rows, strict=True))


def _times(gathered: Gathered, times: Any, rows: Any) -> Any:
    """[n] times of the votes; None, with a note, where one of them has none."""
    if times is None:
        return None
    lacking = int((times == NO_TIME).sum())
    if lacking:
        if lacking < len(times):
            gathered.notes.setdefault(f"{lacking} votes have no time that can be read, so the times are not used")
        return None
    return times[rows]


def _alike(models: tuple[str, ...]) -> list[str]:
    """A note for names that differ in case or width only."""
    same: dict[str, list[str]] = {}
    for name in models:
        same.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(name)
    pairs = [" and ".join(repr(name) for name in names) for names in same.values() if len(names) > 1]
    return [f"models {pair} are two models, though their names look alike" for pair in pairs]
