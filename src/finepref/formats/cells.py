"""Columns of vote files as codes of names, checked row by row: what is bad is refused, or left out and listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finepref.core.errors import InputError, first_line
from finepref.core.text import clean_name, fault_of_name, visible
from finepref.formats.outcomes import Codes
from finepref.formats.store import Store
from finepref.formats.tables import Table, are_missing
from finepref.formats.textfiles import Line

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
LEAST, MOST = 1e-9, 1e15  # weights and counts of votes
LEAVE_OUT = "fill it in, or leave such rows out with --skip-bad-rows"


@dataclass
class Gathered:
    """What has been read so far. skip: bad rows are left out and listed, not refused.

    books: names met, with their codes. rejected: (place, reason) of bad rows. left_out: reason -> rows. words: outcome
    word -> how it was taken. notes: sentences on what was read otherwise than it stands.
    """

    store: Store
    skip: bool = False
    books: dict[str, dict[str, int]] = field(default_factory=lambda: {"model": {}, "voter": {}, "question": {}})
    rejected: list[tuple[str, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    words: dict[str, str] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def leave_out(self, place: str, reason: str, remedy: str = LEAVE_OUT) -> None:
        """Refuse a bad row, or list it on request."""
        if not self.skip:
            raise InputError(reason, where=place, remedy=remedy)
        self.rejected.append((place, reason))
        self.left_out[reason] += 1

    def take_faults(self, faults: list[Line], table: Table) -> None:
        """Rows that could not be read, or that say that they hold no vote."""
        for line in faults:
            if line.bad:
                self.leave_out(
                    table.place(line.at), line.fault, "correct it, or leave such rows out with --skip-bad-rows"
                )
            else:
                self.left_out[line.fault] += 1


@dataclass(frozen=True)
class Cells:
    """A column of a batch: [n] codes and the names they stand for; the code len(names) is a cell without one."""

    column: str
    codes: Codes
    names: pa.Array

    @property
    def missing(self) -> Bools:
        """[n] whether a cell holds no name."""
        return np.asarray(self.codes == len(self.names), dtype=bool)

    @cached_property
    def words(self) -> list[str | None]:
        """The name of every code, None for that of missing ones."""
        return [*self.names.to_pylist(), None]

    @cached_property
    def cleaned(self) -> list[str | None]:
        """`words` as names: trimmed and composed."""
        return [None if word is None else clean_name(word) for word in self.words]

    def numbers(self) -> Floats:
        """[n] the cells as numbers, nan where one is none."""
        return np.array([as_number(word) for word in self.words])[self.codes]


def as_number(word: str | None) -> float:
    """A cell as a number, nan where it is none."""
    try:
        return float(word or "nan")
    except ValueError:
        return float("nan")


def is_amount(numbers: Floats | float) -> Bools:
    """[n] whether each can count votes: 0, or from 1e-9 to 1e15."""
    return np.asarray((numbers == 0) | ((numbers >= LEAST) & (numbers <= MOST)), dtype=bool)


def not_amount(column: str, word: str | None) -> str:
    """Why a cell counts no votes."""
    shown = "is missing" if word is None else f"{visible(word)[:40]!r} is no number of 0 to 1e15"
    comma = "; write it with a point" if word is not None and "," in word else ""
    return f"{column} {shown}{comma}"


def cells_of(columns: pa.RecordBatch, name: str, where: object) -> Cells:
    """A column of a batch; what is missing in it has no name."""
    text = as_text(columns.column(name), name=name, where=where)
    encoded = text if pa.types.is_dictionary(text.type) else text.dictionary_encode()
    names = encoded.dictionary
    indices = encoded.indices.fill_null(len(names)) if encoded.null_count else encoded.indices
    codes = indices.to_numpy(zero_copy_only=False)
    empty = are_missing(names).to_numpy(zero_copy_only=False)
    if empty.any():
        codes = np.append(np.where(empty, len(names), np.arange(len(names))), len(names))[codes]
    return Cells(name, codes, names)


def as_text(column: pa.Array, *, name: str, where: object) -> pa.Array:
    """A column as strings or as a dictionary of strings."""
    try:
        if pa.types.is_dictionary(column.type):
            return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(pa.string()))
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        return column.cast(pa.string())
    except (pa.ArrowException, UnicodeDecodeError) as error:
        what = f"column {name!r} is no text ({visible(first_line(error))[:80]})"
        raise InputError(what, where=where, remedy="name a column of text") from None


@dataclass
class Checked:
    """Rows read together. at: [n] place of each; good: [n] those that are votes so far; repeats: as of a batch."""

    table: Table
    at: npt.NDArray[np.int64]
    cells: Mapping[str, Cells]
    gathered: Gathered
    good: Bools
    repeats: npt.NDArray[np.int64] | None = None

    def reject(self, bad: Bools, what: str, remedy: str = LEAVE_OUT) -> None:
        """Refuse the first bad row, or leave bad rows out on request."""
        for row in np.flatnonzero(bad & self.good).tolist():
            self.gathered.leave_out(self.table.place(int(self.at[row])), what, remedy)
        self.good[bad] = False

    def reject_each(self, bad: Bools, reason: Callable[[int], str], remedy: str = LEAVE_OUT) -> None:
        """`reject` with a reason for each row of the batch."""
        for row in np.flatnonzero(bad & self.good).tolist():
            self.gathered.leave_out(self.table.place(int(self.at[row])), reason(row), remedy)
        self.good[bad] = False

    def reject_missing(self, role: str) -> None:
        """`reject` rows without a cell, which says how a missing one is spelt."""
        cells = self.cells[role]
        self.reject(cells.missing, f"{cells.column} is missing (empty, null, nan or n/a)")

    def refuse(self, wrong: Bools, reason: Callable[[int, str], InputError]) -> None:
        """Refuse the first of these rows whatever was asked for. reason: row of the batch and place -> refusal."""
        for row in np.flatnonzero(wrong & self.good)[:1].tolist():
            raise reason(row, self.table.place(int(self.at[row])))

    def leave_out(self, rows: Bools, reason: str) -> None:
        """Leave out rows that say themselves that they hold no vote."""
        lost = rows & self.good
        count = int(lost.sum() if self.repeats is None else self.repeats[lost].sum())
        if count:
            self.gathered.left_out[reason] += count
        self.good[rows] = False

    def name_codes(self, role: str, book: str) -> npt.NDArray[np.int32]:
        """Codes of the good rows' names by the order in which they were met first; -1 for a missing one.

        A name that holds characters which cannot be seen is refused; one that is not trimmed and composed is said.
        """
        cells, known = self.cells[role], self.gathered.books[book]
        codes = cells.codes[self.good]
        used = np.zeros(len(cells.words), dtype=bool)
        used[codes] = True
        table = np.full(len(cells.words), -1, dtype=np.int32)
        for position in np.flatnonzero(used).tolist():
            word, name = cells.words[position], cells.cleaned[position]
            if word is None or name is None:
                continue
            if fault := fault_of_name(word):
                what = f"{cells.column} {visible(word)[:60]!r} is no name: {fault}"
                raise InputError(what, where=self.table.path, remedy="write it again without")
            if name != word:
                note = f"{cells.column} {visible(word)!r} is read as {visible(name)!r} (trimmed, composed)"
                self.gathered.notes.setdefault(note)
            table[position] = known.setdefault(name, len(known))
        return table[codes]
