"""Put kinds of signal together: one winner, margin, weight and label for every pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError
from finepref.formats.signals import TYPES, Signals, signals_of
from finepref.signals.parts import TIE, Part, voted


def combine(pair_id: Sequence[str], label: npt.ArrayLike, parts: Mapping[str, Part]) -> Signals:
    """Put kinds together: votes decide the winner unless a kind does; weight 1 and margin 0 unless a kind sets them.

    Pairs without a winner (ties, equal rewards) and pairs for which a kind has no value are left out and counted in
    `meta`. When a reward decides the winner, ties of the voters are left out too (published practice), pairs that
    nobody voted on are used, and the margin is that of the winner that is used.

    Args:
        pair_id: [n] distinct ids. label: [n] P(image 0 preferred) in {1, 0.5, 0}, nan for no vote. parts: kind -> Part.

    Raises:
        InputError: two kinds set the same thing, one not for every vote; a pair id twice; nothing left.
    """
    winner = voted(label)
    ties = np.asarray(label, dtype=np.float64) == TIE
    count = len(winner)
    if len(set(pair_id)) != len(pair_id):
        raise InputError("a pair id occurs twice", where="pair_id", remedy="name a column with unique ids")
    columns: dict[str, npt.NDArray[Any]] = {}
    set_by: dict[str, str] = {}
    for kind, part in parts.items():
        for name in TYPES:
            value = getattr(part, name)
            if value is None:
                continue
            if np.shape(value) != (count,):
                what = f"it gives {np.shape(value)} values of {name} for {count} votes"
                raise InputError(what, where=f"--kind {kind}", remedy="give one a vote")
            if name in set_by:
                what = name.split("_")[0]
                raise InputError(f"kinds {set_by[name]} and {kind} both set the {what}", remedy="leave one of them out")
            set_by[name], columns[name] = kind, value
    own = {f"{kind}.{key}": value for kind, part in parts.items() for key, value in part.meta.items()}
    whole = signals_of([str(pair) for pair in pair_id], {"winner": winner, **columns}, own)
    undecided = ~ties & (whole.winner < 0)
    missing = ~ties & ~undecided & ~(np.isfinite(whole.margin) & np.isfinite(whole.weight))
    keep = np.flatnonzero(~(ties | undecided | missing))
    counts = {"votes": count, "pairs": len(keep), "ties": int(ties.sum()), "no_value": int((undecided | missing).sum())}
    if not len(keep):
        raise InputError(f"no pair is left of {count} votes ({counts['ties']} ties)", remedy="check votes and rewards")
    return replace(whole.take(keep), meta={"kinds": list(parts) or ["binary"], **counts, **own})
