"""Everything that the arena page tells, gathered before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finepref.arena.boards import BoardComparison, compare
from finepref.arena.counts import PairCounts, count
from finepref.arena.normal import Floats
from finepref.arena.orders import OrderSensitivity, order_sensitivity
from finepref.arena.ratings import Ratings
from finepref.arena.rho import RhoCurve
from finepref.arena.settings import DEFAULTS
from finepref.arena.votegaps import KindOfGap
from finepref.arena.voters import VoterCheck, check_voters
from finepref.formats.ratings import BoardRecord
from finepref.formats.validation import Validation
from finepref.formats.votefiles import VoteTable

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE = 200_000  # votes from which the quantiles of gaps are drawn up


@dataclass(frozen=True, slots=True)
class GapSummary:
    """Gaps of one kind over decided votes: quantiles 5, 25, 50, 75, 95 % and mean; rho where it has one."""

    kind: str
    quantiles: Floats
    mean: float
    rho: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """table, ratings, counts of pairs, gaps per kind, and the checks (None: nothing to check)."""

    table: VoteTable
    ratings: Ratings
    counts: PairCounts
    gaps: tuple[GapSummary, ...]
    curve: RhoCurve | None
    order: OrderSensitivity | None
    voters: VoterCheck | None
    validation: Validation | None
    comparison: BoardComparison | None


def examine(
    table: VoteTable,
    ratings: Ratings,
    kinds: Sequence[KindOfGap],
    *,
    curve: RhoCurve | None,
    validation: Validation | None,
    board: BoardRecord | None,
    seed: int,
) -> Findings:
    """Make all the checks."""
    votes = table.votes
    met = len(votes.models) > 1
    preset = ratings.settings.preset or DEFAULTS.preset
    return Findings(
        table=table, ratings=ratings, counts=count(votes), gaps=summarise(table, ratings, kinds), curve=curve,
        order=order_sensitivity(votes, preset=preset, seed=seed) if met else None,
        voters=check_voters(votes, ratings),
        validation=validation, comparison=None if board is None else compare(ratings, board),
    )  # fmt: skip


def summarise(table: VoteTable, ratings: Ratings, kinds: Sequence[KindOfGap]) -> tuple[GapSummary, ...]:
    """Quantiles and means of every kind of gap, on evenly spaced votes where there are many."""
    n = len(table.votes)
    rows = np.arange(0, n, max(1, n // SAMPLE))
    found = []
    for kind in kinds:
        values, times = kind.of(table, ratings, rows), table.votes.repeats
        decided = ~np.isnan(values)
        if decided.any():
            counted = None if times is None else times[rows][decided]
            held = values[decided]
            quantiles = np.quantile(
                held, QUANTILES, weights=counted, method="linear" if times is None else "inverted_cdf"
            )
            found.append(GapSummary(kind.name, quantiles, float(np.average(held, weights=counted)), kind.rho))
    return tuple(found)
