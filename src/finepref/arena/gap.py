"""Gaps: how much better the winner of a vote is expected to be than the loser.

D = mu_w - mu_l; c = sqrt(2) beta; lambda(z) = phi(z)/Phi(z).

    uniform     1
    paper       D + s lambda(D/s), s^2 = sigma_w^2 + sigma_l^2            ArenaPO Eq. 12
    truncated   D + c lambda(D/c)                                        performance noise instead of sigma
    selection   D + rho c lambda(D/c)                                    only a share rho of the noise is the images'
    image       difference of posterior means of the two images           votes that share images (module `image`)
"""

from __future__ import annotations

import numpy as np

from finepref.arena.image import image_models
from finepref.arena.imagegap import image_gaps, image_gaps_both
from finepref.arena.normal import Floats, inverse_mills, truncated_mean
from finepref.arena.ratings import Ratings, align
from finepref.arena.rho import estimate_rho
from finepref.core.errors import InputError, nearest
from finepref.formats.votes import Votes

KINDS = ("uniform", "paper", "truncated", "selection", "image")
WITH_RHO = ("selection", "image")
MOST_RHO = 0.95
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


def gap_table(ratings: Ratings, kind: str, *, rho: float = 1.0) -> Floats:
    """[M, M] gap if the row's model beats the column's; a model against itself has D = 0."""
    difference = np.subtract.outer(ratings.mu, ratings.mu)
    if kind == "uniform":
        return np.ones_like(difference)
    if kind == "paper":
        return expected_gap(difference, np.sqrt(np.add.outer(ratings.sigma**2, ratings.sigma**2)))
    if kind == "truncated" or rho == 1.0:
        return expected_gap(difference, ratings.c)
    return np.asarray(difference + rho * ratings.c * inverse_mills(difference / ratings.c))


def gaps(
    votes: Votes,
    ratings: Ratings,
    *,
    kind: str,
    rho: float | None = None,
    clip: bool = False,
    normalise: str = "none",
    seed: int = 0,
) -> Floats:
    """Expected quality of winner minus loser for every vote.

    Args:
        votes: n votes. ratings: of (at least) their models.
        kind: "uniform", "paper", "truncated", "selection" or "image"; formulas at the top of this module.
        rho: share of the performance noise that belongs to the images, in (0, 0.95] or 1; None estimates it.
        clip: negative gaps (a probable mistake of the voter) become 0.
        normalise: "mean" divides by the mean over decided votes, so that kinds can be compared at one mean margin.
        seed: of the votes that are drawn to estimate rho.

    Returns:
        [n] float64; nan for ties and only for ties.

    Raises:
        InputError: unknown kind; "image" without image names; an option without effect; a mean gap <= 0.

    References:
        ArenaPO Eq. 12 (paper); definitions and evidence in docs/arena.md.
    """
    rho = _settle(votes, ratings, kind, normalise, rho, seed)
    if kind == "image" and rho < 1.0:
        values = image_gaps(votes, ratings, rho)
    else:
        values = _gather(votes, ratings, gap_table(ratings, kind, rho=rho))
    if clip:
        np.maximum(values, 0.0, out=values)
    if normalise == "mean":
        values /= _mean(values)
    return values


def gaps_both(
    votes: Votes,
    ratings: Ratings,
    *,
    kind: str,
    rho: float | None = None,
    clip: bool = False,
    normalise: str = "none",
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Gaps for both outcomes of every vote: if the left model (image 0) is the winner, and if the right one is.

    Where the vote's own winner stands on that side the value is that of `gaps`. For the other side it is what the
    gap would be, had the vote gone the other way (kind "image": with the vote's own evidence turned round). Ties
    have values on both sides. Arguments as in `gaps`; "mean" divides both by the mean of `gaps`.

    Returns:
        ([n], [n]) float64, finite.
    """
    rho = _settle(votes, ratings, kind, normalise, rho, seed)
    if kind == "image" and rho < 1.0:
        left, right = image_gaps_both(votes, ratings, rho)
    else:
        table = gap_table(ratings, kind, rho=rho)
        position = align(ratings, votes.models)
        a, b = position[votes.left], position[votes.right]
        left, right = table[a, b], table[b, a]
    if clip:
        left, right = np.maximum(left, 0.0), np.maximum(right, 0.0)
    if normalise == "mean":
        won = np.where(votes.outcome == 0, np.nan, np.where(votes.outcome > 0, left, right))
        scale = _mean(won)
        left, right = left / scale, right / scale
    return left, right


def _settle(votes: Votes, ratings: Ratings, kind: str, normalise: str, rho: float | None, seed: int) -> float:
    """Check the options; rho as given, estimated, or 1 where it plays no part."""
    if kind not in KINDS:
        raise InputError(f"unknown kind of gap {kind!r}", remedy=nearest(kind, KINDS))
    if normalise not in NORMALISE:
        raise InputError(f"unknown normalisation {normalise!r}", remedy=nearest(normalise, NORMALISE))
    if kind == "image":
        image_models(votes)
    if rho is not None:
        if kind not in WITH_RHO:
            raise InputError(f"rho has no effect on kind {kind!r}", remedy="leave rho out")
        if not (0.0 < rho <= MOST_RHO or rho == 1.0):
            raise InputError(
                f"rho is {rho}", remedy=f"give one above 0 and up to {MOST_RHO}, or 1 for the truncated gap"
            )
        return rho
    if kind in WITH_RHO and votes.has_images:
        return estimate_rho(votes, ratings, seed=seed).rho
    return 1.0


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


def _mean(values: Floats) -> float:
    decided = values[~np.isnan(values)]
    mean = float(decided.mean()) if len(decided) else 0.0
    if mean <= 0:
        raise InputError(f"the mean gap is {mean:.3g}", remedy="leave the gaps unscaled (normalise none)")
    return mean
