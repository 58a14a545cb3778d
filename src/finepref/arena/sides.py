"""Does the side that an image is shown on decide votes? A bias that all voters share, which no check of one voter sees.

The batch model with one more unknown s: P(left wins) = F((mu_left - mu_right + s - m)/c), so that strong models on one
side are no bias. The test is whether s is 0, with the clusters of the intervals.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from finepref.arena import batch
from finepref.arena.batch import BatchModel, inverse_with_gauge
from finepref.arena.clusters import NO_INTERVAL, IntervalPlan, enough_clusters, spread
from finepref.arena.counts import PairCounts
from finepref.arena.intervals import variance_along
from finepref.arena.link import p_left_decisive
from finepref.arena.ratings import LEVEL, MU0, C
from finepref.arena.settings import RatingOptions
from finepref.core.errors import InputError
from finepref.formats.ratings import SideRecord
from finepref.formats.votes import Votes

ERROR_RATE = 0.005  # of the test, both ways


def knows_sides(votes: Votes, counts: PairCounts) -> bool:
    """Whether the votes say which side won: not those of rankings, nor where the left or the right one always won."""
    return votes.game is None and counts.i_wins.sum() > 0 and counts.j_wins.sum() > 0


def side_term(
    votes: Votes,
    counts: PairCounts,
    model: BatchModel,
    chosen: IntervalPlan,
    options: RatingOptions,
    core: npt.NDArray[np.bool_],
) -> SideRecord:
    """The advantage of the left side, with interval and test, and the ratings of the model with it (or without).

    Args:
        counts: by side, ties as they are. model: as rated, with the side term or without. chosen: the interval's plan;
            where voters are enough, they are the clusters, because a habit of clicking one side is a voter's.
        core: [M] the rated models.
    """
    used, link = counts.with_ties(options.ties), model.link
    fitted, precision = model.fit.sided, model.prior_precision
    again = used.folded() if fitted else used
    other = batch.fit(again, link, prior_precision=precision, start=model.fit, sided=not fitted)
    plain, sided = (other, model.fit) if fitted else (model.fit, other)
    with_side = BatchModel(used, link, sided, model.prior_sd)
    last = inverse_with_gauge(sided.hessian, len(sided.x))[:, -1]
    clusters = _clusters(votes, chosen)
    sd = float("nan")
    if clusters.method == "sandwich":
        sd = C * float(np.sqrt(variance_along(votes, with_side, clusters, last, ties=options.ties)))
    elif clusters.method == "laplace":
        sd = C * float(np.sqrt(last[-1]))
    advantage, freedom = C * sided.side, clusters.effective - 1.0
    found = p = None
    if sd > 0:
        reach = _quantile(0.5 + 0.5 * LEVEL, freedom) * sd
        found, p = (advantage - reach, advantage + reach), 2.0 * _tail(abs(advantage) / sd, freedom)
    moved = C * (plain.x - sided.x)[core]
    return SideRecord(
        advantage=advantage, interval=found, p=p, cluster=clusters.cluster, fitted=fitted,
        left_wins=float(p_left_decisive(link, np.array(sided.side), sided.margin)),
        warned=p is not None and p < ERROR_RATE, most_moved=float(np.abs(moved - moved.mean()).max()),
        beside=dict(zip(votes.models, (MU0 + C * other.x).tolist(), strict=True)),
    )  # fmt: skip


def side_warning(side: SideRecord) -> str:
    """What a reader of the ratings must know."""
    assert side.interval is not None
    low, high = side.interval
    wins = f"{side.left_wins:.0%}" if side.advantage > 0 else f"{1 - side.left_wins:.0%}"
    which = "left" if side.advantage > 0 else "right"
    term = "without a side term" if side.fitted else "with a side term (--side fit)"
    return (
        f"The {which} side wins {wins} of the decided votes between equal models (advantage of the left "
        f"{side.advantage:+.2f}, {low:.2f} to {high:.2f}): voters favour a position. Ratings {term} differ by up to "
        f"{side.most_moved:.2f}; show the models at random sides."
    )


def check_side(options: RatingOptions, votes: Votes, counts: PairCounts, *, sides: bool) -> None:
    """Refuse a side term that cannot be fitted; sides: whether left and right are the sides that voters saw."""
    if options.side == "fit":
        if not (sides and knows_sides(votes, counts)):
            remedy = "leave --side fit out"
            raise InputError("the votes do not say which side won, so there is no side term", remedy=remedy)
        if options.interval == "bootstrap":
            raise InputError("the bootstrap does not know the side term", remedy="use --interval sandwich")


def _clusters(votes: Votes, chosen: IntervalPlan) -> IntervalPlan:
    """Voters where there are enough of them; else the clusters of the intervals."""
    if chosen.method == NO_INTERVAL:
        return chosen
    if votes.voter is not None:
        over = spread(votes, votes.voter)
        if over.recurs and over.effective >= enough_clusters(votes):
            return IntervalPlan("sandwich", "voter", chosen.why, over.effective)
    if chosen.method == "bootstrap":
        return IntervalPlan("sandwich", chosen.cluster, chosen.why, chosen.effective)
    return chosen


def _quantile(p: float, freedom: float) -> float:
    return float(stdtrit(min(freedom, 1e9), p))


def _tail(z: float, freedom: float) -> float:
    return float(stdtr(min(freedom, 1e9), -z))
