"""Which pairs of models to vote on next: those whose vote would tell most about the ratings."""

from __future__ import annotations

from typing import Any

import numpy as np

from finepref.arena.counts import count
from finepref.arena.engines import rate
from finepref.arena.normal import Floats
from finepref.arena.orders import information
from finepref.arena.settings import DEFAULTS
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats.proposals import Proposal
from finepref.formats.votes import Votes


def next_pairs(
    votes: Votes, *, number: int, prior: str = DEFAULTS.prior, seed: int = DEFAULTS.seed
) -> tuple[Proposal, ...]:
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
    ratings = rate(votes, prior=prior, interval="laplace")
    covariance: Any = np.array(ratings.covariance)
    informs = information(ratings, np.subtract.outer(ratings.mu, ratings.mu))
    games = count(votes).matrix("games")
    side = numpy_generator(seed, "next pair sides").random(number) < 0.5
    chosen = []
    for rank, swap in enumerate(side, start=1):
        i, j, gain = _best(covariance, informs)
        direction = covariance[:, i] - covariance[:, j]
        variance = float(direction[i] - direction[j])
        covariance -= np.outer(direction, direction) * (informs[i, j] / (1.0 + variance * informs[i, j]))
        left, right = (votes.models[k] for k in ((j, i) if swap else (i, j)))
        chosen.append(Proposal(rank, left, right, round(gain, 6), int(games[i, j])))
    return tuple(chosen)


def _best(covariance: Floats, informs: Floats) -> tuple[int, int, float]:
    diagonal = np.diag(covariance)
    variance = np.maximum(np.add.outer(diagonal, diagonal) - 2.0 * covariance, 0.0)
    gain = 0.5 * np.log1p(variance * informs)
    at = int(np.argmax(np.triu(gain, 1)))
    i, j = divmod(at, len(covariance))
    return i, j, float(gain[i, j])
