"""The quality of pictures, from the answers of voters not all of whom look.

In units of c: a picture of model m has the quality x ~ N(mu_m, rho/2), mu_m ~ N(0, (25/3)^2/c^2). A voter of
attention a answers by x_left - x_right + e > 0, e ~ N(0, 1 - rho), in a share a of the sets, and by a coin in the rest:
P(left) = (1 - a)/2 + a Phi(t). Expectation propagation as in `arena.image`, which knows only a = 1: one Gaussian site
for each answer and picture, all answers at once, damped. Models follow from the sites of their pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from finepref.arena.image import DAMPING
from finepref.arena.normal import Floats, Ints, log_density
from finepref.arena.ratings import SIGMA0, C

PRECISION = (C / SIGMA0) ** 2  # of a model's prior
TOLERANCE = 2e-3  # largest change of a picture's mean, in c
MOST_SWEEPS = 60
STEEPEST = 0.9  # of the largest curvature that a site can have


@dataclass(frozen=True, slots=True)
class Fights:
    """n decided answers: codes of the chosen and the other picture and of the voter (rising).

    model: [K] of every picture.
    """

    winner: Ints
    loser: Ints
    voter: Ints
    model: Ints
    models: int


@dataclass(frozen=True, slots=True)
class Quality:
    """Sites of the answers, winners first: [2n] precision and precision times mean; mu: [M] of the models.

    log_evidence: of the answers under this rho, models at their mu.
    """

    precision: Floats
    shift: Floats
    mu: Floats
    rho: float
    log_evidence: float


@dataclass(frozen=True, slots=True)
class Belief:
    """mean, variance: [K] of the pictures, uncertainty of the model's mean included."""

    mean: Floats
    variance: Floats


def no_sites(fights: Fights, rho: float) -> Quality:
    """Before any answer is looked at."""
    empty = np.zeros(2 * len(fights.winner))
    return Quality(empty, empty, np.zeros(fights.models), rho, -np.inf)


def infer_quality(fights: Fights, attention: Floats, rho: float, start: Quality) -> Quality:
    """Pictures and models for one rho; attention: [n] of the voter of each answer. start: sites to begin with."""
    precision, shift, mu = start.precision, start.shift, start.mu
    index, n = np.concatenate([fights.winner, fights.loser]), len(fights.winner)
    base = 2.0 / rho
    mean, total = _pictures(fights, index, precision, shift, base, mu)
    for _ in range(MOST_SWEEPS):
        variance = 1.0 / (total[index] - precision)
        cavity = variance * ((mean * total)[index] - shift)
        spread = np.sqrt(variance[:n] + variance[n:] + 1.0 - rho)
        t = (cavity[:n] - cavity[n:]) / spread
        chance = 0.5 * (1.0 - attention) + attention * ndtr(t)
        slope = attention * np.exp(log_density(t)) / chance
        curve = np.tile(slope * (slope + t) / spread**2, 2)
        curve = np.clip(curve, 0.0, STEEPEST / variance)
        site = curve / (1.0 - variance * curve)
        pull = np.concatenate([slope / spread, -slope / spread])
        precision = precision + DAMPING * (site - precision)
        shift = shift + DAMPING * (pull * (1.0 + variance * site) + site * cavity - shift)
        mu = _models(fights, *_sums(fights, index, precision, shift), rho)[0]
        before = mean
        mean, total = _pictures(fights, index, precision, shift, base, mu)
        if n == 0 or float(np.max(np.abs(mean - before))) < TOLERANCE:
            break
    return Quality(precision, shift, mu, rho, _evidence(fights, attention, rho, (precision, shift, mu), (mean, total)))


def _evidence(
    fights: Fights, attention: Floats, rho: float, sites: tuple[Floats, Floats, Floats], fit: tuple[Floats, Floats]
) -> float:
    """log of the chance of all answers, as expectation propagation has it.

    With F(p, s) = s^2/(2 p) - log(p)/2: sum over answers of log P(answer | cavities) + F(cavities) - F(pictures), and
    over pictures of F(picture) - F(prior).
    """
    (precision, shift, mu), (mean, total) = sites, fit
    index, n, base = np.concatenate([fights.winner, fights.loser]), len(fights.winner), 2.0 / rho
    held, moved = total[index], (mean * total)[index]
    left, pushed = held - precision, moved - shift
    cavity, variance = pushed / left, 1.0 / left
    t = (cavity[:n] - cavity[n:]) / np.sqrt(variance[:n] + variance[n:] + 1.0 - rho)
    chance = 0.5 * (1.0 - attention) + attention * ndtr(t)
    prior = base * mu[fights.model]
    pictures = _normaliser(total, mean * total) - _normaliser(np.full(len(total), base), prior)
    return float(np.log(chance).sum() + (_normaliser(left, pushed) - _normaliser(held, moved)).sum() + pictures.sum())


def _normaliser(precision: Floats, shift: Floats) -> Floats:
    return np.asarray(0.5 * shift**2 / precision - 0.5 * np.log(precision))


def site_sums(fights: Fights, found: Quality) -> tuple[Floats, Floats]:
    """([K] precision, [K] precision times mean) of all sites of every picture."""
    return _sums(fights, np.concatenate([fights.winner, fights.loser]), found.precision, found.shift)


def belief_without(fights: Fights, found: Quality, voter: int, sums: tuple[Floats, Floats]) -> Belief:
    """What is believed of every picture when the sites of a voter's own answers are taken out; sums: `site_sums`."""
    own = slice(*np.searchsorted(fights.voter, [voter, voter + 1]))
    n, index = len(fights.winner), np.concatenate([fights.winner[own], fights.loser[own]])
    mine = (np.concatenate([each[:n][own], each[n:][own]]) for each in (found.precision, found.shift))
    precision, shift = (whole - part for whole, part in zip(sums, _sums(fights, index, *mine), strict=True))
    mu, variance = _models(fights, np.maximum(precision, 0.0), shift, found.rho)
    base = 2.0 / found.rho
    total = base + precision
    mean = (base * mu[fights.model] + shift) / total
    return Belief(mean, 1.0 / total + (base / total) ** 2 * variance[fights.model])


def _sums(fights: Fights, index: Ints, precision: Floats, shift: Floats) -> tuple[Floats, Floats]:
    k = len(fights.model)
    return np.asarray(np.bincount(index, precision, k), float), np.asarray(np.bincount(index, shift, k), float)


def _pictures(
    fights: Fights, index: Ints, precision: Floats, shift: Floats, base: float, mu: Floats
) -> tuple[Floats, Floats]:
    """([K] mean, [K] precision) of every picture."""
    held, moved = _sums(fights, index, precision, shift)
    return (base * mu[fights.model] + moved) / (base + held), base + held


def _models(fights: Fights, precision: Floats, shift: Floats, rho: float) -> tuple[Floats, Floats]:
    """([M] mean, around their mean, [M] variance) of the models from the [K] sums of their pictures' sites.

    A picture says shift/precision of its model, with the variance 1/precision + rho/2.
    """
    share = 1.0 + 0.5 * rho * precision
    total = PRECISION + np.bincount(fights.model, precision / share, fights.models)
    mean = np.asarray(np.bincount(fights.model, shift / share, fights.models) / total)
    return (mean - mean.mean() if len(mean) else mean), np.asarray(1.0 / total)
