"""Gaps: how much better the winner of a vote is expected to be than the loser.

D = mu_w - mu_l; c = sqrt(2) beta; lambda(z) = phi(z)/Phi(z).

    uniform     1
    paper       D + s lambda(D/s), s^2 = sigma_w^2 + sigma_l^2            ArenaPO Eq. 12
    truncated   D + c lambda(D/c)                                        performance noise instead of sigma
    selection   D + rho c lambda(D/c)                                    only a share rho of the noise is the images'
    image       difference of posterior means of the two images           votes that share images (module `image`)
    fused       the same, with rewards in what is expected of an image    votes and rewards (module `fused`)

`GAPS` holds them, and those of a user's own (docs/own_rows.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from finepref.arena.fused import FusedPrior, ScoresBySide, fused_prior
from finepref.arena.image import image_gaps, image_gaps_both, image_models
from finepref.arena.normal import Floats, inverse_mills, truncated_mean
from finepref.arena.ratings import BETA, Ratings, align
from finepref.arena.rho import check_rho, estimate_rho
from finepref.core.errors import InputError, check_word
from finepref.core.rows import RowTable
from finepref.formats.ratings import RatingSettings
from finepref.formats.votefiles import VoteTable, votes_in
from finepref.formats.votes import Votes

NORMALISE = ("none", "mean")


def expected_gap(difference: Floats, spread: Floats | float) -> Floats:
    """E[d | d > 0] for d ~ N(difference, spread^2) = spread (z + lambda(z)), z = difference/spread.

    With spread 0 (two models without uncertainty) it is max(difference, 0).

    References:
        ArenaPO Eq. 11 and 12.
    """
    difference, spread = np.broadcast_arrays(np.asarray(difference, dtype=np.float64), np.asarray(spread, np.float64))
    safe = np.where(spread > 0, spread, 1.0)
    return np.where(spread > 0, safe * truncated_mean(difference / safe), np.maximum(difference, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRow:
    """One kind of gap.

    table: ratings -> [M, M], the gap if the row's model beats the column's; (ratings, rho) where rho acts.
    rho: whether it takes the images' share of the noise. images: (gaps, gaps for both outcomes) from the images that
    votes share, used instead of the table where rho is below 1. rewards: whether those start from rewards too, and the
    table is never used. about: one line for the page. source: paper, equation.
    """

    name: str
    table: Callable[..., Floats]
    rho: bool = False
    images: tuple[Callable[..., Floats], Callable[..., tuple[Floats, Floats]]] | None = None
    rewards: bool = False
    about: str = ""
    source: str = ""


def _lead(ratings: Ratings) -> Floats:
    return np.asarray(np.subtract.outer(ratings.mu, ratings.mu))


def _uniform(ratings: Ratings) -> Floats:
    return np.ones_like(_lead(ratings))


def _paper(ratings: Ratings) -> Floats:
    return expected_gap(_lead(ratings), np.sqrt(np.add.outer(ratings.sigma**2, ratings.sigma**2)))


def _truncated(ratings: Ratings, rho: float = 1.0) -> Floats:
    lead = _lead(ratings)
    if rho == 1.0:
        return expected_gap(lead, ratings.c)
    return np.asarray(lead + rho * ratings.c * inverse_mills(lead / ratings.c))


def check_gap(row: GapRow) -> None:
    """Refuse a gap that is not one finite number for every two models.

    Raises:
        InputError: the table of three models is of another shape, or not finite.
    """
    mu, none = np.array([1.0, 0.5, -2.0]), np.zeros(3)
    settings = RatingSettings(ties="fit", votes=3, beta=BETA, tie_margin=0.0, level=0.95)
    ratings = Ratings(
        ("a", "b", "c"), mu, np.ones(3), None, "batch", settings, none, none, none, np.zeros(3, dtype=np.int64)
    )
    _table(row, ratings, 0.5)


GAPS = RowTable("gap", GapRow, (
    GapRow(
        name="uniform", table=_uniform, about="the same for every vote",
        source="ArenaPO Eq. 14 with one margin for all pairs (its Tables 5, 7)",
    ),
    GapRow(
        name="paper", table=_paper, about="ArenaPO Eq. 12: the spread is the ratings' own uncertainty",
        source="ArenaPO Eq. 12",
    ),
    GapRow(
        name="truncated", table=_truncated, about="the spread is the performance noise of a vote",
        source="ours: Eq. 12 with the noise of a vote (docs/arena.md)",
    ),
    GapRow(
        name="selection", table=_truncated, rho=True, about="a share ρ of that noise belongs to the images",
        source="ours: the images' share of that noise (docs/arena.md)",
    ),
    GapRow(
        name="image", table=_truncated, rho=True, images=(image_gaps, image_gaps_both),
        about="difference of what is known about the two images",
        source="ours: difference of the images' posterior means (docs/arena.md)",
    ),
    GapRow(
        name="fused", table=_truncated, rho=True, images=(image_gaps, image_gaps_both), rewards=True,
        about="the same, from ratings and rewards together", source="ours: one posterior (docs/arena.md)",
    ),
), what="kind of gap", check=check_gap)  # fmt: skip


def gap_table(ratings: Ratings, kind: str, *, rho: float = 1.0) -> Floats:
    """[M, M] gap if the row's model beats the column's; a model against itself has D = 0.

    Raises:
        InputError: a row of the user's own whose table is not [M, M] finite numbers.
    """
    return _table(GAPS[kind], ratings, rho)


def _table(row: GapRow, ratings: Ratings, rho: float) -> Floats:
    table = np.asarray(row.table(ratings, rho) if row.rho else row.table(ratings))
    if table.shape != (len(ratings.mu),) * 2 or not np.isfinite(table).all():
        where, remedy = GAPS.place(row.name, GAPS.origin.get(row.name)), "correct the plugin"
        raise InputError("its table is not [M, M] finite numbers", where=where, remedy=remedy)
    return table


def gaps(
    votes: Votes | VoteTable,
    ratings: Ratings,
    *,
    kind: str,
    rho: float | None = None,
    clip: bool = False,
    normalise: str = "none",
    seed: int = 0,
    rewards: Mapping[str, ScoresBySide] | FusedPrior | None = None,
) -> Floats:
    """Expected quality of winner minus loser for every vote.

    Args:
        votes: n votes, or what `read_votes` returned. ratings: of (at least) their models.
        kind: a row of `GAPS`: "uniform", "paper", "truncated", "selection", "image", "fused"; formulas at the top.
        rho: share of the performance noise that belongs to the images, in (0, 0.95] or 1; None estimates it.
        clip: negative gaps (a probable mistake of the voter) become 0.
        normalise: "mean" divides by the mean over decided votes, so that kinds can be compared at one mean margin.
        seed: of the votes that are drawn to estimate rho.
        rewards: kind "fused": by scorer, [n] scores of the left and [n] of the right images, nan where missing; or what
            `fused_prior` made of them.

    Returns:
        [n] float64; nan for ties and only for ties.

    Raises:
        InputError: unknown kind; "image" without image names; an option without effect; a mean gap <= 0.

    References:
        ArenaPO Eq. 12 (paper); definitions and evidence in docs/arena.md.
    """
    check_word(normalise, NORMALISE, "normalisation")
    votes = votes_in(votes)
    row, rho, prior = _settle(votes, ratings, kind, rho, seed, rewards)
    if row.images and prior is not None:
        values = row.images[0](votes, ratings, rho, prior_mean=prior.mean)
    elif row.images and rho < 1.0:
        values = row.images[0](votes, ratings, rho)
    else:
        values = _gather(votes, ratings, gap_table(ratings, kind, rho=rho))
    if clip:
        np.maximum(values, 0.0, out=values)
    if normalise == "mean":
        decided = values[~np.isnan(values)]
        mean = float(decided.mean()) if len(decided) else 0.0
        if mean <= 0:
            raise InputError(f"the mean gap is {mean:.3g}", remedy="leave the gaps unscaled (normalise none)")
        values /= mean
    return values


def gaps_both(
    votes: Votes | VoteTable,
    ratings: Ratings,
    *,
    kind: str,
    rho: float | None = None,
    clip: bool = False,
    rewards: Mapping[str, ScoresBySide] | FusedPrior | None = None,
) -> tuple[Floats, Floats]:
    """Gaps for both outcomes of every vote: if the left model (image 0) is the winner, and if the right one is.

    Where the vote's own winner stands on that side the value is that of `gaps`. For the other side it is what the
    gap would be, had the vote gone the other way (kind "image": with the vote's own evidence turned round). Ties
    have values on both sides. Arguments as in `gaps`.

    Returns:
        ([n], [n]) float64, finite.
    """
    votes = votes_in(votes)
    row, rho, prior = _settle(votes, ratings, kind, rho, 0, rewards)
    if row.images and prior is not None:
        left, right = row.images[1](votes, ratings, rho, prior_mean=prior.mean)
    elif row.images and rho < 1.0:
        left, right = row.images[1](votes, ratings, rho)
    else:
        table = gap_table(ratings, kind, rho=rho)
        position = align(ratings, votes.models)
        a, b = position[votes.left], position[votes.right]
        left, right = table[a, b], table[b, a]
    return (np.maximum(left, 0.0), np.maximum(right, 0.0)) if clip else (left, right)


def _settle(
    votes: Votes,
    ratings: Ratings,
    kind: str,
    rho: float | None,
    seed: int,
    rewards: Mapping[str, ScoresBySide] | FusedPrior | None,
) -> tuple[GapRow, float, FusedPrior | None]:
    """The kind's row, its options checked; rho as given, estimated, or 1 where it plays no part; what rewards say."""
    row = GAPS[kind]
    if row.images:
        image_models(votes)
    if row.rewards and rewards is None:
        raise InputError("it needs rewards", where=f"kind {kind}", remedy="give the scores of both sides")
    if rewards is not None and not row.rewards:
        raise InputError("rewards have no effect on it", where=f"kind {kind}", remedy="leave them out")
    prior = rewards if isinstance(rewards, FusedPrior) or rewards is None else fused_prior(votes, ratings, rewards)
    if rho is None:
        estimated = row.rho and votes.has_images
        mean = None if prior is None else prior.mean
        return row, estimate_rho(votes, ratings, prior_mean=mean, seed=seed).rho if estimated else 1.0, prior
    if not row.rho:
        raise InputError(f"rho has no effect on kind {kind!r}", remedy="leave rho out")
    check_rho(rho)
    return row, rho, prior


def _gather(votes: Votes, ratings: Ratings, table: Floats) -> Floats:
    position = align(ratings, votes.models)
    table = table[np.ix_(position, position)]
    m = len(position)
    cells = np.stack([table.T, np.full_like(table, np.nan), table])  # right won, tie, left won
    key = votes.outcome.astype(np.int64)
    key += 1
    key *= m
    key += votes.left
    key *= m
    key += votes.right
    return cells.ravel()[key]
