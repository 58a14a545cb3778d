"""The batch engine: all votes at once, so order cannot matter. Newton on the counts of model pairs.

P(i beats j) = F((mu_i - mu_j + s - m)/c), P(tie) the rest, c = sqrt(2) beta, mu_i ~ N(25, sd^2) or flat. The side
advantage s is 0, or fitted with the prior N(0, (25/3)^2) if i stood on the left.
Everything here is in units of c: x = (mu - 25)/c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from finepref.arena.counts import PairCounts
from finepref.arena.link import Link
from finepref.arena.normal import Floats
from finepref.arena.ratings import MU0, SIGMA0, C
from finepref.core.errors import InputError

TOLERANCE = 1e-11
MAX_STEPS = 200
MOST_MODELS = 5000
SIDE_PRECISION = (C / SIGMA0) ** 2
SD_BOUNDS = (math.log(0.01), math.log(10.0))


@dataclass(frozen=True, slots=True)
class Fit:
    """The maximum, in units of c.

    x: [M] ratings. margin: tie margin. side: advantage of the left. hessian: negative curvature in (x, margin, side);
    the margin's row only with ties, the side's only if it was fitted.
    """

    x: Floats
    margin: float
    log_likelihood: float
    hessian: Floats
    side: float = 0.0

    @property
    def sided(self) -> bool:
        """Whether the side's advantage was fitted."""
        return len(self.hessian) > len(self.x) + (self.margin > 0)


@dataclass(frozen=True, slots=True)
class BatchModel:
    """A batch fit; counts: with ties as they were treated, prior_sd: in rating units, None for the flat prior."""

    counts: PairCounts
    link: Link
    fit: Fit
    prior_sd: float | None

    @property
    def mu(self) -> Floats:
        """[M] ratings."""
        return np.asarray(MU0 + C * self.fit.x)

    @property
    def prior_precision(self) -> float:
        """1/sd^2 in units of c, 0 for the flat prior."""
        return 0.0 if self.prior_sd is None else (C / self.prior_sd) ** 2

    @property
    def prior_on_all(self) -> Floats:
        """[unknowns] precision of the prior of x, margin and side."""
        found = np.zeros(len(self.fit.hessian))
        found[: len(self.fit.x)] = self.prior_precision
        if self.fit.sided:
            found[-1] = SIDE_PRECISION
        return found


def fit(
    counts: PairCounts, link: Link, *, prior_precision: float, start: Fit | None = None, sided: bool = False
) -> Fit:  # fmt: skip
    """The most probable ratings and tie margin, by Newton's method with halved steps where a full one would be worse.

    maximise sum over pairs of log P(votes | x_i - x_j, margin) - prior_precision/2 |x|^2. The objective is concave, so
    the result is the only maximum. Without ties the margin is 0; with ties it is fitted.

    Args:
        counts: wins and ties per pair.
        prior_precision: 1/sd^2 in units of c; 0 is the flat prior (the common level of x is then set to 0).
        sided: fit the advantage of the left too; `counts` are then by side.

    Raises:
        InputError: every vote is a tie.
    """
    m = counts.n_models
    if m > MOST_MODELS:
        raise InputError(f"{m} models are to be rated", remedy=f"rate at most {MOST_MODELS}, with images as images")
    tied = bool(counts.ties.sum() > 0)
    if tied and counts.i_wins.sum() + counts.j_wins.sum() == 0:
        raise InputError("every vote between different models is a tie", remedy="add votes that were decided")
    x = np.zeros(m) if start is None else start.x.copy()
    margin = (0.3 if start is None or start.margin <= 0 else start.margin) if tied else 0.0
    side = start.side if sided and start is not None else 0.0
    gauge = 1.0 if prior_precision == 0 else 0.0
    value = _objective(counts, link, x, margin, side, prior_precision)
    for _ in range(MAX_STEPS):
        gradient, hessian = _derivatives(counts, link, x, margin, side, prior_precision, sided=sided)
        system = hessian.copy()
        system[:m, :m] += gauge / m
        step = np.linalg.solve(system, gradient)
        size = 1.0
        while tied and margin + size * step[m] <= 0:
            size *= 0.5
        while True:
            new_x, new_margin = x + size * step[:m], margin + (size * step[m] if tied else 0.0)
            new_side = side + (size * step[-1] if sided else 0.0)
            new_value = _objective(counts, link, new_x, new_margin, new_side, prior_precision)
            if new_value >= value - 1e-12 * abs(value) or size < 1e-6:
                break
            size *= 0.5
        x, margin, side, value = new_x, float(new_margin), float(new_side), new_value
        if size * np.max(np.abs(step)) < TOLERANCE:
            break
    _, hessian = _derivatives(counts, link, x, margin, side, prior_precision, sided=sided)
    if gauge:
        x = x - x.mean()
    likelihood = value + 0.5 * prior_precision * float(x @ x) + 0.5 * SIDE_PRECISION * side**2
    return Fit(x, margin, likelihood, hessian, side)


def centred(covariance: Floats, core: npt.NDArray[np.bool_]) -> Floats:
    """[M, M] covariance of x minus its mean over the models of `core` [M]: Q V Q^T with Q = I - 1 r^T, r the mean."""
    covariance = covariance - covariance[core].mean(axis=0, keepdims=True)
    covariance = covariance - covariance[:, core].mean(axis=1, keepdims=True)
    return np.asarray(0.5 * (covariance + covariance.T))


def inverse_with_gauge(hessian: Floats, m: int) -> Floats:
    """Inverse of a curvature whose first m unknowns have a free common level: the level gets a unit precision.

    `centred` removes the level again, so its precision is of no consequence.
    """
    system = hessian.copy()
    system[:m, :m] += 1.0 / m
    return np.asarray(np.linalg.inv(system))


def empirical_bayes(counts: PairCounts, link: Link) -> tuple[float, Fit]:
    """The standard deviation of the prior (in units of c) under which the votes are most probable, and the fit with it.

    Maximises Laplace's approximation of the evidence, log P(votes, x, margin at the maximum) + M/2 log p
    - 1/2 log det H with p = 1/sd^2, over sd in [0.01, 10].
    """
    m = counts.n_models
    latest: list[Fit | None] = [None]

    def loss(log_sd: float) -> float:
        p = math.exp(-2.0 * log_sd)
        found = fit(counts, link, prior_precision=p, start=latest[0])
        latest[0] = found
        _, log_det = np.linalg.slogdet(found.hessian)
        return float(0.5 * log_det - found.log_likelihood + 0.5 * p * (found.x @ found.x) + m * log_sd)

    best = minimize_scalar(loss, bounds=SD_BOUNDS, method="bounded", options={"xatol": 1e-4})
    sd = math.exp(float(best.x))
    return sd, fit(counts, link, prior_precision=sd**-2, start=latest[0])


def _objective(
    counts: PairCounts, link: Link, x: Floats, margin: float, side: float, prior_precision: float
) -> float:  # fmt: skip
    d = x[counts.i] - x[counts.j] + side
    value = counts.i_wins @ link.win(d - margin)[0] + counts.j_wins @ link.win(-d - margin)[0]
    if margin > 0:
        value += counts.ties @ link.tie(d, margin)[0]
    return float(value - 0.5 * prior_precision * (x @ x) - 0.5 * SIDE_PRECISION * side**2)


def _derivatives(
    counts: PairCounts, link: Link, x: Floats, margin: float, side: float, prior_precision: float, *, sided: bool
) -> tuple[Floats, Floats]:
    """Gradient and negative Hessian in (x, margin, side); rows of a margin or side that is not there are absent."""
    m, i, j = counts.n_models, counts.i, counts.j
    d = x[i] - x[j] + side
    _, up, up2 = link.win(d - margin)
    _, down, down2 = link.win(-d - margin)
    g = counts.i_wins * up - counts.j_wins * down
    h = -(counts.i_wins * up2 + counts.j_wins * down2)
    size = m + (margin > 0) + sided
    gradient, hessian = np.zeros(size), np.zeros((size, size))

    def by_model(values: Floats) -> Floats:
        return np.asarray(np.bincount(i, values, m) - np.bincount(j, values, m))

    if margin > 0:
        _, t_d, t_m, t_dd, t_dm, t_mm = link.tie(d, margin)
        g = g + counts.ties * t_d
        h = h - counts.ties * t_dd
        gradient[m] = np.sum(counts.ties * t_m - counts.i_wins * up - counts.j_wins * down)
        hessian[m, m] = -np.sum(counts.ties * t_mm + counts.i_wins * up2 + counts.j_wins * down2)
        cross = counts.i_wins * up2 - counts.j_wins * down2 - counts.ties * t_dm
        hessian[m, :m] = hessian[:m, m] = by_model(cross)
        if sided:
            hessian[m, -1] = hessian[-1, m] = np.sum(cross)
    if sided:
        gradient[-1] = np.sum(g) - SIDE_PRECISION * side
        hessian[-1, :m] = hessian[:m, -1] = by_model(h)
        hessian[-1, -1] = np.sum(h) + SIDE_PRECISION
        np.subtract.at(hessian, (i, j), h)
        np.subtract.at(hessian, (j, i), h)
    else:
        hessian[i, j] = hessian[j, i] = -h
    gradient[:m] = by_model(g) - prior_precision * x
    hessian[np.arange(m), np.arange(m)] = np.bincount(i, h, m) + np.bincount(j, h, m) + prior_precision
    return gradient, hessian


def names_outside(component: npt.NDArray[np.int64], models: tuple[str, ...], most: int = 3) -> str:
    """A few names of models that are not in the largest part, for a sentence."""
    outside = [models[k] for k in np.flatnonzero(component != 0)]
    shown = ", ".join(repr(name) for name in outside[:most])
    return shown + (f" and {len(outside) - most} more" if len(outside) > most else "")
