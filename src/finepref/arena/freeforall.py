"""A game of many: expectation propagation on the chain of neighbours in the ranking, as the trueskill package does it.

Item k performs p_k ~ N(mu_k, sigma_k^2 + beta^2); neighbours must differ by more than eps (ranked) or less (tied). The
two-item game is the ordinary vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import numpy as np

from finepref.arena.normal import Floats
from finepref.arena.online import draw_moments, win_moments
from finepref.arena.ratings import BETA
from finepref.arena.votes import Games

SWEEPS, MIN_DELTA = 100, 1e-8
ROUNDING = 1e-11  # a smaller relative move is none

Message = tuple[float, float]  # precision, precision times mean
NOTHING: Message = (0.0, 0.0)


def _times(a: Message, b: Message) -> Message:
    return a[0] + b[0], a[1] + b[1]


def _site(a: Message, b: Message, tied: bool, eps: float, before: Message) -> tuple[Message, float]:
    """What "a is above b" (or "they are tied") says of their difference, and how far its value moved."""
    precision = 1.0 / (1.0 / a[0] + 1.0 / b[0])
    lead, root = a[1] / a[0] - b[1] / b[0], sqrt(precision)
    pull, shrink = draw_moments(lead * root, eps * root) if tied else win_moments((lead - eps) * root)
    rest = 1.0 - min(max(shrink, 0.0), 1.0 - 1e-12)
    pi, tau = precision / rest, (precision * lead + root * pull) / rest
    far_pi, far_tau = abs(pi - precision - before[0]), abs(tau - precision * lead - before[1])
    moved = max(far_tau if far_tau > ROUNDING * abs(tau) else 0.0, sqrt(far_pi) if far_pi > ROUNDING * pi else 0.0)
    return (pi - precision, tau - precision * lead), moved


def _told(other: Message, site: Message, sign: float) -> Message:
    """What the difference says of one of the two, given what is known of the other; sign: 1 for the better one."""
    both = other[0] + site[0]
    return other[0] * site[0] / both, (site[0] * other[1] + sign * other[0] * site[1]) / both


def rank_game(
    mu: Sequence[float],
    var: Sequence[float],
    rank: Sequence[float],
    *,
    draw_margin: float,
    beta: float = BETA,
    sweeps: int = SWEEPS,
    min_delta: float = MIN_DELTA,
) -> tuple[list[float], list[float]]:
    """Posterior mean and variance of every item's rating after one game.

    Args:
        mu, var: of the K items, K >= 2. rank: low is best, equal is a tie. beta: spread of one performance.
        sweeps, min_delta: when the passes over the chain stop; by default at convergence.

    References:
        Herbrich, Minka, Graepel 2006, TrueSkill, section 3; the schedule is that of trueskill 0.4.5.

    Deviations:
        Exact normal distribution function (the package's has errors of 1e-7); no teams.
    """
    order = sorted(range(len(mu)), key=lambda k: rank[k])
    known = [(1.0 / var[k], mu[k] / var[k]) for k in order]
    tied = [rank[a] == rank[b] for a, b in pairwise(order)]

    def blurred(message: Message) -> Message:
        share = 1.0 / (1.0 + beta * beta * message[0])
        return share * message[0], share * message[1]

    prior, last = [blurred(message) for message in known], len(order) - 2
    up, down = [NOTHING] * len(order), [NOTHING] * len(order)  # from the better and from the worse neighbour
    site = [NOTHING] * (last + 1)
    there = [(k, True) for k in range(last)] or [(0, True)]
    for _ in range(sweeps):
        delta = 0.0
        for k, forward in [*there, *((k, False) for k in range(last, 0, -1))]:
            a, b = _times(prior[k], up[k]), _times(prior[k + 1], down[k + 1])
            site[k], moved = _site(a, b, tied[k], draw_margin, site[k])
            delta = max(delta, moved)
            if forward:
                up[k + 1] = _told(a, site[k], -1.0)
            else:
                down[k] = _told(b, site[k], 1.0)
        if delta <= min_delta:
            break
    down[0] = _told(_times(prior[1], down[1]), site[0], 1.0)
    up[-1] = _told(_times(prior[last], up[last]), site[last], -1.0)
    new_mu, new_var = list(mu), list(var)
    for place, k in enumerate(order):
        precision, weighted = _times(known[place], blurred(_times(up[place], down[place])))
        new_mu[k], new_var[k] = weighted / precision, 1.0 / precision
    return new_mu, new_var


def run_games(
    games: Games, order: list[int], mu: Floats, sigma: Floats, *, tau: float, draw_margin: float
) -> tuple[Floats, Floats]:
    """Ratings after these games in this order. A model twice in one game gets the sum of its two changes."""
    means, variances = mu.tolist(), (sigma * sigma).tolist()
    for g in order:
        items = slice(int(games.start[g]), int(games.start[g + 1]))
        model, rank = games.model[items].tolist(), games.rank[items].tolist()
        if len(model) < 2:
            continue
        before = [means[k] for k in model], [variances[k] + tau * tau for k in model]
        after = rank_game(*before, rank, draw_margin=draw_margin)
        for k in set(model):
            variances[k] += tau * tau
        for k, m0, v0, m1, v1 in zip(model, *before, *after, strict=True):
            means[k] += m1 - m0
            variances[k] *= v1 / v0
    return np.array(means), np.sqrt(np.array(variances))
