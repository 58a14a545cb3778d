"""The tests that checks on voters use: exact wherever a distribution is known, and without a draw of their own.

A p here is the chance that a voter with nothing wrong gives what was seen or something more extreme. It is never too
small for such a voter: where answers are counted, it is rather too large.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, bdtrc, betaincinv, stdtr, stdtrit

from finepref.arena.normal import Floats, Ints
from finepref.arena.ratings import LEVEL

MOST_CELLS = 4096  # of a sum's distribution; larger weights are made coarser


def share_interval(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact limits of a share of which `count` of n were seen (Clopper and Pearson); n >= 1."""
    tail = 0.5 * (1.0 - level)
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, tail))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1.0 - tail))
    return low, high


def at_least(count: int, n: int, chance: float) -> float:
    """P(X >= count), X binomial of n trials with that chance."""
    return 1.0 if count <= 0 else float(bdtrc(count - 1, n, chance))


def two_sided(count: int, n: int, chance: float) -> float:
    """Twice the smaller tail of a binomial count, at most 1."""
    return min(1.0, 2.0 * min(at_least(count, n, chance), float(bdtr(count, n, chance))))


def run_at_least(length: int, n: int, chance: float) -> float:
    """P(n trials hold `length` successes in a row), each with that chance.

    u(m) = u(m-1) + (1 - q) q^L (1 - u(m-L-1)), u(L) = q^L: the first run of L ends at trial m and not before.
    """
    if length <= 0:
        return 1.0
    if length > n:
        return 0.0
    whole = chance**length
    found = [0.0] * length + [whole]
    for m in range(length + 1, n + 1):
        found.append(found[m - 1] + (1.0 - chance) * whole * (1.0 - found[m - length - 1]))
    return min(1.0, found[n])


def longest_run(same: npt.NDArray[np.bool_]) -> int:
    """The most True in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(np.int8), [0]])))
    return int(np.max(edges[1::2] - edges[::2], initial=0))


def sum_at_least(chance: Floats, weight: Ints, observed: int, shares: Floats) -> float:
    """P(sum of weights of the events that happen >= observed): exact, by adding one event after the other.

    The events are independent given which of S kinds of voter it is; the result is the mean over the kinds.

    Args:
        chance: [S, n] of each event. weight: [n] whole numbers >= 0. observed: a sum of weights. shares: [S] of the
            kinds, adding up to 1.
    """
    if observed <= 0:
        return 1.0
    below = np.zeros((len(shares), observed))  # P(sum so far = j) for j < observed
    below[:, 0] = 1.0
    for q, step in zip(chance.T[:, :, None], weight.tolist(), strict=True):
        if step == 0:
            continue
        moved = below * q
        below -= moved
        if step < observed:
            below[:, step:] += moved[:, :-step]
    return float(np.clip(1.0 - shares @ below.sum(axis=1), 0.0, 1.0))


def whole_weights(weight: Floats, against: npt.NDArray[np.bool_], step: float) -> Ints:
    """[n] weights >= 0 as multiples of `step`, or of a longer one where the sum seen would have too many cells."""
    total = float(weight[against].sum())
    step = max(step, total / MOST_CELLS)
    return np.rint(weight / step).astype(np.int64)


def from_others(value: float, others: Floats, variance: float) -> tuple[float, float]:
    """(P(below value), P(above value)) for one more draw of the normal that the others are drawn from.

    t = (value - mean) / sqrt(max(s^2, variance) (1 + 1/m)) has Student's distribution with m - 1 degrees of freedom.

    Args:
        others: [m], m >= 2. variance: what the value has at least, from counting alone.
    """
    m = len(others)
    spread = math.sqrt(max(float(np.var(others, ddof=1)), variance) * (1.0 + 1.0 / m))
    t = (value - float(others.mean())) / spread if spread > 0 else math.copysign(math.inf, value - others.mean())
    if spread == 0 and value == others.mean():
        t = 0.0
    return float(stdtr(m - 1, t)), float(stdtr(m - 1, -t))


def trend(values: Floats, step: float = 0.0) -> tuple[float, float, float, float, float]:
    """(change from the first to the last value along the line of least squares, its limits, standard error, p).

    t = r sqrt((n - 2)/(1 - r^2)), r the correlation of the values with their places: two-sided, close to the
    permutation test for any distribution of the values, because places are spread evenly.

    Args:
        values: [n] in order, n >= 3. step: by which they differ at least, for a correction of p; 0: by anything.
    """
    n = len(values)
    place = np.linspace(-0.5, 0.5, n)
    rest = values - values.mean()
    squares, all_squares = float(place @ place), float(rest @ rest)
    change = float(place @ rest) / squares
    if all_squares <= 1e-24 * n * float(np.max(np.abs(values))) ** 2:
        return 0.0, 0.0, 0.0, 0.0, 1.0
    error = math.sqrt(max(all_squares - change**2 * squares, 0.0) / (n - 2) / squares)
    reach = float(stdtrit(n - 2, 0.5 + 0.5 * LEVEL)) * error
    neighbours = step / (n - 1)  # what it moves the sum if two neighbours change places
    lowered = max(abs(float(place @ rest)) - 0.5 * neighbours, 0.0)
    r = min(lowered / math.sqrt(squares * all_squares), 1.0)
    p = 0.0 if r >= 1.0 else 2.0 * float(stdtr(n - 2, -r * math.sqrt((n - 2) / (1.0 - r * r))))
    return change, change - reach, change + reach, error, p
