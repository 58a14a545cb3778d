"""Links: the likelihood of win, loss and tie as a function of a difference, with first and second derivatives.

Differences D and the tie margin m are in units of c, the spread of a performance difference:
P(left) = F(k (D - m)), P(right) = F(k (-D - m)), P(tie) = F(k (m - D)) - F(k (-m - D)).
probit: F = Phi, k = 1. logit: F = logistic, k = 1.702, so that both links put ratings on about the same scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_ndtr

from finepref.arena.normal import Floats, inverse_mills, log_density, log_interval
from finepref.core.errors import check_word

LOGIT_SCALE = 1.702

WinTerms = tuple[Floats, Floats, Floats]
TieTerms = tuple[Floats, Floats, Floats, Floats, Floats, Floats]


@dataclass(frozen=True, slots=True)
class Link:
    """win(x): log F(k x), its first and second derivative in x. tie(D, m): log P and derivatives D, m, DD, Dm, mm."""

    name: str
    win: Callable[[Floats], WinTerms]
    tie: Callable[[Floats, float], TieTerms]


def _probit_win(x: Floats) -> WinTerms:
    mills = inverse_mills(x)
    return log_ndtr(x), mills, -mills * (mills + x)


def _probit_tie(d: Floats, m: float) -> TieTerms:
    a, b = -m - d, m - d
    log_p = log_interval(a, b)
    g, h = np.exp(log_density(b) - log_p), np.exp(log_density(a) - log_p)
    in_d, in_m = h - g, h + g
    dd, dm, mm = a * h - b * g, b * g + a * h, a * h - b * g
    return log_p, in_d, in_m, dd - in_d * in_d, dm - in_d * in_m, mm - in_m * in_m


def _logit_win(x: Floats) -> WinTerms:
    k = LOGIT_SCALE
    p = expit(k * x)
    return -np.logaddexp(0.0, -k * x), k * expit(-k * x), -k * k * p * (1.0 - p)


def _logit_tie(d: Floats, m: float) -> TieTerms:
    k = LOGIT_SCALE
    p, q = expit(k * (m - d)), expit(k * (m + d))
    log_p = -np.logaddexp(0.0, -k * (m - d)) - np.logaddexp(0.0, -k * (m + d)) + np.log(-np.expm1(-2.0 * k * m))
    rest = 2.0 * k / np.expm1(2.0 * k * m)
    rest_slope = -rest * (2.0 * k + rest)
    pp, qq = k * k * p * (1.0 - p), k * k * q * (1.0 - q)
    return log_p, k * (p - q), k * (2.0 - p - q) + rest, -pp - qq, pp - qq, rest_slope - pp - qq


LINKS = {"probit": Link("probit", _probit_win, _probit_tie), "logit": Link("logit", _logit_win, _logit_tie)}


def get_link(name: str) -> Link:
    """The link of that name."""
    check_word(name, LINKS, "link")
    return LINKS[name]


def p_left_decisive(link: Link, difference: Floats, margin: float) -> Floats:
    """P(left | not a tie) = F(D - m) / (F(D - m) + F(-D - m)); difference and margin in units of c."""
    left, right = link.win(difference - margin)[0], link.win(-difference - margin)[0]
    return np.asarray(expit(left - right))
