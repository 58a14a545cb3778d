"""The gaps of all votes, by kind, block by block: for gaps.parquet and for what a page says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finepref.arena.blocks import slices
from finepref.arena.gap import gaps
from finepref.arena.imagegap import image_gaps
from finepref.arena.normal import Floats
from finepref.arena.ratings import Ratings
from finepref.arena.read import VoteTable
from finepref.arena.rho import RhoCurve, estimate_rho
from finepref.core.errors import InputError
from finepref.formats.gaps import GapChunk

CHUNK = 1 << 20  # rows of gaps.parquet in one group


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
    votes = table.votes
    warnings: tuple[str, ...] = ()
    plain = KindOfGap("uniform"), KindOfGap("paper"), KindOfGap("truncated")
    try:
        if votes.has_images:
            curve, values = estimate_rho(votes, ratings, seed=seed), None
            used = curve.rho if rho is None else rho
            if used != 1.0:
                memory = np.memmap(scratch / "image-gaps.bin", dtype=np.float64, mode="w+", shape=(len(votes),))
                values = image_gaps(votes, ratings, used, out=memory)
            return (*plain, KindOfGap("selection", used), KindOfGap("image", used, values)), curve, ()
    except InputError as error:
        warnings = (f"No image-level gaps: {error}.",)
    return (*plain, KindOfGap("selection", 1.0 if rho is None else rho)), None, warnings


def gap_chunks(
    table: VoteTable, ratings: Ratings, kinds: Sequence[KindOfGap], divided_by: Mapping[str, float]
) -> Iterator[GapChunk]:
    """The rows of gaps.parquet."""
    for rows in slices(len(table.votes), CHUNK):
        yield GapChunk(
            row=table.row[rows],
            other_row=None if table.other is None else table.other[rows],
            vote_id=None if table.ids is None else table.ids.slice(rows.start, rows.stop - rows.start),
            gaps={kind.name: kind.of(table, ratings, rows) / divided_by[kind.name] for kind in kinds},
        )


def mean_gaps(table: VoteTable, ratings: Ratings, kinds: Sequence[KindOfGap]) -> dict[str, float]:
    """Mean of every kind over decided votes.

    Raises:
        InputError: one is not positive.
    """
    total, count = {kind.name: 0.0 for kind in kinds}, 0
    for rows in slices(len(table.votes), CHUNK):
        count += int(np.count_nonzero(table.votes.outcome[rows]))
        for kind in kinds:
            total[kind.name] += float(np.nansum(kind.of(table, ratings, rows)))
    for name, value in total.items():
        if value <= 0:
            raise InputError(f"the mean gap of kind {name} is not positive", remedy="leave --normalise out")
    return {name: value / count for name, value in total.items()}
