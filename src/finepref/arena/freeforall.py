"""A K-wise game for the online engine: expectation propagation on the chain of neighbours in the ranking.

Item k performs p_k ~ N(mu_k, sigma_k^2 + beta^2); neighbours must differ by more than eps (ranked) or less (tied). The
two-item game is the ordinary vote.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from finepref.arena.normal import Floats
from finepref.arena.online import draw_moments, win_moments
from finepref.arena.ratings import BETA
from finepref.formats.votes import Games

SWEEPS = 100
TOLERANCE = 1e-10

Message = tuple[float, float]  # precision, precision times mean
NOTHING: Message = (0.0, 0.0)


def rank_game(
    mu: list[float], var: list[float], rank: list[float], *, draw_margin: float, beta: float = BETA
) -> tuple[list[float], list[float]]:
    """Posterior mean and variance of every item's rating after one game; rank: low is best, equal is a tie.

    References:
        The factor-graph rating that K-Sort-Eval imports for K + 1 images, taken to convergence.
    """
    order = sorted(range(len(mu)), key=lambda k: rank[k])
    noise = beta * beta
    prior = [(1.0 / (var[k] + noise), mu[k] / (var[k] + noise)) for k in order]
    tied = [rank[order[k]] == rank[order[k + 1]] for k in range(len(order) - 1)]
    up, down = [NOTHING] * len(order), [NOTHING] * len(order)  # from the better and from the worse neighbour
    pairs = [*range(len(order) - 1), *range(len(order) - 3, -1, -1)]
    for _ in range(SWEEPS):
        change = 0.0
        for k in pairs:
            a = (prior[k][0] + up[k][0], prior[k][1] + up[k][1])
            b = (prior[k + 1][0] + down[k + 1][0], prior[k + 1][1] + down[k + 1][1])
            to_a, to_b = _messages(a, b, tied[k], draw_margin)
            change = max(change, abs(to_a[1] - down[k][1]), abs(to_b[1] - up[k + 1][1]))
            down[k], up[k + 1] = to_a, to_b
        if change < TOLERANCE:
            break
    new_mu, new_var = list(mu), list(var)
    for place, k in enumerate(order):
        precision = up[place][0] + down[place][0]
        centre = (up[place][1] + down[place][1]) / precision
        gain = var[k] / (var[k] + 1.0 / precision + noise)
        new_mu[k] = mu[k] + gain * (centre - mu[k])
        new_var[k] = var[k] * (1.0 - gain)
    return new_mu, new_var


def _messages(a: Message, b: Message, tied: bool, eps: float) -> tuple[Message, Message]:
    """What "a is above b" (or "they are tied") says to a and to b."""
    ma, va, mb, vb = a[1] / a[0], 1.0 / a[0], b[1] / b[0], 1.0 / b[0]
    v = va + vb
    root = sqrt(v)
    lead = ma - mb
    pull, shrink = draw_moments(lead / root, eps / root) if tied else win_moments((lead - eps) / root)
    shrink = max(shrink, 1e-300)  # a result that was certain says nothing
    rest = v * (1.0 - shrink) / shrink  # variance of the site on the difference
    centre = lead + root * pull / shrink  # its mean
    pa, pb = 1.0 / (rest + vb), 1.0 / (rest + va)
    return (pa, pa * (centre + mb)), (pb, pb * (ma - centre))


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
