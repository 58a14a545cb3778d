"""Image-level inference: an image in several votes is known better than its model is.

Everything is in units of c. An image i of model m has the quality x_i ~ N(mu_m/c, rho/2), or about another mean that is
given (module `fused`); a vote for w against l says x_w - x_l + e > 0 with e ~ N(0, 1 - rho). rho is the share of the
performance noise that belongs to the images. Expectation propagation: one Gaussian site per vote and image, all votes
at once, damped. A row that stands for n votes has n equal sites.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from finepref.arena.blocks import image_blocks, slices
from finepref.arena.counts import is_weighted, parts
from finepref.arena.normal import Floats, Ints, inverse_mills, truncated_mean
from finepref.arena.ratings import Ratings, align
from finepref.core.errors import InputError
from finepref.formats.votes import Votes

DAMPING = 0.7
TOLERANCE = 7e-4  # largest change of a posterior mean, in c
FINE = 1e-8  # where more than the model is known of an image
MAX_SWEEPS = 100
SWEPT = 1 << 16  # votes whose sites are worked out together


@dataclass(frozen=True, slots=True)
class Duels:
    """n decided votes between different images: codes of winner and loser, and [K] prior mean of every image.

    count: [n] how many equal votes each stands for, > 0; None: one.
    """

    winner: Ints
    loser: Ints
    prior_mean: Floats
    count: Floats | None = None


@dataclass(frozen=True, slots=True)
class Sites:
    """Natural parameters of the sites of one vote each: [2, n] precision and precision times mean, winners first."""

    precision: Floats
    shift: Floats


@dataclass(frozen=True, slots=True)
class ImageFit:
    """mean, variance: [K] posterior of every image. sites: of the votes."""

    mean: Floats
    variance: Floats
    sites: Sites


def image_models(votes: Votes) -> npt.NDArray[np.int32]:
    """[K] model of every image.

    Raises:
        InputError: votes without images, or an image that is listed under two models.
    """
    left, right = votes.images
    model = np.zeros(votes.image_count, dtype=np.int32)
    sides = (left, votes.left, "left"), (right, votes.right, "right")
    for image, side, _ in sides:
        for rows in slices(len(votes)):
            model[image[rows]] = side[rows]
    for image, side, name in sides:
        for rows in slices(len(votes)):
            wrong = np.flatnonzero(model[image[rows]] != side[rows])
            if len(wrong):
                at = rows.start + int(wrong[0])
                raise InputError(
                    f"the {name} image is listed under two models, {votes.models[model[image[at]]]!r} and "
                    f"{votes.models[side[at]]!r}", where=f"vote {at}", remedy="give every image a name of its own",
                )  # fmt: skip
    return model


def model_leads(votes: Votes, ratings: Ratings) -> Floats:
    """[M] what is expected of the images of every model from its rating alone, in c, around the mean model.

    Raises:
        InputError: something else is given for ratings.
    """
    if not isinstance(ratings, Ratings):
        what = f"a {type(ratings).__name__} is given for ratings"
        raise InputError(what, where="ratings", remedy="give what `rate` returned")
    mu = ratings.mu[align(ratings, votes.models)]
    return np.asarray((mu - mu.mean()) / ratings.c)


def model_means(votes: Votes, ratings: Ratings) -> Floats:
    """[K] what is expected of every image from its model's rating alone, in c."""
    return np.asarray(model_leads(votes, ratings)[image_models(votes)])


def duels(votes: Votes, prior_mean: Floats) -> tuple[Duels, npt.NDArray[np.int64]]:
    """The decided votes between different images, and of which rows they are; a share tells of votes both ways.

    prior_mean: [K] in c.
    """
    left, right = votes.images
    if not is_weighted(votes):
        rows = np.flatnonzero((votes.outcome != 0) & (left != right))
        won, count = votes.outcome[rows] > 0, None
    else:
        for_left, for_right, _ = (np.where(left != right, part, 0.0) for part in parts(votes))
        wins, losses = np.flatnonzero(for_left > 0), np.flatnonzero(for_right > 0)
        rows = np.concatenate([wins, losses])
        won, count = np.arange(len(rows)) < len(wins), np.concatenate([for_left[wins], for_right[losses]])
    a, b = left[rows], right[rows]
    return Duels(np.where(won, a, b), np.where(won, b, a), prior_mean, count), rows


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of images before their votes, in c: of_image [K], or else of_model [M], of all of a model's."""

    of_model: Floats
    of_image: Floats | None = None

    @property
    def tolerance(self) -> float:
        """How exact the inference from it is, in c."""
        return TOLERANCE if self.of_image is None else FINE


def expected(votes: Votes, ratings: Ratings, prior_mean: Floats | None = None) -> Expected:
    """The prior means [K] that are given; else those of the models' ratings.

    Raises:
        InputError: votes without images, or an image that is listed under two models.
    """
    image_models(votes)
    return Expected(model_leads(votes, ratings), prior_mean)


def block(votes: Votes, members: npt.NDArray[np.integer], prior: Expected) -> tuple[Votes, Floats]:
    """Some votes with image codes of their own without holes, and what is expected of those images."""
    bare = replace(votes, prompt=None, voter=None, game=None, both_bad=None, time=None, question=None, games=None)
    part = bare if len(members) == len(votes) else bare.take(members)
    dense = part.with_dense_images()
    mean = np.zeros(dense.image_count if len(dense) else 0)
    for old, new, model in zip(part.images, dense.images, (part.left, part.right), strict=True):
        mean[new] = prior.of_model[model] if prior.of_image is None else prior.of_image[old]
    return dense, mean


def infer(fight: Duels, rho: float, *, start: Sites | None = None, tolerance: float = TOLERANCE) -> ImageFit:
    """Posterior of every image by expectation propagation.

    With cavities (m_w, v_w), (m_l, v_l): S = v_w + v_l + 1 - rho, t = (m_w - m_l)/sqrt(S), A = lambda (lambda + t)/S;
    the new site of the winner has precision A/(1 - v_w A) and precision-mean prec m_w + lambda/sqrt(S) (1 + v_w prec),
    the loser's the same with a minus. Sites move by 0.7 of the way, until no posterior mean moves by `tolerance`
    (or 100 sweeps were made).

    Args:
        fight: the votes. rho: in (0, 0.95]. start: sites to begin with. tolerance: in c.
    """
    index = np.concatenate([fight.winner, fight.loser])
    n, k = len(fight.winner), len(fight.prior_mean)
    base, several = 2.0 / rho, _copies(fight)
    precision, shift = (
        (np.zeros(2 * n), np.zeros(2 * n)) if start is None else (start.precision.flatten(), start.shift.flatten())
    )
    copies = None if several is None else several.reshape(2, n)

    def move(rows: slice, total: Floats, pull: Floats) -> None:
        """Move the sites of some votes, [2, rows], towards what their cavities say."""
        image = index.reshape(2, n)[:, rows].ravel()
        some = None if copies is None else copies[:, rows].ravel()
        held = [sites.reshape(2, n)[:, rows] for sites in (precision, shift)]
        old = [sites.ravel() for sites in held]
        v = 1.0 / (total[image] - _left_out(old[0], some))
        m = pull[image]
        m -= _left_out(old[1], some)
        m *= v
        new = _sites(m, v, len(image) // 2, rho)
        for place, before, site in zip(held, old, new, strict=True):
            place[:] = (before + DAMPING * (site - before)).reshape(place.shape)

    mean, total = _posterior(index, k, base, fight.prior_mean, precision, shift, several)
    for _ in range(MAX_SWEEPS):
        pull = mean * total
        for rows in slices(n, SWEPT):
            move(rows, total, pull)
        before = mean
        mean, total = _posterior(index, k, base, fight.prior_mean, precision, shift, several)
        if n == 0 or float(np.max(np.abs(mean - before))) < tolerance:
            break
    return ImageFit(mean, 1.0 / total, Sites(precision.reshape(2, n), shift.reshape(2, n)))


def cavities(fight: Duels, fit: ImageFit) -> tuple[Floats, Floats]:
    """[2, n] mean and variance of the winner's and the loser's image without this vote's own site."""
    index, several = np.stack([fight.winner, fight.loser]), _copies(fight)
    several = None if several is None else several.reshape(2, -1)
    total = 1.0 / fit.variance
    v = 1.0 / (total[index] - _left_out(fit.sites.precision, several))
    return v * ((fit.mean * total)[index] - _left_out(fit.sites.shift, several)), v


def _copies(fight: Duels) -> Floats | None:
    """[2n] how many equal sites there are, winners first; None: one each."""
    return None if fight.count is None else np.tile(fight.count, 2)


def _left_out(sites: Floats, several: Floats | None) -> Floats:
    """What a cavity leaves out: one site, or the part of one that a row below one vote has."""
    return sites if several is None else sites * np.minimum(several, 1.0)


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
    index: Ints,
    k: int,
    base: float,
    prior_mean: Floats,
    precision: Floats,
    shift: Floats,
    several: Floats | None,
) -> tuple[Floats, Floats]:
    if several is not None:
        precision, shift = precision * several, shift * several
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


def image_gaps(
    votes: Votes, ratings: Ratings, rho: float, *, prior_mean: Floats | None = None, out: Floats | None = None
) -> Floats:
    """[n] posterior mean of the winner's image minus the loser's, in rating units; nan for ties.

    Runs over blocks of whole connected groups of images, so memory holds one block. rho: in (0, 0.95], or 1: a vote
    tells of its own two images alone, and every gap is that of a truncated normal. prior_mean: [K] of every image, in
    c; None: its model's rating. out: [n] array to fill (of a file, say).
    """
    values = np.empty(len(votes)) if out is None else out
    prior = expected(votes, ratings, prior_mean)
    for members in image_blocks(votes):
        part, mean = block(votes, members, prior)
        left, right = part.images
        if rho < 1.0:
            mean = infer(duels(part, mean)[0], rho, tolerance=prior.tolerance).mean
            gap = part.outcome * (mean[left] - mean[right])
        else:
            gap = np.where(left == right, 0.0, truncated_mean(part.outcome * (mean[left] - mean[right])))
        values[members] = np.where(part.outcome == 0, np.nan, ratings.c * gap)
    return values


def image_gaps_both(
    votes: Votes, ratings: Ratings, rho: float, *, prior_mean: Floats | None = None
) -> tuple[Floats, Floats]:
    """([n], [n]) gap if the left and if the right image is the winner.

    The side that won has the gap of `image_gaps`; the other what expectation propagation would say with this vote
    turned round and all others as they are (from the cavities); of a row of several votes, with one vote for that side
    in their place. A tie has no vote of its own to turn round.
    """
    left, right = np.empty(len(votes)), np.empty(len(votes))
    prior = expected(votes, ratings, prior_mean)
    for members in image_blocks(votes):
        found = _both(*block(votes, members, prior), ratings.c, rho, prior.tolerance)
        left[members], right[members] = found
    return left, right


def _both(votes: Votes, prior_mean: Floats, c: float, rho: float, tolerance: float) -> tuple[Floats, Floats]:
    pair = np.stack(votes.images)
    same = pair[0] == pair[1]
    if rho == 1.0:
        lead = prior_mean[pair[0]] - prior_mean[pair[1]]
        return np.where(same, 0.0, c * truncated_mean(lead)), np.where(same, 0.0, c * truncated_mean(-lead))
    fight, rows = duels(votes, prior_mean)
    fit = infer(fight, rho, tolerance=tolerance)
    m, v = _without_own(pair, fight, fit, rows)
    mean = fit.mean
    del fight, fit, rows  # a third of the memory
    left, right = np.empty(len(votes)), np.empty(len(votes))
    for some in slices(len(votes), SWEPT):
        own, outcome = c * (mean[pair[0, some]] - mean[pair[1, some]]), votes.outcome[some]
        left[some] = np.where(outcome > 0, own, c * expected_difference(m[:, some], v[:, some], rho))
        right[some] = np.where(outcome < 0, -own, c * expected_difference(m[::-1, some], v[::-1, some], rho))
    left[same] = right[same] = 0.0
    return left, right


def _without_own(pair: Ints, fight: Duels, fit: ImageFit, rows: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """[2, n] mean and variance of both images of every row without the row's own votes."""
    total = 1.0 / fit.variance
    precision, shift = total[pair], (fit.mean * total)[pair]
    count = 1.0 if fight.count is None else fight.count
    left_won = fight.winner == pair[0][rows]
    for side, held in ((0, left_won), (1, ~left_won)):
        for values, sites in ((precision, fit.sites.precision), (shift, fit.sites.shift)):
            np.subtract.at(values[side], rows, count * np.where(held, sites[0], sites[1]))
    np.divide(1.0, precision, out=precision)
    shift *= precision
    return shift, precision
