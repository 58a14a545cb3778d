"""The online Gaussian engine: one pass of exact moment matching, vote by vote (ArenaPO Appendix A).

A model's rating is N(mu, sigma^2), its performance in one vote N(rating, beta^2). After each vote the two ratings are
replaced by Gaussians with the mean and variance of the exact posterior. With tau > 0 the ratings keep moving for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, exp, pi, sqrt

import numpy as np
from scipy.special import erfcx

from finepref.arena.normal import SQRT_2, Floats, quantile
from finepref.arena.ratings import BETA, MU0, SIGMA0
from finepref.core.errors import check_word

_R2 = sqrt(2.0)
_ROOT_2_OVER_PI = sqrt(2.0 / pi)
_ROOT_PI_OVER_2 = sqrt(pi / 2.0)


@dataclass(frozen=True, slots=True)
class Preset:
    """tau: random walk per vote. draw_probability: sets the draw margin. ties: what a tie does (draw|skip|half)."""

    name: str
    tau: float
    draw_probability: float
    ties: str

    @property
    def draw_margin(self) -> float:
        """eps = Phi^-1((p + 1)/2) sqrt(2) beta: at equal ratings a share p of the votes are ties."""
        return quantile(0.5 * (self.draw_probability + 1.0)) * SQRT_2 * BETA


PRESETS = {
    "ksort": Preset("ksort", tau=25.0 / 300.0, draw_probability=0.1, ties="draw"),
    "appendix_a": Preset("appendix_a", tau=0.0, draw_probability=0.0, ties="skip"),
}
TIES = ("draw", "skip", "half")


def get_preset(name: str) -> Preset:
    """The preset of that name."""
    check_word(name, PRESETS, "preset")
    return PRESETS[name]


def win_moments(t: float) -> tuple[float, float]:
    """V = phi(t)/Phi(t) and W = V (V + t) for a win; t = (mu_w - mu_l - eps)/c."""
    v = _ROOT_2_OVER_PI * exp(-0.5 * t * t) / erfc(-t / _R2) if t > -8.0 else _ROOT_2_OVER_PI / float(erfcx(-t / _R2))
    return v, v * (v + t)


def draw_moments(t: float, k: float) -> tuple[float, float]:
    """V and W for a draw; t = (mu_left - mu_right)/c, k = eps/c.

    D = Phi(k-t) - Phi(-k-t), V = (phi(-k-t) - phi(k-t))/D, W = V^2 + ((k-t) phi(k-t) + (k+t) phi(k+t))/D; for k = 0 the
    limit V = -t, W = 1.
    """
    if k == 0.0:
        return -t, 1.0
    a = abs(t)  # everything relative to phi(a), so that far differences do not underflow
    near, far = exp(-0.5 * k * k + k * a), exp(-0.5 * k * k - k * a)
    if a < 6.0:
        mass = 0.5 * (erfc((a - k) / _R2) - erfc((a + k) / _R2)) * exp(0.5 * a * a) * sqrt(2.0 * pi)
    else:
        mass = _ROOT_PI_OVER_2 * (float(erfcx((a - k) / _R2)) * near - float(erfcx((a + k) / _R2)) * far)
    v = (far - near) / mass
    w = v * v + ((k - a) * near + (k + a) * far) / mass
    return (v if t >= 0.0 else -v), w


def run_votes(
    left: list[int],
    right: list[int],
    outcome: list[int],
    mu: Floats,
    sigma: Floats,
    *,
    tau: float,
    draw_margin: float,
    beta: float = BETA,
    ties: str = "draw",
) -> tuple[Floats, Floats]:
    """Ratings after these votes in this order, from ratings `mu`, `sigma` [M]. A model against itself changes nothing.

    ties: "draw" uses the draw likelihood, "skip" leaves ties out, "half" applies the mean of the win's and the loss's
    update.
    """
    m, var = mu.tolist(), (sigma * sigma).tolist()
    noise, walk, eps, skip = 2.0 * beta * beta + 2.0 * tau * tau, tau * tau, draw_margin, ties == "skip"
    for a, b, won in zip(left, right, outcome, strict=True):
        if a == b:
            continue
        if won == -1:
            a, b = b, a
        elif won == 0:
            if not skip:
                _tie(m, var, a, b, noise=noise, walk=walk, eps=eps, half=ties == "half")
            continue
        va, vb = var[a], var[b]
        c2 = noise + va + vb
        c = sqrt(c2)
        t = (m[a] - m[b] - eps) / c
        v = _ROOT_2_OVER_PI * exp(-0.5 * t * t) / erfc(-t / _R2) if t > -8.0 else win_moments(t)[0]
        w = v * (v + t) / c2
        v /= c
        va += walk
        vb += walk
        m[a] += va * v
        m[b] -= vb * v
        var[a] = va * (1.0 - va * w)
        var[b] = vb * (1.0 - vb * w)
    return np.array(m), np.sqrt(np.array(var))


def _tie(
    m: list[float], var: list[float], a: int, b: int, *, noise: float, walk: float, eps: float, half: bool
) -> None:
    va, vb = var[a] + walk, var[b] + walk
    c2 = noise + var[a] + var[b]
    c = sqrt(c2)
    t = (m[a] - m[b]) / c
    if half:
        v1, w1 = win_moments(t - eps / c)
        v2, w2 = win_moments(-t - eps / c)
        v, w = 0.5 * (v1 - v2), 0.5 * (w1 + w2)
    else:
        v, w = draw_moments(t, eps / c)
    m[a] += va / c * v
    m[b] -= vb / c * v
    var[a] = va * (1.0 - va / c2 * w)
    var[b] = vb * (1.0 - vb / c2 * w)


def start(n_models: int) -> tuple[Floats, Floats]:
    """[M] mu = 25 and [M] sigma = 25/3."""
    return np.full(n_models, MU0), np.full(n_models, SIGMA0)
