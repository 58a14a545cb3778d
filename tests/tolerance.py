"""Tolerances that follow from what is computed, not from what one processor gave.

A comparison of two computations of the same thing runs in float64 and asks for `DOUBLE`. Where float32 is the point,
every operation is wrong by at most half a unit in the last place, and errors of independent signs add like a random
walk: `rounding(operations)` times the size of what is rounded. Four standard deviations, since the largest of many
numbers is compared.
"""

from __future__ import annotations

import math

SINGLE = 2.0**-24  # relative error of one float32 operation
DOUBLE = 1e-11  # of a network in float64: 2^-53, some thousand operations deep, magnified by softmax and normalisation


def rounding(operations: float, *, size: float = 1.0, unit: float = SINGLE) -> float:
    """What `operations` rounded operations in a row make of a number of this size: 4 sqrt(operations) unit size."""
    return 4 * math.sqrt(operations) * unit * size
