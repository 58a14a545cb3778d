"""Named, counter-based random streams: the only source of randomness.

A stream is a function of a seed and of words, `stream(seed, "noise", pair_id, visit)`, so resuming, accumulating,
another number of workers or of processes cannot change a draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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


def uniforms(seed: int, word: str, ids: Sequence[str], visits: Sequence[int]) -> npt.NDArray[np.float64]:
    """float64 [B] in [0, 1), one per (id, visit): `uniform(seed, word, id, visit)`."""
    return np.array([(key(seed, word, i, v) >> 75) * 2.0**-53 for i, v in zip(ids, visits, strict=True)], np.float64)


def normals(seed: int, word: str, ids: Sequence[str], visits: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Standard normal noise [B, *shape] in float32 on the CPU, one generator per (id, visit)."""
    import torch

    out = torch.empty((len(ids), *shape))
    for row, i, v in zip(out, ids, visits, strict=True):
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(key(seed, word, i, v) & (2**63 - 1)), out=row)
    return out
