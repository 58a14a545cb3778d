"""Which pairs of models to vote on next: those whose vote would tell most about an order that is not certain yet.

A vote on (i, j) is worth 1/2 log(1 + s^2 I w(D/s)), D and s mean and standard deviation of mu_i - mu_j, I the vote's
information about it, w(u) = phi(u)^2/(Phi(u) Phi(-u)) the part of what is not known about D that its sign explains
(the squared correlation of D and sign D). A certain order makes it nothing, however wide the ratings are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from finepref.arena.counts import count
from finepref.arena.engines import rate
from finepref.arena.nextimages import ImageStock
from finepref.arena.normal import Floats, Ints, log_density, quantile
from finepref.arena.orders import information
from finepref.arena.ratings import LEVEL, Ratings
from finepref.arena.settings import DEFAULTS
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes

HELD = 64  # votes that a covariance holds back before it is computed anew


@dataclass(frozen=True, slots=True)
class NextPair:
    """A vote to ask for: codes of the models and, where wanted, of their images; its gain in nats."""

    left: int
    right: int
    gain: float
    left_image: int | None = None
    right_image: int | None = None


@dataclass(frozen=True, slots=True)
class NextPairs:
    """pairs: best first, each as if those before it were answered. votes: [P] of each pair's models so far.

    undecided: pairs of models whose order is not certain now. apart: pairs of models among them without a common
    prompt, which cannot be asked with images.
    """

    pairs: tuple[NextPair, ...]
    votes: npt.NDArray[np.int64]
    undecided: int
    apart: int = 0


def next_pairs(
    votes: Votes,
    *,
    number: int,
    images: ImageStock | None = None,
    asked: Sequence[NextPair] = (),
    prior: str = DEFAULTS.prior,
    seed: int = DEFAULTS.seed,
) -> NextPairs:
    """The next votes to ask for, at most `number`: fewer where the order would be certain after them.

    The order of two models is certain when its chance to be wrong is at most 5 % / (M - 1): then the whole order of
    the M models, which is right if that of its M - 1 neighbours is, is right with 95 %. A pair whose order is certain
    is not asked. When all are, those are asked that a board still does not tell apart (`Ratings.clear`). Every other
    pair is asked once before any is asked twice; but for that, the next one is always that with the largest gain,
    after the covariance has shrunk as if the votes before it had been cast (the ratings stay).
    Every model stands about as often on the left as on the right; `seed` draws the rest.

    Args:
        images: of these votes, where images are to be chosen too; what is chosen is counted there.
        asked: votes that are asked for already and not answered yet.
        prior: "normal" or "empirical-bayes" (under a flat prior an unseen model would have no variance).

    Raises:
        InputError: fewer than two models, number < 1, the flat prior.
    """
    m = len(votes.models)
    if m < 2:
        raise InputError("there is only one model", remedy="name at least two models in the votes")
    if number < 1:
        raise InputError(f"the number of pairs is {number}", remedy="give at least 1")
    if prior == "flat":
        raise InputError("the flat prior says nothing about models with few votes", remedy="use the normal prior")
    ratings = rate(votes, prior=prior, interval="laplace")
    rng = numpy_generator(seed, "next pairs")
    drawn = rng.permutation(m * (m - 1) // 2)
    plan = _Plan(ratings, drawn, certain_from(m))
    if not plan.undecided().any():  # a board may still not tell them apart
        board = rate(votes, prior=prior)
        plan = _Plan(ratings if board.covariance is None else board, drawn, board.clear if board.has_intervals else inf)
    undecided, apart = plan.undecided(), 0
    if images is not None:
        apart = int(np.count_nonzero(undecided & ~images.meet[plan.i, plan.j]))
        plan.allowed &= images.meet[plan.i, plan.j]
    balance, coins, found = np.zeros(m), rng.random(number) < 0.5, []
    for pair in asked:
        plan.answer(plan.code(pair.left, pair.right))
        balance[pair.left] += 1
        balance[pair.right] -= 1
        if images is not None and pair.left_image is not None and pair.right_image is not None:
            images.use(pair.left_image, pair.right_image)
    for coin, (i, j, gain) in zip(coins, plan.best(), strict=False):
        left, right = (j, i) if balance[i] > balance[j] or (balance[i] == balance[j] and coin) else (i, j)
        balance[left] += 1
        balance[right] -= 1
        shown = (None, None) if images is None else images.choose(left, right)
        found.append(NextPair(left, right, gain, *shown))
    games = count(votes).matrix("games")
    seen = np.array([games[pair.left, pair.right] for pair in found], dtype=np.int64)
    return NextPairs(tuple(found), seen, int(np.count_nonzero(undecided)), apart)


def order_gain(informs: Floats, difference: Floats, variance: Floats) -> Floats:
    """What a vote is expected to tell about the order of two models, in nats; formula on top of the file.

    Args:
        informs: information of the vote about the difference. difference, variance: its mean and variance. One shape.
    """
    return np.asarray(0.5 * np.log1p(variance * informs * explained(difference / np.sqrt(variance))))


def explained(u: Floats) -> Floats:
    """w(u), the part of what is not known about a normal variable of mean u and variance 1 that its sign explains."""
    return np.asarray(np.exp(2.0 * log_density(u) - log_ndtr(u) - log_ndtr(-u)))


def certain_from(models: int) -> float:
    """u from which an order is certain: wrong with at most 5 %/(M - 1), so that all M models are in order with 95 %."""
    return quantile(1.0 - (1.0 - LEVEL) / max(models - 1, 1))


class _Covariance:
    """A covariance [M, M] that shrinks with every vote; the last votes are held as vectors, so that one costs O(M)."""

    def __init__(self, covariance: Floats) -> None:
        self.settled = covariance.copy()
        self.held = np.zeros((HELD, len(covariance)))
        self.votes = 0

    def variance(self, i: int, j: int) -> float:
        """Of mu_i - mu_j."""
        settled, apart = self.settled, self.held[: self.votes, i] - self.held[: self.votes, j]
        return float(settled[i, i] + settled[j, j] - 2.0 * settled[i, j] - apart @ apart)

    def variances(self, i: Ints, j: Ints) -> Floats:
        """[n] variances of mu_i - mu_j."""
        self._settle()
        diagonal = np.diag(self.settled)
        return np.asarray(np.maximum(diagonal[i] + diagonal[j] - 2.0 * self.settled[i, j], 1e-12))

    def observe(self, i: int, j: int, informs: float) -> None:
        """Shrink as a vote on (i, j) with this information about mu_i - mu_j would make it."""
        held = self.held[: self.votes]
        line = self.settled[i] - self.settled[j] - (held[:, i] - held[:, j]) @ held
        self.held[self.votes] = line * np.sqrt(informs / (1.0 + (line[i] - line[j]) * informs))
        self.votes += 1
        if self.votes == HELD:
            self._settle()

    def _settle(self) -> None:
        held = self.held[: self.votes]
        self.settled -= held.T @ held
        self.votes = 0


class _Plan:
    """The pairs of models and what is expected to be known of them after the votes asked so far.

    i, j: [P] codes, i < j. difference, informs: [P]. asked: [P] how often. allowed: [P]. drawn: [P] place among equals.
    """

    def __init__(self, ratings: Ratings, drawn: npt.NDArray[np.int64], certain: float) -> None:
        assert ratings.covariance is not None
        self.models = len(ratings.models)
        self.i, self.j = np.triu_indices(self.models, 1)
        self.difference = ratings.mu[self.i] - ratings.mu[self.j]
        self.informs = information(ratings, self.difference)
        self.covariance = _Covariance(ratings.covariance)
        self.clear = (self.difference / certain) ** 2
        self.asked = np.zeros(len(self.i), dtype=np.int64)
        self.allowed = np.ones(len(self.i), dtype=bool)
        self.drawn = drawn

    def code(self, first: int, second: int) -> int:
        """Number of a pair of models."""
        i, j = min(first, second), max(first, second)
        return i * self.models - i * (i + 1) // 2 + j - i - 1

    def undecided(self) -> npt.NDArray[np.bool_]:
        """[P] whether the order of a pair is not certain."""
        return np.asarray(self.covariance.variances(self.i, self.j) > self.clear)

    def answer(self, k: int) -> None:
        """Count pair k as asked and answered."""
        self.asked[k] += 1
        self.covariance.observe(int(self.i[k]), int(self.j[k]), float(self.informs[k]))

    def best(self) -> Iterator[tuple[int, int, float]]:
        """Pairs and gains in the order in which to ask: all once, then the best ones, until all is expected certain."""
        for again in (False, True):
            variance = self.covariance.variances(self.i, self.j)
            items = np.flatnonzero((variance > self.clear) & self.allowed & (again | (self.asked == 0)))
            items = items[np.argsort(self.drawn[items])]
            gains = order_gain(self.informs[items], self.difference[items], variance[items])
            first = np.argsort(-gains, kind="stable")
            for k, gain in largest_first(items[first], gains[first], self._gain, again=again):
                self.answer(k)
                yield int(self.i[k]), int(self.j[k]), gain

    def _gain(self, k: int) -> float:
        """Gain of pair k now; nothing where its order is expected certain."""
        variance = self.covariance.variance(int(self.i[k]), int(self.j[k]))
        if variance <= self.clear[k]:
            return 0.0
        return float(order_gain(self.informs[k], self.difference[k], np.asarray(variance)))


def largest_first(
    items: npt.NDArray[np.int64], gains: Floats, now: Callable[[int], float], *, again: bool = False
) -> Iterator[tuple[int, float]]:
    """Always the item whose gain is largest at that time, without looking at all of them again.

    A gain only shrinks, so an item whose gain now is not below the last known gains of the others is the best one.

    Args:
        items: [n], by their gains [n], largest first. now: gain of an item after what was taken; 0 drops it.
        again: whether what was taken may be taken again.
    """
    waiting: list[tuple[float, int]] = []
    at = 0
    while at < len(items) or waiting:
        if waiting and (at == len(items) or -waiting[0][0] >= gains[at]):
            item = heappop(waiting)[1]
        else:
            item, at = int(items[at]), at + 1
        gain = now(item)
        others = max(gains[at] if at < len(items) else 0.0, -waiting[0][0] if waiting else 0.0)
        if gain >= others > 0.0 or gain > others:
            yield item, gain
            gain = now(item) if again else 0.0
        if gain > 0.0:
            heappush(waiting, (-gain, item))
