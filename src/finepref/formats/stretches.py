"""A data set of pairs in stretches, each read without the rest: what processes deal among themselves.

A stretch is some row groups of a parquet file, or some rows of another table; where rows belong together (rankings,
exports of tools) or come as a stream (the hub), all of a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from finepref.core.errors import InputError
from finepref.core.provenance import sha256_bytes
from finepref.core.text import is_missing
from finepref.formats.pairrows import Account, Draft, ImageRef, Met, PairRows, as_id, pair_rows
from finepref.formats.rankedrows import ranked_pairs
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.sources import Paths, tables
from finepref.formats.tables import Table, parquet_rows, row_count, row_groups
from finepref.formats.textfiles import Line

OWN_ID = "pair_id"  # ours: never repeated
LEAST, MOST, PARTS = 64, 2048, 64  # rows of a stretch, and how many a small data set is cut into


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of one table. table: its number. first, rows: which; rows None: all."""

    table: int
    first: int = 0
    rows: int | None = None


def total_rows(stretches: Sequence[Stretch]) -> int | None:
    """Rows of them all; None where that is not known of one."""
    counts = [each.rows for each in stretches if each.rows is not None]
    return sum(counts) if len(counts) == len(stretches) else None


class Found(NamedTuple):
    """A draft and where it is: number of the table, number of the row in it."""

    table: int
    row: int
    draft: Draft


@dataclass(slots=True)
class Onward:
    """Rows of a table in stretches: as long as each comes after the one before, the table is gone through once."""

    table: Table
    at: int = 0
    left: Iterator[Line] | None = None

    def take(self, first: int, rows: int, wanted: Sequence[str] | None) -> Iterator[Line]:
        """These rows of it."""
        if self.left is None or first < self.at:
            self.left, self.at = iter(self.table.lines(wanted)), 0
        for line in self.left:
            self.at += 1
            if self.at > first:
                yield line
            if self.at == first + rows:
                return


@dataclass(frozen=True, slots=True)
class OpenedPairs:
    """Tables of pairs, each in its dialect. own: whether all pairs have ids of their own. account: of what was read."""

    sources: Sequence[PairRows]
    own: bool
    account: Account
    onward: Mapping[int, Onward]

    def row_counts(self) -> dict[int, int]:
        """Rows of every table that can be cut, by its number."""
        return {number: row_count(source.table) for number, source in enumerate(self.sources) if _is_apart(source)}

    def stretches(self) -> list[Stretch]:
        """The data in order; the same however many processes share it."""
        counts = self.row_counts()
        size = min(MOST, max(LEAST, sum(counts.values()) // PARTS))
        found: list[Stretch] = []
        for number, source in enumerate(self.sources):
            if number not in counts:
                found.append(Stretch(number))
                continue
            parquet = source.table.parquet
            least = row_groups(parquet) if parquet is not None else [1] * counts[number]
            first = held = 0
            for rows in least:
                held += rows
                if held >= size:
                    found.append(Stretch(number, first, held))
                    first, held = first + held, 0
            found += [Stretch(number, first, held)] if held else []
        return found

    def read(self, stretch: Stretch, *, images: bool = True) -> Iterator[Found]:
        """The rows of a stretch, as pairs. images: whether pictures are read where ids do not need them."""
        source = self.sources[stretch.table]
        if stretch.rows is not None:
            source = replace(source, table=self._part(stretch.table, stretch.first, stretch.rows))
        lines = source.lines(images=images or not self.own)
        for draft in ranked_pairs(source, lines) if source.dialect.kwise else source.pairs(lines):
            yield Found(stretch.table, draft.row, draft)

    def _part(self, number: int, first: int, rows: int) -> Table:
        table = self.sources[number].table
        if table.parquet is not None:
            lines = parquet_rows(table.parquet, range(first, first + rows))
        else:
            lines = lambda wanted: self.onward[number].take(first, rows, wanted)  # noqa: E731
        return replace(table, lines=lines, first=first, read_batches=None)


def open_stretches(
    data: Paths | Table, reading: Reading = AS_IT_IS, *, images: bool = True, account: Account | None = None
) -> OpenedPairs:
    """The tables of pairs, to be read once; each reader opens them for itself. images, account: see `open_rows`."""
    account = account or Account()
    sources = open_rows(data, reading, images=images, account=account)
    onward = {number: Onward(source.table) for number, source in enumerate(sources)}
    return OpenedPairs(sources, own_ids_unique(sources), account, onward)


def named(opened: OpenedPairs) -> str:
    """The tables, for messages."""
    return ", ".join(str(source.table.path) for source in opened.sources)


def open_rows(data: Paths | Table, reading: Reading, *, images: bool, account: Account) -> list[PairRows]:
    """The tables of pairs, each in its dialect, to be gone through once together. images: whether pictures are read."""
    found = tables(data, reading)
    if reading.images is not None:
        found = [replace(table, root=Path(reading.images).expanduser()) for table in found]
    met = Met()
    return [
        pair_rows(table, reading, images=images, account=account, met=met, number=number)
        for number, table in enumerate(found)
    ]


def own_ids_unique(sources: Sequence[PairRows]) -> bool:
    """Whether every table has its dialect's own id column, without gaps, and no id comes twice in the data set.

    Raises:
        InputError: an id of the house format comes twice.
    """
    seen: set[str] = set()
    for source in sources:
        column = source.cast.get("pair_id")
        if column is None:
            return False
        for line in source.table.lines([column]):
            value = line.cells.get(column)
            if line.fault:
                continue
            if is_missing(value):
                return False
            own = as_id(value)
            if own in seen:
                if column != OWN_ID:
                    return False
                what, remedy = f"{column} {own!r} is repeated", "make the ids unique, or drop the repeated rows"
                raise InputError(what, where=source.table.place(line.at), remedy=remedy)
            seen.add(own)
    return True


def hashed_id(prompt: str, image_0: str, image_1: str, voter: str | None, occurrence: int) -> str:
    """The id of a pair without one of its own. image_0, image_1: hashes. occurrence: 1, then 2, ... where it recurs."""
    identity = "\x1f".join((prompt, image_0, image_1, voter or "", str(occurrence)))
    return sha256_bytes(identity.encode("utf-8", "surrogatepass"))[:32]


def missing_key(image: ImageRef) -> str:
    """What stands for the hash of an image that cannot be read: its name."""
    return f"uid:{image.uid}" if image.path is None else f"missing:{image.path.name}"


def _is_apart(source: PairRows) -> bool:
    return source.table.apart and not source.dialect.kwise
