"""SmPO's smoothed preference: a reward model says who won and how sure one may be.

Shapes: n pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError

Floats = npt.NDArray[np.float64]

# Extremes over all images of Pick-a-Pic v2, raw PickScore cosines (constants of the official code).
PICKSCORE_EXTREMES = (0.11543526500463486, 0.28201571106910706)
GAMMA = 10.0  # hard-coded in the official code; the paper's best


@dataclass(frozen=True, slots=True)
class Smoothed:
    """winner: [n] int8 (0|1), image 1 where equal. p_win: [n] in [0.5, 0.7311]. weight: [n] in [0, 0.4621 gamma]."""

    winner: npt.NDArray[np.int8]
    p_win: Floats
    weight: Floats


def extremes(scores: npt.ArrayLike, *, quantile: float = 0.0) -> tuple[float, float]:
    """(low, high) of the finite scores of all images; with `quantile` q the q and 1-q quantiles instead of min and max.

    quantile: in [0, 0.5).

    Raises:
        InputError: scores that do not differ.
    """
    values = np.asarray(scores, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        raise InputError("no image has a score", where="rewards", remedy="score the images first")
    low, high = (float(v) for v in np.quantile(values, [quantile, 1.0 - quantile]))
    if high <= low:
        raise InputError("all scores are equal, so they say nothing", where="rewards")
    return low, high


def smoothed(
    score_0: npt.ArrayLike, score_1: npt.ArrayLike, *, low: float, high: float, gamma: float = GAMMA
) -> Smoothed:
    """Winner by reward, and a weight that grows with the difference of the rewards.

        r' = (r - low) / (high - low), clipped to [0, 1];  p = sigmoid(r'_w - r'_l);  weight = gamma (2p - 1)

    Args:
        score_0, score_1: [n] rewards of image 0 and 1, higher is better.
        low, high: extremes over all images of the data set (`extremes`), or PICKSCORE_EXTREMES.
        gamma: >= 0; 0 switches every pair off.

    Returns:
        `Smoothed`; equal rewards have weight 0 and image 1 as winner.

    Raises:
        InputError: high <= low, negative gamma, or a score that is not finite.

    References: SmPO-Diffusion Eq. 8-12; JaydenLyh/SmPO train.py:739-747, 1061.
    Deviations: float64 closed form; scores beyond the extremes are clipped (only where quantiles or foreign extremes
        are used).
    """
    if high <= low:
        raise InputError(f"high {high} is not above low {low}", where="reward extremes")
    if gamma < 0:
        raise InputError(f"gamma {gamma} is negative", where="gamma")
    first, second = (np.asarray(score, dtype=np.float64) for score in (score_0, score_1))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("a score is not finite", where="rewards", remedy="drop that pair")
    winner = np.where(first > second, 0, 1).astype(np.int8)
    difference = np.abs(np.clip((first - low) / (high - low), 0, 1) - np.clip((second - low) / (high - low), 0, 1))
    return Smoothed(winner=winner, p_win=1.0 / (1.0 + np.exp(-difference)), weight=gamma * np.tanh(difference / 2))
