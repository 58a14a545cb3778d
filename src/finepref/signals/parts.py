"""What each kind of signal says about every vote, before the kinds are put together.

Shapes: n votes of the file, ties and unscored ones included; nan (or -1 for labels) where a kind says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError
from finepref.signals.smooth import GAMMA, extremes, smoothed

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]
TIE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind's share of the signal; None where it leaves the default.

    winner: [n] int8. margin_0, margin_1: [n] margin if image 0 / image 1 is the winner. weight: [n].
    label_0, label_1: [n] int8, 1 desirable, 0 undesirable, -1 neither. meta: what to keep in the footer.
    """

    winner: Codes | None = None
    margin_0: Floats | None = None
    margin_1: Floats | None = None
    weight: Floats | None = None
    label_0: Codes | None = None
    label_1: Codes | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


def voted(label: npt.ArrayLike) -> Codes:
    """Winner by vote: 0 where P(image 0 preferred) is 1, 1 where it is 0, -1 for a tie or no vote.

    Raises:
        InputError: a label that is none of 1, 0.5, 0 and nan.
    """
    values = np.asarray(label, dtype=np.float64)
    known = np.isnan(values) | np.isin(values, (0.0, TIE, 1.0))
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise InputError(f"label {values[row]} is none of 1, 0.5, 0", where=f"row {row}", remedy="correct that row")
    return np.where(values == 1.0, 0, np.where(values == 0.0, 1, -1)).astype(np.int8)


def uniform(count: int, *, margin: float) -> Part:
    """One margin for every pair (ArenaPO Appendix D: 0.5, 1, 2, 3, 4)."""
    sides = np.full(count, float(margin))
    return Part(margin_0=sides, margin_1=sides.copy(), meta={"margin": float(margin)})


def _scored(score_0: npt.ArrayLike, score_1: npt.ArrayLike) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    first, second = (np.asarray(score, dtype=np.float64) for score in (score_0, score_1))
    return first, second, np.isfinite(first) & np.isfinite(second)


def reward_margin(score_0: npt.ArrayLike, score_1: npt.ArrayLike) -> Part:
    """m = (r_w - r_l) / sd, z-scored rewards of the winner and the loser; negative where the reward disagrees.

    sd is taken over all scored images. Pairs with a missing score have nan.

    References: ArenaPO Appendix F ("ImageReward as reward model"; the text gives no mechanism, this is our default).
    """
    first, second, both = _scored(score_0, score_1)
    known = np.concatenate([first[both], second[both]])
    spread = float(known.std()) if len(known) else 0.0
    if spread <= 0:
        raise InputError("all scores are equal or missing, so they say nothing", where="rewards")
    difference = np.where(both, (first - second) / spread, np.nan)
    return Part(margin_0=difference, margin_1=-difference, meta={"reward_sd": spread})


def relabel(score_0: npt.ArrayLike, score_1: npt.ArrayLike) -> Part:
    """Winner by reward (official `choice_model`); -1 where a score is missing or both are equal."""
    first, second, both = _scored(score_0, score_1)
    winner = np.where(first > second, 0, 1).astype(np.int8)
    return Part(winner=np.where(both & (first != second), winner, -1).astype(np.int8))


def smooth(
    score_0: npt.ArrayLike,
    score_1: npt.ArrayLike,
    *,
    gamma: float = GAMMA,
    quantile: float = 0.0,
    limits: tuple[float, float] | None = None,
) -> Part:
    """SmPO: winner and weight by reward (`smoothed`).

    limits: (low, high) instead of the extremes of these scores (quantile then must be 0).
    """
    first, second, both = _scored(score_0, score_1)
    if limits is not None and quantile != 0.0:
        raise InputError("quantile has no effect beside given extremes", where="--quantile", remedy="leave one out")
    low, high = limits if limits is not None else extremes(np.concatenate([first, second]), quantile=quantile)
    winner, weight = np.full(len(first), -1, dtype=np.int8), np.full(len(first), np.nan)
    found = smoothed(first[both], second[both], low=low, high=high, gamma=gamma)
    winner[both], weight[both] = found.winner, found.weight
    meta = {"reward_low": low, "reward_high": high, "gamma": gamma, "quantile": quantile}
    return Part(winner=winner, weight=weight, meta=meta)


def desirable(label: npt.ArrayLike, image_0: Sequence[str], image_1: Sequence[str], *, rule: str = "any_win") -> Part:
    """KTO labels of both images of every vote.

    any_win: an image that won at least once is desirable, one that only lost is not (published). only_wins: desirable
    if it won and never lost, undesirable if it lost and never won, neither otherwise. per_pair: the winner of this very
    vote is desirable, its loser not. Images seen in ties alone are neither.

    Args:
        label: [n] P(image 0 preferred). image_0, image_1: [n] names; equal names are the same image.

    References: Diffusion-KTO, image labels of Pick-a-Pic v2 (237,530 desirable, 690,538 undesirable).
    """
    winner = voted(label)
    won_0, lost_0 = winner == 0, winner == 1
    if rule == "per_pair":
        label_0 = np.where(won_0, 1, np.where(lost_0, 0, -1)).astype(np.int8)
        return Part(label_0=label_0, label_1=np.where(label_0 < 0, -1, 1 - label_0).astype(np.int8))
    names, codes = np.unique(np.concatenate([np.asarray(image_0, object), np.asarray(image_1, object)]).astype(str),
                             return_inverse=True)  # fmt: skip
    left, right = codes[: len(winner)], codes[len(winner) :]
    wins = np.bincount(np.concatenate([left[won_0], right[lost_0]]), minlength=len(names)) > 0
    losses = np.bincount(np.concatenate([left[lost_0], right[won_0]]), minlength=len(names)) > 0
    if rule == "any_win":
        of_image = np.where(wins, 1, np.where(losses, 0, -1)).astype(np.int8)
    else:
        of_image = np.where(wins & ~losses, 1, np.where(losses & ~wins, 0, -1)).astype(np.int8)
    counts = {"desirable_images": int((of_image == 1).sum()), "undesirable_images": int((of_image == 0).sum())}
    return Part(label_0=of_image[left], label_1=of_image[right], meta={"desirable": rule, **counts})
