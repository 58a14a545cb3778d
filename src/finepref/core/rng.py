"""Named, counter-based random streams: the only source of randomness.

A stream is a function of a seed and of words, `stream(seed, "noise", pair_id, visit)`, so resuming, accumulating,
another number of workers or of processes cannot change a draw.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def key(seed: int, *words: object) -> int:
    """A 128-bit key of a seed and words: the same on every machine, and different for ("a", "b") and ("ab",)."""
    text = "\x1f".join([str(int(seed)), *(f"{type(word).__name__}:{word}" for word in words)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def numpy_generator(seed: int, *words: object) -> np.random.Generator:
    """A fresh numpy generator (Philox) for the stream `(seed, *words)`."""
    return np.random.Generator(np.random.Philox(key=key(seed, *words)))


def torch_generator(seed: int, *words: object) -> torch.Generator:
    """A fresh CPU torch generator for the stream `(seed, *words)`; draw on CPU, then move to the device."""
    import torch

    return torch.Generator().manual_seed(key(seed, *words) & (2**63 - 1))


def uniform(seed: int, *words: object) -> float:
    """One float64 in [0, 1), a function of the stream's name alone."""
    return (key(seed, *words) >> 75) * 2.0**-53
