"""What the order of the votes does to the online engine, and how many more votes would settle neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from finepref.arena.counts import is_weighted
from finepref.arena.engines import rate
from finepref.arena.normal import Floats
from finepref.arena.ratings import Ratings
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes

SHUFFLES = 10
MOST_VOTES = 15_000
MOST_HELD_BACK = 10**9  # votes from which NumPy draws without putting back; beyond, it makes no difference


@dataclass(frozen=True, slots=True)
class OrderSensitivity:
    """Spread over shuffles of the same votes.

    sd: [M] standard deviation of each model's centred mu. swaps: share of neighbours (in the mean ranking) that change
    places in a shuffle. winners: how many different models came first. kendall: mean rank correlation of two shuffles.
    """

    preset: str
    shuffles: int
    votes: int
    sd: Floats
    swaps: float
    winners: int
    kendall: float


def order_sensitivity(
    votes: Votes, *, preset: str = "ksort", shuffles: int = SHUFFLES, seed: int = 0
) -> OrderSensitivity | None:
    """Rate shuffled votes `shuffles` times with the online engine (a random 15,000 of them, if there are more).

    None for votes with weights or shares, which that engine does not know.
    """
    if is_weighted(votes):
        return None
    chance = numpy_generator(seed, "order votes")
    if votes.repeats is not None:
        votes = replace(votes.take(np.repeat(np.arange(len(votes)), _drawn(votes.repeats, chance))), repeats=None)
    elif len(votes) > MOST_VOTES:
        votes = votes.take(np.sort(chance.choice(len(votes), MOST_VOTES, replace=False)))
    mus = np.array(
        [rate(votes, engine="online", preset=preset, order="shuffled", seed=seed + k).mu for k in range(shuffles)]
    )
    mus -= mus.mean(axis=1, keepdims=True)
    ranking = np.argsort(-mus.mean(axis=0), kind="stable")
    ahead, behind = mus[:, ranking[:-1]], mus[:, ranking[1:]]
    pairs = [(a, b) for a in range(shuffles) for b in range(a)]
    varied = mus.shape[1] > 1 and float(np.ptp(mus)) > 0
    kendall = float(np.mean([kendalltau(mus[a], mus[b]).statistic for a, b in pairs])) if varied else float("nan")
    return OrderSensitivity(
        preset, shuffles, len(votes), mus.std(axis=0, ddof=1), float(np.mean(ahead < behind)) if varied else 0.0,
        len(set(np.argmax(mus, axis=1).tolist())), kendall,
    )  # fmt: skip


def _drawn(repeats: npt.NDArray[np.int64], chance: np.random.Generator) -> npt.NDArray[np.int64]:
    """[n] how many of the equal votes of each row are among the 15,000 that are drawn."""
    total = int(repeats.sum())
    if total <= MOST_VOTES:
        return repeats
    if total < MOST_HELD_BACK:
        return chance.multivariate_hypergeometric(repeats, MOST_VOTES, method="marginals")
    return chance.multinomial(MOST_VOTES, repeats / total)


def information(ratings: Ratings, difference: Floats) -> Floats:
    """Fisher information of one vote about a rating difference, at that difference (rating units; a tie informs too).

    sum over outcomes of P (d log P / d D)^2; for the probit without ties phi^2 / (Phi (1 - Phi)) / c^2.
    """
    link = ratings.link
    d, m = np.asarray(difference, dtype=np.float64) / ratings.c, ratings.tie_margin / ratings.c
    left, up, _ = link.win(d - m)
    right, down, _ = link.win(-d - m)
    found = np.exp(left) * up**2 + np.exp(right) * down**2
    if m > 0:
        log_tie, slope, *_ = link.tie(d, m)
        found = found + np.exp(log_tie) * slope**2
    return np.asarray(found / ratings.c**2)


def votes_to_separate(ratings: Ratings, first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """Further votes between two models until their difference, if it is what it seems, is clear (`Ratings.clear`).

    n = ((z/D)^2 - 1/var(D)) / information(D), at least 0; infinite for equal ratings.

    Args:
        first, second: codes of models, numbers or arrays of one shape.

    Returns:
        float64 of that shape.
    """
    first, second = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    d, variance = ratings.mu[first] - ratings.mu[second], ratings.difference_variance(first, second)
    with np.errstate(divide="ignore"):
        needed, known = (ratings.clear / d) ** 2, 1.0 / variance
    further = (np.where(d == 0, 0.0, needed) - known) / information(ratings, d)
    return np.where(d == 0, np.inf, np.maximum(0.0, further))
