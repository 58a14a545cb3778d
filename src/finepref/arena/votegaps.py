"""The gaps of all votes, by kind, block by block: for gaps.parquet and for what a page says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finepref.arena.blocks import slices
from finepref.arena.gap import GAPS, GapRow, gaps
from finepref.arena.normal import Floats
from finepref.arena.ratings import Ratings
from finepref.arena.rho import RhoCurve, estimate_rho
from finepref.core.errors import InputError
from finepref.formats.gaps import GapChunk
from finepref.formats.votefiles import VoteTable
from finepref.formats.votes import Rows

CHUNK = 1 << 20  # rows of gaps.parquet in one group
Places = Iterator[tuple[Rows, Rows]]


@dataclass(frozen=True, slots=True, eq=False)
class KindOfGap:
    """A kind, with its rho where it has one and its values [n] where a table of models does not give them."""

    name: str
    rho: float | None = None
    values: Floats | None = None

    def of(self, table: VoteTable, ratings: Ratings, rows: Any) -> Floats:
        """Its gaps of some rows; nan for ties."""
        if self.values is not None:
            return np.asarray(self.values[rows])
        return gaps(table.votes.take(rows), ratings, kind=self.name, rho=self.rho)


def kinds_of_gap(
    table: VoteTable, ratings: Ratings, scratch: Path, *, rho: float | None, seed: int
) -> tuple[tuple[KindOfGap, ...], RhoCurve | None, tuple[str, ...]]:
    """The kinds that these votes have, the curve that rho was read from, and what to warn of.

    Args:
        scratch: folder for the values of kind "image". rho: None estimates it, where the votes name images.
    """
    votes, rows = table.votes, [row for row in GAPS.values() if not row.rewards]
    plain = tuple(KindOfGap(row.name) for row in rows if not row.rho)
    warnings: tuple[str, ...] = ()
    try:
        if votes.has_images:
            curve = estimate_rho(votes, ratings, seed=seed)
            used = curve.rho if rho is None else rho
            shared = (
                KindOfGap(row.name, used, _of_images(row, table, ratings, used, scratch)) for row in rows if row.rho
            )
            return (*plain, *shared), curve, warnings
    except InputError as error:
        warnings = (f"No image-level gaps: {error}.",)
    told = 1.0 if rho is None else rho
    return (*plain, *(KindOfGap(row.name, told) for row in rows if row.rho and row.images is None)), None, warnings


def _of_images(row: GapRow, table: VoteTable, ratings: Ratings, rho: float, scratch: Path) -> Floats | None:
    """The values of a kind that looks at images, in a file of `scratch`; None where the table of models gives them."""
    if row.images is None or rho == 1.0:
        return None
    out = np.memmap(scratch / f"{row.name}-gaps.bin", dtype=np.float64, mode="w+", shape=(len(table.votes),))
    return row.images[0](table.votes, ratings, rho, out=out)


def gap_chunks(
    table: VoteTable, ratings: Ratings, kinds: Sequence[KindOfGap], divided_by: Mapping[str, float], *, places: Places
) -> Iterator[GapChunk]:
    """The rows of gaps.parquet. places: where equal votes are one row of the table, which row each vote is."""
    if table.votes.repeats is not None:
        every = {kind.name: kind.of(table, ratings, slice(None)) / divided_by[kind.name] for kind in kinds}
        for row, at in together(places, CHUNK):
            gaps = {name: values[at] for name, values in every.items()}
            yield GapChunk(row=row, other_row=None, vote_id=None, gaps=gaps)
        return
    for rows in slices(len(table.votes), CHUNK):
        yield GapChunk(
            row=table.row[rows],
            other_row=None if table.other is None else table.other[rows],
            vote_id=None if table.ids is None else table.ids.slice(rows.start, rows.stop - rows.start),
            gaps={kind.name: kind.of(table, ratings, rows) / divided_by[kind.name] for kind in kinds},
        )


def together(places: Places, size: int) -> Places:
    """The same with at least `size` rows at a time, but for the last ones."""
    held: list[tuple[Rows, Rows]] = []
    for each in places:
        held.append(each)
        if sum(len(row) for row, _ in held) >= size:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: Sequence[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    row, at = (np.concatenate(each) for each in zip(*held, strict=True))
    return row, at


def mean_gaps(table: VoteTable, ratings: Ratings, kinds: Sequence[KindOfGap]) -> dict[str, float]:
    """Mean of every kind over decided votes.

    Raises:
        InputError: one is not positive.
    """
    total, count = {kind.name: 0.0 for kind in kinds}, 0
    for rows in slices(len(table.votes), CHUNK):
        times = 1 if table.votes.repeats is None else table.votes.repeats[rows]
        count += int(np.sum(times * (table.votes.outcome[rows] != 0)))
        for kind in kinds:
            total[kind.name] += float(np.nansum(times * kind.of(table, ratings, rows)))
    for name, value in total.items():
        if value <= 0:
            raise InputError(f"the mean gap of kind {name} is not positive", remedy="leave --normalise out")
    return {name: value / count for name, value in total.items()}
