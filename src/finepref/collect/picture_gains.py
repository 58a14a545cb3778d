"""How much the votes on pictures tell of each picture's own quality, whatever they say.

In units of c, the quality of a picture varies around that of its model by N(0, rho/2), and a vote's noise by
N(0, 1 - rho). Of what is not known of a difference, the sign of an even vote explains 2/pi. That a vote on equals tells
most is left out on purpose: with few votes a prompt, gaps from votes on close pictures were worse on human scores
(benchmarks/next_pictures.py).
"""

from __future__ import annotations

import math

import numpy as np

from finepref.arena.normal import Floats

RHO = 0.5
"""Share of the noise of a performance that belongs to the picture, where nobody says better."""
EVEN = 2.0 / math.pi


def picture_gains(variance: Floats, share: float) -> Floats:
    """[n, n] what a vote on two of n pictures tells of their difference, in nats; 0 on the diagonal.

    Args:
        variance: [n] of their qualities. share: what a comparison tells, of a vote of its own.
    """
    both = variance[:, None] + variance
    found = -0.5 * np.log1p(-share * EVEN * both / (both + 1.0 - RHO))
    np.fill_diagonal(found, 0.0)
    return np.asarray(found)


def picture_precision(variance: Floats, share: float) -> Floats:
    """[n] precision that a set of n pictures adds to each, the sum over its pairs as sites of `arena.image.infer`."""
    shrink = share * EVEN / (variance[:, None] + variance + 1.0 - RHO)
    np.fill_diagonal(shrink, 0.0)
    return np.asarray((shrink / (1.0 - variance[:, None] * shrink)).sum(axis=1))
