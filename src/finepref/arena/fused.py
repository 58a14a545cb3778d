"""One expectation of every image from its model's rating and from rewards, before its own votes are looked at.

Everything is in units of c. The prior mean of an image is a times its model's rating plus, for each scorer, b times its
reward: the reward minus the mean of its model's images, in standard deviations of what is left over all images. By the
model of module `image` a vote then is a probit regression on the difference of the two prior means, with noise of
variance 1 whatever rho is; its maximum gives a and b. The coefficients b have a ridge each, found by the evidence
(MacKay 1992): a reward that tells nothing gets 0. The votes then move the images as in kind `image`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finepref.arena.blocks import clusters, slices
from finepref.arena.image import duels, image_models, model_means
from finepref.arena.normal import Floats, Ints, inverse_mills, quantile
from finepref.arena.ratings import Ratings
from finepref.core.errors import InputError
from finepref.formats.votes import Votes

ScoresBySide = tuple[npt.ArrayLike, npt.ArrayLike]
"""[n] scores of the left and of the right images of n votes, nan where missing."""
Told = tuple[Floats, Floats, Ints]
"""Of d decided votes between different images: [d, F] winner minus loser, [d] counts, [d] clusters."""
RATING = "rating"
SAME = 1e-3  # two scores of one image are taken for one up to this part of the scorer's standard deviation
FEWEST = 20  # clusters that tell how much they differ
LEAST, MOST = 1e-6, 1e12  # ridge
ROUNDS, SWEEPS, NEWTON, STEP = 20, 10_000, 50, 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class FusedPrior:
    """mean: [K] what is expected of every image, in c; only images that are in a vote have a meaning.

    coefficient, error: by name (`rating`, then the scorers) with its standard error, by the sandwich over prompts, else
    connected groups of images, as votes that share images are not independent; where there are fewer than 20 of them,
    as if they were. ridge: by scorer. unscored: by scorer, how many images have no score and count as their model's
    mean. votes: how many told of the coefficients.
    """

    mean: Floats
    coefficient: Mapping[str, float]
    error: Mapping[str, float]
    ridge: Mapping[str, float]
    unscored: Mapping[str, int]
    votes: float

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Of a coefficient: the normal one from the curvature at its maximum."""
        half = quantile(0.5 + level / 2) * self.error[name]
        return self.coefficient[name] - half, self.coefficient[name] + half


def fused_prior(votes: Votes, ratings: Ratings, rewards: Mapping[str, ScoresBySide]) -> FusedPrior:
    """What ratings and rewards together say of every image; how much each counts is read from the votes.

    Args:
        votes: n votes that name their images. ratings: of their models. rewards: by scorer; may be empty, and then the
            ratings alone are scaled.

    Raises:
        InputError: votes without images; an image with two scores of one scorer; a scorer without a score, or whose
            scores do not differ within a model.
    """
    if not isinstance(rewards, Mapping):
        what = f"a {type(rewards).__name__} is given for rewards"
        remedy = "give scorer: (left, right), one score a vote; a file of `finepref score` is for `make_signals`"
        raise InputError(what, where="rewards", remedy=remedy)
    model, lead = image_models(votes), model_means(votes, ratings)
    features, unscored = [lead], {}
    for name, sides in rewards.items():
        value, unscored[name] = _within_models(_of_images(votes, sides, name), model, len(votes.models), name)
        features.append(value)
    stack = np.stack(features)
    weights, error, ridge, total = _fit(votes, stack)
    names = (RATING, *rewards)
    return FusedPrior(
        mean=weights @ stack,
        coefficient=dict(zip(names, weights.tolist(), strict=True)),
        error=dict(zip(names, error.tolist(), strict=True)),
        ridge=dict(zip(rewards, ridge.tolist(), strict=True)),
        unscored=unscored,
        votes=total,
    )


def _of_images(votes: Votes, sides: ScoresBySide, name: str) -> Floats:
    """[K] mean score of every image that is in a vote and has one; nan for others."""
    codes = np.concatenate(votes.images)
    scores = np.concatenate([np.asarray(side, dtype=np.float64) for side in sides])
    if scores.shape != codes.shape:
        what = f"{len(scores)} scores for {len(codes)} sides of votes"
        raise InputError(what, where=f"rewards of {name}", remedy="give one a side and vote, nan for none")
    held = np.isfinite(scores)
    if not held.any():
        raise InputError("no image has a score", where=f"rewards of {name}", remedy="score the images first")
    k = votes.image_count
    number = np.bincount(codes[held], minlength=k)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(codes[held], scores[held], k) / number
    far = np.abs(scores[held] - mean[codes[held]]) > SAME * max(float(scores[held].std()), 1e-300)
    if far.any():
        at = int(np.flatnonzero(held)[np.argmax(far)]) % len(votes)
        remedy = "give every image a name of its own, and score it for one prompt"
        raise InputError("an image of it has another score elsewhere", where=f"vote {at}, {name}", remedy=remedy)
    return np.asarray(mean)


def _within_models(score: Floats, model: npt.NDArray[np.int32], models: int, name: str) -> tuple[Floats, int]:
    """([K] scores minus the mean of their model's images in sd of the difference, 0 where none; how many have none)."""
    known = np.flatnonzero(np.isfinite(score))
    number = np.bincount(model[known], minlength=models)
    mean = np.bincount(model[known], score[known], models) / np.maximum(number, 1)
    value = np.zeros(len(score))
    value[known] = score[known] - mean[model[known]]
    spread = float(value[known].std())
    if spread <= 1e-12 * max(float(np.abs(score[known]).max()), 1e-300):
        what = "its scores do not differ within a model, so they say nothing"
        raise InputError(what, where=f"rewards of {name}", remedy="leave this scorer out")
    return value / spread, int(len(score) - len(known))


def _fit(votes: Votes, features: Floats) -> tuple[Floats, Floats, Floats, float]:
    """(coefficients [F], their standard errors, ridges of the b's, number of votes).

    a ~ N(1, 1) keeps votes that the ratings foretell without fault from running off. The ridges are those of most
    evidence where the votes' likelihood is taken for the Gaussian of its maximum, again and again until they stay.
    """
    cluster_of = clusters(votes)
    blocks = [_differences(votes.take(rows), features, cluster_of(rows)) for rows in slices(len(votes))]
    centre, ridge = np.zeros(len(features)), np.ones(len(features))
    centre[0] = 1.0
    weights = centre
    for _ in range(ROUNDS):
        weights, told = _maximum(blocks, weights, centre, ridge)
        best = np.linalg.pinv(told) @ ((told + np.diag(ridge)) @ weights - ridge * centre)
        new = _most_evidence(best, told, centre, ridge)
        settled = np.allclose(np.log(new), np.log(ridge), rtol=0.0, atol=1e-3)
        ridge = new
        if settled:
            break
    weights, told = _maximum(blocks, weights, centre, ridge)
    covariance = np.linalg.pinv(told)
    scatter, number = _scatter(blocks, weights)
    if number >= FEWEST:
        covariance = covariance @ scatter @ covariance
    error = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return weights, error, ridge[1:], float(sum(count.sum() for _, count, _ in blocks))


def _differences(votes: Votes, features: Floats, cluster: Ints) -> Told:
    fight, rows = duels(votes, features[0])
    count = np.ones(len(fight.winner)) if fight.count is None else fight.count
    return (features[:, fight.winner] - features[:, fight.loser]).T, count, cluster[rows]


def _scatter(blocks: Sequence[Told], weights: Floats) -> tuple[Floats, int]:
    """([F, F] sum over clusters of the outer product of their votes' slopes, how many clusters have a vote)."""
    most = 1 + max((int(cluster.max(initial=-1)) for *_, cluster in blocks), default=-1)
    sums, seen = np.zeros((most, len(weights))), np.zeros(most, dtype=bool)
    for x, count, cluster in blocks:
        seen[cluster] = True
        slope = (count * inverse_mills(x @ weights))[:, None] * x
        sums += np.stack([np.bincount(cluster, column, most) for column in slope.T], axis=1)
    return np.asarray(sums.T @ sums), int(seen.sum())


def _maximum(blocks: Sequence[Told], weights: Floats, centre: Floats, ridge: Floats) -> tuple[Floats, Floats]:
    """(coefficients, the votes' curvature) where sum count log Phi(x w) - ridge (w - centre)^2 / 2 is largest."""
    for _ in range(NEWTON):
        slope, told = -ridge * (weights - centre), np.zeros((len(weights), len(weights)))
        for x, count, _ in blocks:
            t = x @ weights
            mills = inverse_mills(t)
            slope = slope + x.T @ (count * mills)
            told = told + (x * (count * mills * (mills + t))[:, None]).T @ x
        step = np.linalg.solve(told + np.diag(ridge), slope)
        weights = weights + step
        if float(np.max(np.abs(step))) < STEP:
            break
    return weights, told


def _most_evidence(best: Floats, told: Floats, centre: Floats, ridge: Floats) -> Floats:
    """[F] ridges at MacKay's fixed point for a Gaussian likelihood at `best` with curvature `told`; the first stays."""
    for _ in range(SWEEPS):
        covariance = np.linalg.inv(told + np.diag(ridge))
        weights = covariance @ (told @ best + ridge * centre)
        new = (1.0 - ridge * np.diag(covariance)) / np.maximum(weights**2, 1e-300)
        new = np.clip(new, LEAST, MOST)
        new[0] = ridge[0]
        settled = np.allclose(np.log(new), np.log(ridge), rtol=0.0, atol=1e-6)
        ridge = new
        if settled:
            break
    return ridge
