"""Which pairs of models to vote on next: those whose vote would tell most about the ratings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from finepref.arena import batch
from finepref.arena.counts import count
from finepref.arena.normal import Floats
from finepref.arena.orders import information
from finepref.arena.rate import C, fit_counts, rate
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes


@dataclass(frozen=True, slots=True)
class NextPair:
    """left, right: model codes; gain: expected information of the vote in nats; votes: the pair's so far."""

    left: int
    right: int
    gain: float
    votes: int


def next_pairs(
    votes: Votes, *, number: int, link: str = "probit", prior: str = "normal", seed: int = 0
) -> list[NextPair]:
    """The `number` votes to ask for, one after the other, each with the ones before it taken as asked.

    The gain of a vote on (i, j) is 1/2 log(1 + var(mu_i - mu_j) information(mu_i - mu_j)); after each choice the
    covariance shrinks along that difference, so one pair is not asked for again and again. Which model stands on the
    left is random.

    Args:
        number: >= 1. prior: "normal" or "empirical-bayes" (under a flat prior an unseen model would have no variance).

    Raises:
        InputError: fewer than two models, number < 1.
    """
    m = len(votes.models)
    if m < 2:
        raise InputError("there is only one model", remedy="name at least two models in the votes")
    if number < 1:
        raise InputError(f"the number of pairs is {number}", remedy="give at least 1")
    if prior == "flat":
        raise InputError("the flat prior says nothing about models with few votes", remedy="use the normal prior")
    counts = count(votes)
    model = fit_counts(counts, votes.models, link=link, prior=prior, ties="fit")
    covariance: Any = C * C * batch.inverse_with_gauge(model.fit.hessian, m)[:m, :m]
    ratings = rate(votes, link=link, prior=prior, interval="laplace")
    informs = information(ratings, np.subtract.outer(ratings.mu, ratings.mu))
    games = counts.matrix("games")
    side = numpy_generator(seed, "next pair sides").random(number) < 0.5
    chosen = []
    for swap in side:
        i, j, gain = _best(covariance, informs)
        direction = covariance[:, i] - covariance[:, j]
        variance = float(direction[i] - direction[j])
        covariance -= np.outer(direction, direction) * (informs[i, j] / (1.0 + variance * informs[i, j]))
        chosen.append(NextPair(j if swap else i, i if swap else j, gain, int(games[i, j])))
    return chosen


def _best(covariance: Floats, informs: Floats) -> tuple[int, int, float]:
    diagonal = np.diag(covariance)
    variance = np.maximum(np.add.outer(diagonal, diagonal) - 2.0 * covariance, 0.0)
    gain = 0.5 * np.log1p(variance * informs)
    at = int(np.argmax(np.triu(gain, 1)))
    i, j = divmod(at, len(covariance))
    return i, j, float(gain[i, j])
