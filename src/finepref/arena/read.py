"""Vote files to `Votes`: recognise the schema, read only its columns batch by batch, check every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finepref.arena import kwise, tables
from finepref.arena.hashing import hash_names
from finepref.arena.layout import NO_MODEL, Layout, detect
from finepref.arena.store import IN_MEMORY, Store
from finepref.arena.votes import LEFT, OUTCOME_HELP, OUTCOME_WORDS, Games, Votes
from finepref.core.errors import InputError, nearest

Bools = npt.NDArray[np.bool_]
NAME_ROLES = {
    "left": "model", "right": "model", "model": "model",
    "left_image": "image", "right_image": "image", "image": "image",
    "prompt": "prompt", "voter": "voter", "group": "group",
}  # fmt: skip


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
    models: dict[str, int] = field(default_factory=dict)
    voters: dict[str, int] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    unlabelled: int = 0


def read_votes(
    paths: Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    skip_bad_rows: bool = False,
    spill: Path | None = None,
    in_memory: int = IN_MEMORY,
    on_rows: Callable[[int], None] | None = None,
) -> VoteTable:
    """Read votes from files and folders.

    Args:
        paths: csv, jsonl, json and parquet files, or folders of them.
        columns: role -> column, for what the schema does not say by itself; roles: left, right, winner, left_image,
            right_image, prompt, voter, id, or group, model, rank (and image).
        skip_bad_rows: leave out rows with a missing name or outcome and list them, instead of stopping at the first.
        spill: an empty folder for the codes of more than `in_memory` votes; the result stays mapped to its files.
        on_rows: called with the number of rows read so far.

    Raises:
        InputError: nothing to read, a column is missing, a bad row, an unknown outcome word, a repeated id in a column
            that `columns` names as id.
    """
    named = dict(columns or {})
    files = tables.find_files(paths)
    rows = _Rows(Store(spill, in_memory))
    layout: Layout | None = None
    offset = 0
    for path in files:
        present, not_names = tables.columns_of(path)
        found = detect(present, named, where=path, not_names=not_names)
        if layout is not None and found != layout:
            raise InputError(
                "its columns differ from those of the files before it", where=path, remedy="read it by itself"
            )
        layout = found
        start = offset
        for batch in tables.batches(path, layout.wanted):
            _read_batch(rows, layout, batch, path, offset, offset - start, skip_bad_rows)
            rows.store.settle()
            offset += batch.num_rows
            if on_rows is not None:
                on_rows(offset)
    assert layout is not None
    if rows.store.rows == 0:
        raise InputError("there are no votes in it", where=files[0], remedy="give at least one vote")
    ids = _ids(rows, files, unique="id" in named)
    build = _game_table if layout.kwise else _pair_table
    return build(rows, layout, tuple(files), ids)


def _read_batch(
    rows: _Rows, layout: Layout, batch: pa.RecordBatch, path: Path, offset: int, in_file: int, skip: bool
) -> None:
    n = batch.num_rows
    good = np.ones(n, dtype=bool)

    def reject(bad: Bools, reason: Callable[[int], str], remedy: str) -> None:
        bad = bad & good
        for at in np.flatnonzero(bad):
            place = f"{path}, row {in_file + int(at)}"
            if not skip:
                raise InputError(reason(int(at)), where=place, remedy=remedy)
            rows.rejected.append((place, reason(int(at))))
        good[bad] = False

    labelled = _labelled(layout, batch)
    rows.unlabelled += int(n - labelled.sum())
    good &= labelled
    names: dict[str, pa.Array] = {}
    for role, column in layout.columns.items():
        if role in NAME_ROLES:
            names[role] = _as_text(batch.column(column))
            bad = _is_empty(names[role])
            if role in ("prompt", "voter"):
                bad = np.asarray(pc.is_null(names[role]))  # an empty prompt or voter is a name like any other
                names[role] = names[role].fill_null("") if not pa.types.is_dictionary(names[role].type) else names[role]
                continue
            reject(bad, lambda at, c=column: f"{c} is empty", "fill it in, or leave such rows out with --skip-bad-rows")  # type: ignore[misc]
    values: dict[str, Any] = {}
    if layout.kwise:
        values["rank"] = _ranks(batch.column(layout.columns["rank"]), layout.columns["rank"], reject)
    else:
        values["outcome"] = _outcomes(layout, batch, reject)
    for role, value in values.items():
        rows.store.add(role, value[good])
    for role, array in names.items():
        rows.store.add(role, _name_codes(rows, role, array, good))
    rows.store.add("row", np.flatnonzero(good) + offset)
    if "id" in layout.columns:
        rows.store.add("id", _as_text(batch.column(layout.columns["id"])).cast(pa.string()).filter(pa.array(good)))


def _labelled(layout: Layout, batch: pa.RecordBatch) -> Bools:
    if layout.labelled is None:
        return np.ones(batch.num_rows, dtype=bool)
    text = [str(value).lower() for value in batch.column(layout.labelled).to_pylist()]
    return np.array([value in ("true", "1", "1.0") for value in text], dtype=bool)


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
    empty = pc.equal(pc.utf8_trim_whitespace(names), "")
    return np.asarray(empty.fill_null(True).to_numpy(zero_copy_only=False), dtype=bool)


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


def _outcomes(layout: Layout, batch: pa.RecordBatch, reject: Any) -> npt.NDArray[np.int8]:
    if "winner" not in layout.columns:
        return np.full(batch.num_rows, LEFT, dtype=np.int8)
    column = layout.columns["winner"]
    codes, words = _words(batch.column(column))
    missing = np.array([word is None for word in words], dtype=bool)
    reject(missing[codes], lambda _: f"{column} is missing", "fill it in, or leave such rows out with --skip-bad-rows")
    table = np.zeros(len(words), dtype=np.int8)
    for position, word in enumerate(words):
        if word in OUTCOME_WORDS:
            table[position] = OUTCOME_WORDS[word]
        elif word is not None:
            reject(
                codes == position, lambda _, w=word: f"unknown outcome {w!r} in {column}", nearest(word, OUTCOME_HELP)
            )  # type: ignore[misc]
    outcome = table[codes]
    if layout.check is not None:
        other_codes, other_words = _words(batch.column(layout.check))
        mirror = np.array([-OUTCOME_WORDS.get(word or "", 99) for word in other_words], dtype=np.int8)
        reject(
            mirror[other_codes] != outcome,
            lambda _: f"{column} and {layout.check} contradict each other",
            "one must be 1 minus the other; correct the row, or leave such rows out with --skip-bad-rows",
        )
    return outcome


def _words(column: pa.Array) -> tuple[npt.NDArray[Any], list[str | None]]:
    """[n] codes and the words they stand for; the last word is None (missing)."""
    text = _as_text(column)
    encoded = text if pa.types.is_dictionary(text.type) else text.dictionary_encode()
    words = [word if word else None for word in encoded.dictionary.to_pylist()]
    indices = encoded.indices.fill_null(len(words)) if encoded.null_count else encoded.indices
    return indices.to_numpy(zero_copy_only=False), [*words, None]


def _ranks(column: pa.Array, name: str, reject: Any) -> npt.NDArray[np.float64]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        numbers = np.array([_number(word) for word in column.to_pylist()])
    else:
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    reject(
        ~np.isfinite(numbers),
        lambda _: f"{name} is not a number",
        "fill it in, or leave such rows out with --skip-bad-rows",
    )
    return np.asarray(numbers, dtype=np.float64)


def _number(word: str | None) -> float:
    try:
        return float(word) if word is not None else float("nan")
    except ValueError:
        return float("nan")


def _ids(rows: _Rows, files: list[Path], *, unique: bool) -> pa.ChunkedArray | None:
    if "id" not in rows.store:
        return None
    ids = rows.store.column("id")
    if not unique:
        return ids
    if ids.null_count:
        raise InputError("an id is missing", where=files[0], remedy="fill it in, or do not name an id column")
    hashes = np.concatenate([hash_names(chunk) for chunk in ids.chunks])
    ordered = np.sort(hashes)
    for value in ordered[1:][ordered[1:] == ordered[:-1]]:
        names = ids.take(pa.array(np.flatnonzero(hashes == value))).to_pylist()
        if len(set(names)) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            remedy = "make ids unique, or do not name an id column"
            raise InputError(f"the id {double!r} is repeated", where=files[0], remedy=remedy)
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
