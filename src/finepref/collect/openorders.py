"""Which two models to show together: those whose answer is expected to tell most about orders that are not certain yet.

Ratings are x = (mu - 25)/c. Two of them differ by D with standard deviation s; u = |D|/s. What is not known of their
order is the entropy H(u) of the sign of a normal variable of mean u. A vote takes 1/2 log(1 + s^2 I) from log s, I its
information about the difference, and about z^2/(I s^2 (1 + u^2)) votes are needed to know the order, E[D^2] being
s^2 (1 + u^2). So a vote is worth a(u) 1/2 log(1 + s^2 I), a(u) = H(u)/log 2 (1 + u^2): what is unknown, over the votes
that it takes. With H alone, most votes go to models that are equal for all that anybody can find out.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr

from finepref.arena.nextpairs import explained
from finepref.arena.normal import Floats, inverse_mills
from finepref.arena.ratings import SIGMA0, C

PRIOR = (C / SIGMA0) ** 2
FINEST, LAST = 256, 8.0  # steps of u, and the last one, of the table of a(u)
SMALLEST = 1e-12
TOLERANCE, MOST_STEPS = 1e-4, 100


def row_share(mode: str, size: int) -> float:
    """What each comparison that an answer holds tells, of what it would tell as a vote of its own.

    rank: 3/(n + 1): the signs of two pairs with a common picture have the correlation 1/3, so that the n(n - 1)/2 of
    them together tell what (n - 1)/2 3n/(n + 1) votes tell. best: 2/n. pair: 1.
    """
    return 2.0 / size if mode == "best" else 3.0 / (size + 1)


def pair_share(mode: str, size: int) -> float:
    """The same for every pair of a set that is not answered yet: of the best, only one in n/2 pairs is compared."""
    return row_share(mode, size) * (2.0 / size if mode == "best" else 1.0)


def _worth(u: Floats) -> Floats:
    right, wrong = log_ndtr(u), log_ndtr(-u)
    return np.asarray(-(np.exp(right) * right + np.exp(wrong) * wrong) * (1.0 + u * u) / math.log(2.0))


TABLE = _worth((np.arange(int(FINEST * LAST) + 1) + 0.5) / FINEST)
"""a(u), by steps of u."""


def laplacian(weights: Floats) -> Floats:
    """[..., n, n] the sum over pairs of weight (e_i - e_j)(e_i - e_j)^T, from weights [..., n, n] with diagonal 0."""
    found, own = -weights, np.arange(weights.shape[-1])
    found[..., own, own] = weights.sum(axis=-1)
    return np.asarray(found)


def fit_orders(wins: Floats, start: Floats, *, share: float) -> tuple[Floats, Floats]:
    """([..., M] x, [..., M, M] precision) of the batch engine (probit, normal prior), by Newton's method from `start`.

    Args:
        wins: [..., M, M] of the row's model over the column's, halves for ties. start: [..., M].
        share: what a comparison tells (`row_share`); it makes the precision smaller, and leaves x.
    """
    x, m = start, start.shape[-1]
    i, j = np.triu_indices(m, 1)
    first, second = wins[..., i, j], wins[..., j, i]
    slope, bend, one = np.zeros_like(wins), np.zeros_like(wins), np.eye(m)
    for _ in range(MOST_STEPS):
        d = x[..., i] - x[..., j]
        up, down = inverse_mills(d), inverse_mills(-d)
        slope[..., i, j] = first * up - second * down
        bend[..., i, j] = bend[..., j, i] = first * up * (up + d) + second * down * (down - d)
        gradient = slope.sum(axis=-1) - slope.sum(axis=-2) - PRIOR * x
        step = np.linalg.solve(laplacian(bend) + PRIOR * one, gradient[..., None])[..., 0]
        size = np.abs(step).max(axis=-1, keepdims=True)
        x = x + step / np.maximum(size, 1.0)
        if float(size.max(initial=0.0)) < TOLERANCE:
            break
    return x, share * laplacian(bend) + PRIOR * one


def informs(x: Floats) -> Floats:
    """[..., M, M] information of a vote about the difference of two models; 0 on the diagonal."""
    found, own = explained(x[..., :, None] - x[..., None, :]), np.arange(x.shape[-1])
    found[..., own, own] = 0.0
    return found


def pair_gains(x: Floats, covariance: Floats, told: Floats, *, certain: float, enough: float = 0.0) -> Floats:
    """[..., M, M] what a vote on two models is expected to tell of their order, in nats; 0 where it is certain.

    Args:
        x: [..., M]. covariance: [..., M, M]. told: [..., M, M] information that a vote holds. certain: see
            `nextpairs.certain_from`. enough: standard error of a rating, from the mean model, that is asked for; pairs
            both of whose models have it are not asked either.
    """
    own = np.diagonal(covariance, axis1=-2, axis2=-1)
    variance = own[..., :, None] + own[..., None, :] - 2.0 * covariance
    found = vote_gains(np.abs(x[..., :, None] - x[..., None, :]), variance, told, certain=certain)
    if enough:
        wide = errors(covariance) > enough
        found *= wide[..., :, None] | wide[..., None, :]
    return found


def vote_gains(lead: Floats, variance: Floats, told: Floats, *, certain: float) -> Floats:
    """The same of pairs that differ by `lead` with this variance; one shape."""
    variance = np.maximum(variance, SMALLEST)
    u = lead / np.sqrt(variance)
    weight = TABLE[np.minimum(u * FINEST, len(TABLE) - 1).astype(np.int64)]
    return np.asarray((u < certain) * (0.5 * weight) * np.log1p(variance * told))


def errors(covariance: Floats) -> Floats:
    """[..., M] standard errors of ratings from the mean model, from covariances [..., M, M]."""
    own, mean = np.diagonal(covariance, axis1=-2, axis2=-1), covariance.mean(axis=-1)
    return np.sqrt(np.maximum(own - 2.0 * mean + mean.mean(axis=-1, keepdims=True), 0.0))
