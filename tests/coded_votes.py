"""Votes from codes, for tests that draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from finepref import Votes


def coded(left: Any, right: Any, outcome: Any, *, models: Sequence[str], **named: Any) -> Votes:
    """left, right [n] below len(models); outcome [n]: +1 left, 0 tie, -1 right; named: the other fields of `Votes`."""
    arrays = {name: np.asarray(value) if name not in ("games", "voters") else value for name, value in named.items()}
    return Votes(tuple(models), np.asarray(left), np.asarray(right), np.asarray(outcome), **arrays)
