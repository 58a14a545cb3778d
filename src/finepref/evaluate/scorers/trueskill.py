"""TrueSkill's update for a free-for-all of single players without ties, as the trueskill package schedules it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import log_ndtr, ndtri

from finepref.core.errors import InputError

Rating = tuple[float, float]  # mu, sigma
Natural = tuple[float, float]  # precision, precision * mean
FLAT: Natural = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class TrueSkill:
    """The environment: prior of a new player, performance spread, drift per game, assumed share of draws.

    min_delta, sweeps: when the passes over the chain of neighbours stop (the package's values).
    """

    mu: float = 25.0
    sigma: float = 25.0 / 3.0
    beta: float = 25.0 / 6.0
    tau: float = 25.0 / 300.0
    draw_probability: float = 0.1
    min_delta: float = 1e-4
    sweeps: int = 10

    @property
    def draw_margin(self) -> float:
        """Performance difference below which two single players draw."""
        return float(ndtri((self.draw_probability + 1) / 2)) * math.sqrt(2) * self.beta


def _times(a: Natural, b: Natural) -> Natural:
    return a[0] + b[0], a[1] + b[1]


def _over(a: Natural, b: Natural) -> Natural:
    return a[0] - b[0], a[1] - b[1]


def _beyond(cavity: Natural, margin: float) -> Natural:
    """Moments of a Gaussian cut to values above `margin`, as precision and precision * mean."""
    root = math.sqrt(cavity[0])
    x = cavity[1] / root - margin * root
    v = math.exp(-0.5 * x * x - 0.5 * math.log(2 * math.pi) - float(log_ndtr(x)))
    w = min(max(v * (v + x), 0.0), 1.0 - 1e-12)
    return cavity[0] / (1 - w), (cavity[1] + root * v) / (1 - w)


class _Chain:
    """Performances in order of rank and the messages between neighbours; player k beats player k + 1."""

    def __init__(self, performances: Sequence[Natural], margin: float) -> None:
        count = len(performances)
        self.prior, self.margin = list(performances), margin
        self.win = [FLAT] * (count - 1)  # what "k beats k + 1" says of the difference k
        self.to_left = [FLAT] * (count - 1)  # what difference k says of player k
        self.to_right = [FLAT] * (count - 1)  # and of player k + 1

    def heard(self, player: int) -> Natural:
        """What all games say of a player's performance."""
        left = self.to_right[player - 1] if player > 0 else FLAT
        right = self.to_left[player] if player < len(self.to_left) else FLAT
        return _times(left, right)

    def _without(self, k: int) -> tuple[Natural, Natural]:
        left = _over(_times(self.prior[k], self.heard(k)), self.to_left[k])
        right = _over(_times(self.prior[k + 1], self.heard(k + 1)), self.to_right[k])
        return left, right

    def play(self, k: int) -> float:
        """Refresh what difference k knows; returns how far its value moved."""
        (a_pi, a_tau), (b_pi, b_tau) = self._without(k)
        precision = 1 / (1 / a_pi + 1 / b_pi)
        cavity = (precision, precision * (a_tau / a_pi - b_tau / b_pi))
        before, after = _times(cavity, self.win[k]), _beyond(cavity, self.margin)
        self.win[k] = _over(after, cavity)
        return max(abs(after[1] - before[1]), math.sqrt(abs(after[0] - before[0])))

    def tell(self, k: int, *, right: bool) -> None:
        """Send what difference k knows to its right or its left player."""
        left_of, right_of = self._without(k)
        (pi, tau), (win_pi, win_tau) = (left_of if right else right_of), self.win[k]
        precision = 1 / (1 / pi + 1 / win_pi)
        mean = tau / pi - win_tau / win_pi if right else tau / pi + win_tau / win_pi
        (self.to_right if right else self.to_left)[k] = (precision, precision * mean)

    def run(self, sweeps: int, min_delta: float) -> None:
        """Pass along the chain and back until nothing moves more than `min_delta`."""
        last = len(self.win) - 1
        for _ in range(sweeps):
            if last == 0:
                delta = self.play(0)
            else:
                delta = 0.0
                for k in range(last):
                    delta = max(delta, self.play(k))
                    self.tell(k, right=True)
                for k in range(last, 0, -1):
                    delta = max(delta, self.play(k))
                    self.tell(k, right=False)
            if delta <= min_delta:
                break
        self.tell(0, right=False)
        self.tell(last, right=True)


def free_for_all(ratings: Sequence[Rating], ranks: Sequence[int], env: TrueSkill) -> list[Rating]:
    """New ratings after one game of everybody against everybody.

    Args:
        ratings: (mu, sigma) of each player, at least two, sigma > 0.
        ranks: place of each player, 0 is best, all different.
        env: the environment.

    Returns:
        (mu, sigma) of each player, in the given order.

    Raises:
        InputError: fewer than two players, another number of ranks, or equal ranks.

    References:
        Herbrich, Minka, Graepel 2006, TrueSkill, section 3; the schedule is that of trueskill 0.4.5.

    Deviations:
        Exact normal distribution function (the package's has errors of 1e-7); no ties, no teams.
    """
    if len(ratings) < 2 or len(ranks) != len(ratings) or len(set(ranks)) != len(ranks):
        raise InputError(f"ranks {list(ranks)} for {len(ratings)} players", remedy="give every player its own rank")
    order = sorted(range(len(ratings)), key=lambda player: ranks[player])
    known = [(1 / (s * s + env.tau**2), m / (s * s + env.tau**2)) for m, s in (ratings[p] for p in order)]
    spread = env.beta**2

    def blurred(message: Natural) -> Natural:
        share = 1 / (1 + spread * message[0])
        return share * message[0], share * message[1]

    chain = _Chain([blurred(message) for message in known], env.draw_margin)
    chain.run(env.sweeps, env.min_delta)
    out: list[Rating] = [(0.0, 0.0)] * len(ratings)
    for place, player in enumerate(order):
        pi, tau = _times(known[place], blurred(chain.heard(place)))
        out[player] = (tau / pi, math.sqrt(1 / pi))
    return out
