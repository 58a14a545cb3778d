"""Image-level inference: an image in several votes is known better than its model is.

Everything is in units of c. An image i of model m has the quality x_i ~ N(mu_m/c, rho/2); a vote for w against l
says x_w - x_l + e > 0 with e ~ N(0, 1 - rho). rho is the share of the performance noise that belongs to the images.
Expectation propagation: one Gaussian site per vote and image, all votes at once, damped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finepref.arena.blocks import image_blocks
from finepref.arena.normal import Floats, Ints, inverse_mills
from finepref.arena.ratings import Ratings, align
from finepref.core.errors import InputError
from finepref.formats.votes import Votes

DAMPING = 0.7
TOLERANCE = 7e-4  # largest change of a posterior mean, in c
MAX_SWEEPS = 100


@dataclass(frozen=True, slots=True)
class Duels:
    """n decided votes between different images: codes of winner and loser, and [K] prior mean of every image."""

    winner: Ints
    loser: Ints
    prior_mean: Floats


@dataclass(frozen=True, slots=True)
class Sites:
    """Natural parameters of the sites: [2, n] precision and precision times mean, winners first."""

    precision: Floats
    shift: Floats


@dataclass(frozen=True, slots=True)
class ImageFit:
    """mean, variance: [K] posterior of every image. sites: of the votes."""

    mean: Floats
    variance: Floats
    sites: Sites


def image_models(votes: Votes) -> npt.NDArray[np.int64]:
    """[K] model of every image.

    Raises:
        InputError: votes without images, or an image that is listed under two models.
    """
    left, right = votes.images
    model = np.zeros(votes.image_count, dtype=np.int64)
    model[left] = votes.left
    model[right] = votes.right
    for image, side, name in ((left, votes.left, "left"), (right, votes.right, "right")):
        wrong = np.flatnonzero(model[image] != side)
        if len(wrong):
            at = int(wrong[0])
            raise InputError(
                f"the {name} image is listed under two models, {votes.models[model[image[at]]]!r} and "
                f"{votes.models[side[at]]!r}", where=f"vote {at}", remedy="give every image a name of its own",
            )  # fmt: skip
    return model


def duels(votes: Votes, mu: Floats, *, c: float) -> tuple[Duels, npt.NDArray[np.int64]]:
    """The decided votes between different images, and which votes they are; mu: [M] in rating units."""
    model, (left, right) = image_models(votes), votes.images
    rows = np.flatnonzero((votes.outcome != 0) & (left != right))
    left_won = votes.outcome[rows] > 0
    a, b = left[rows], right[rows]
    prior = ((mu - mu.mean()) / c)[model]
    return Duels(np.where(left_won, a, b), np.where(left_won, b, a), prior), rows


def infer(fight: Duels, rho: float, *, start: Sites | None = None) -> ImageFit:
    """Posterior of every image by expectation propagation.

    With cavities (m_w, v_w), (m_l, v_l): S = v_w + v_l + 1 - rho, t = (m_w - m_l)/sqrt(S), A = lambda (lambda + t)/S;
    the new site of the winner has precision A/(1 - v_w A) and precision-mean prec m_w + lambda/sqrt(S) (1 + v_w prec),
    the loser's the same with a minus. Sites move by 0.7 of the way, until no posterior mean moves by 7e-4 (100 sweeps).

    Args:
        fight: the votes. rho: in (0, 0.95]. start: sites to begin with.
    """
    index = np.concatenate([fight.winner, fight.loser])
    n, k = len(fight.winner), len(fight.prior_mean)
    base = 2.0 / rho
    precision, shift = (
        (np.zeros(2 * n), np.zeros(2 * n)) if start is None else (start.precision.ravel(), start.shift.ravel())
    )
    mean, total = _posterior(index, k, base, fight.prior_mean, precision, shift)
    for _ in range(MAX_SWEEPS):
        v = 1.0 / (total[index] - precision)
        m = (mean * total)[index]
        m -= shift
        m *= v
        site_precision, site_shift = _sites(m, v, n, rho)
        precision = precision + DAMPING * (site_precision - precision)
        shift = shift + DAMPING * (site_shift - shift)
        before = mean
        mean, total = _posterior(index, k, base, fight.prior_mean, precision, shift)
        if n == 0 or float(np.max(np.abs(mean - before))) < TOLERANCE:
            break
    return ImageFit(mean, 1.0 / total, Sites(precision.reshape(2, n), shift.reshape(2, n)))


def cavities(fight: Duels, fit: ImageFit) -> tuple[Floats, Floats]:
    """[2, n] mean and variance of the winner's and the loser's image without this vote's own site."""
    index = np.stack([fight.winner, fight.loser])
    total = 1.0 / fit.variance
    v = 1.0 / (total[index] - fit.sites.precision)
    return v * ((fit.mean * total)[index] - fit.sites.shift), v


def evidence(m: Floats, v: Floats, rho: float) -> Floats:
    """[n] t = (m_w - m_l)/sqrt(S) at the cavities; log Phi(t) is the vote's leave-one-out log-likelihood."""
    return np.asarray((m[0] - m[1]) / np.sqrt(v[0] + v[1] + 1.0 - rho))


def expected_difference(m: Floats, v: Floats, rho: float) -> Floats:
    """[n] E[x_1 - x_2 | the first won], from the cavities of both: m_1 - m_2 + (v_1 + v_2)/sqrt(S) lambda(t)."""
    spread = v[0] + v[1]
    root = np.sqrt(spread + 1.0 - rho)
    lead = m[0] - m[1]
    return np.asarray(lead + spread / root * inverse_mills(lead / root))


def _posterior(
    index: Ints, k: int, base: float, prior_mean: Floats, precision: Floats, shift: Floats
) -> tuple[Floats, Floats]:
    total: Floats = np.bincount(index, precision, k).astype(np.float64, copy=False)
    total += base
    mean: Floats = np.bincount(index, shift, k).astype(np.float64, copy=False)
    mean += base * prior_mean
    mean /= total
    return mean, total


def _sites(m: Floats, v: Floats, n: int, rho: float) -> tuple[Floats, Floats]:
    s = v[:n] + v[n:]
    s += 1.0 - rho
    root = np.sqrt(s)
    t = (m[:n] - m[n:]) / root
    mills = inverse_mills(t)
    a = mills * (mills + t) / s
    pull = mills / root
    precision = np.concatenate([a, a])
    precision /= 1.0 - v * precision
    shift = 1.0 + v * precision
    shift[:n] *= pull
    shift[n:] *= -pull
    shift += precision * m
    return precision, shift


def image_gaps(votes: Votes, ratings: Ratings, rho: float, *, out: Floats | None = None) -> Floats:
    """[n] posterior mean of the winner's image minus the loser's, in rating units; nan for ties.

    Runs over blocks of connected images, so memory holds one block. out: [n] array to fill (of a file, say).
    """
    values = np.empty(len(votes)) if out is None else out
    mu = ratings.mu[align(ratings, votes.models)]
    for members in image_blocks(votes):
        block = votes.take(members).with_dense_images()
        fight, rows = duels(block, mu, c=ratings.c)
        mean = infer(fight, rho).mean
        result = np.where(block.outcome == 0, np.nan, 0.0)  # an image against itself differs by nothing
        result[rows] = ratings.c * (mean[fight.winner] - mean[fight.loser])
        values[members] = result
    return values


def image_gaps_both(votes: Votes, ratings: Ratings, rho: float) -> tuple[Floats, Floats]:
    """([n], [n]) gap if the left and if the right image is the winner.

    The side that won has the gap of `image_gaps`; the other what expectation propagation would say with this vote
    turned round and all others as they are (from the cavities). A tie has no vote of its own to turn round.
    """
    left, right = np.empty(len(votes)), np.empty(len(votes))
    mu = ratings.mu[align(ratings, votes.models)]
    for members in image_blocks(votes):
        left[members], right[members] = _both(votes.take(members).with_dense_images(), mu, ratings.c, rho)
    return left, right


def _both(votes: Votes, mu: Floats, c: float, rho: float) -> tuple[Floats, Floats]:
    fight, rows = duels(votes, mu, c=c)
    fit = infer(fight, rho)
    pair = np.stack(votes.images)
    m, v = fit.mean[pair], fit.variance[pair]  # of a tie: nothing to leave out
    left_won = votes.outcome[rows] > 0
    cavity_m, cavity_v = cavities(fight, fit)
    m[:, rows] = np.where(left_won, cavity_m, cavity_m[::-1])
    v[:, rows] = np.where(left_won, cavity_v, cavity_v[::-1])
    left, right = c * expected_difference(m, v, rho), c * expected_difference(m[::-1], v[::-1], rho)
    own = c * (fit.mean[fight.winner] - fit.mean[fight.loser])
    left[rows[left_won]] = own[left_won]
    right[rows[~left_won]] = own[~left_won]
    same = pair[0] == pair[1]
    left[same] = right[same] = 0.0
    return left, right
