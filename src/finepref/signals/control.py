"""Controls of a signal: the same margins and weights without what they say of their own pair.

A method stands on what its signal knows of every pair only where it beats both: dealt to other pairs at random, and
their mean for every pair. Who won, and the labels of single images, stay.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError, check_word
from finepref.core.rng import numpy_generator
from finepref.formats.signals import Signals

CONTROLS = ("permute", "constant")


def controlled(signals: Signals, control: str, *, seed: int = 0) -> Signals:
    """The signal with margins and weights that tell nothing of their pair; `meta` says so. The order of pairs is of no
    effect.

    Args:
        signals: n pairs. control: "permute": margins (of winner and loser) and weight of another pair, each pair's
            dealt once; "constant": the mean of all pairs. seed: of the dealing.

    Raises:
        InputError: margins and weights are the same for every pair, so that there is nothing to deal.
    """
    check_word(control, CONTROLS, "control")
    first = signals.winner == 0
    won = np.where(first, signals.margin_0, signals.margin_1)
    lost = np.where(first, signals.margin_1, signals.margin_0)
    if len(signals) > 1 and not any(np.ptp(each[np.isfinite(each)]) > 0 for each in (won, lost, signals.weight)):
        what = "margins and weights are the same for every pair, so a control has no effect"
        raise InputError(what, where="control", remedy="leave it out, or name a kind that tells pairs apart")
    if control == "permute":
        order = np.argsort(np.array([*signals.pair_id], dtype=object), kind="stable")
        rows = np.empty(len(order), dtype=np.int64)
        rows[order] = order[numpy_generator(seed, "signal control").permutation(len(signals))]
        won, lost, weight = won[rows], lost[rows], signals.weight[rows]
    else:
        won, lost, weight = (_mean(values) for values in (won, lost, signals.weight))
    return replace(
        signals,
        margin_0=np.where(first, won, lost),
        margin_1=np.where(first, lost, won),
        weight=weight,
        meta={**signals.meta, "control": control, **({"control_seed": seed} if control == "permute" else {})},
    )


def _mean(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    known = values[np.isfinite(values)].astype(np.float64)
    return np.full_like(values, known.mean() if len(known) else np.nan)
