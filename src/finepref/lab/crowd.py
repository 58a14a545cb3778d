"""Simulated voters: Thurstone noise on the true quality, a zone where they see no difference, tastes of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finepref.core import rng
from finepref.lab.world import RMS_UNIT, TASTE, Judgement

Floats = NDArray[np.float64]
VOTES = "simulated votes on images of the lab world"
"""What a file of their votes says that it is."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """V voters. taste: [V,3] weights of size, centred, vivid. noise: [V] standard deviation of one look at a pair.

    zone: [V]; a voter calls a tie when the difference seen is smaller.
    """

    taste: Floats
    noise: Floats
    zone: Floats


def crowd(seed: int, *, voters: int = 40) -> Crowd:
    """Voters that differ a little: taste by 20 %, noise and tie zone by 25 % (all log-normal, median as documented).

    Median noise 1 (the unit of the true quality), median tie zone 0.2.
    """
    draws = rng.numpy_generator(seed, "lab voters")
    taste = np.array(list(TASTE.values())) * np.exp(0.2 * draws.standard_normal((voters, len(TASTE))))
    noise = np.exp(0.25 * draws.standard_normal(voters))
    zone = 0.2 * np.exp(0.25 * draws.standard_normal(voters))
    return Crowd(taste, noise, zone)


def vote(
    crowd: Crowd, truth: Judgement, left: NDArray[np.int64], right: NDArray[np.int64], *, seed: int
) -> tuple[NDArray[np.int64], Floats]:
    """Cast one vote a pair, each by a random voter.

        seen = q_v(left) - q_v(right) + noise_v * N(0, 1);   left wins if seen > zone_v, right if seen < -zone_v

    Args:
        crowd: the voters.
        truth: parts of the true quality of N images.
        left, right: [M] image numbers.
        seed: decides voters and noise.

    Returns:
        voter [M] int64, and the left image's share [M]: 1 won, 0 lost, 0.5 tie.
    """
    draws = rng.numpy_generator(seed, "lab ballots")
    who = draws.integers(len(crowd.noise), size=len(left))
    parts = np.stack([truth.size, truth.centred, truth.vivid], axis=1)
    difference = (crowd.taste[who] * (parts[left] - parts[right])).sum(1)
    difference -= (truth.rms[left] - truth.rms[right]) / RMS_UNIT
    seen = difference + crowd.noise[who] * draws.standard_normal(len(left))
    share = np.where(abs(seen) < crowd.zone[who], 0.5, (seen > 0).astype(np.float64))
    return who.astype(np.int64), share
