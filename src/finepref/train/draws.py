"""Which pair comes when, and every random number of a draw, as functions of (seed, pair_id, visit).

The seeded global order fixes the pairs of every optimiser step; processes and micro-batches take slices of it. So
resuming, accumulation, the number of processes and of workers change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from finepref.core import rng
from finepref.diffusion.path import Path


@dataclass(frozen=True, slots=True)
class Draw:
    """One row of the order: index into the table, and how often that row was drawn before."""

    index: int
    visit: int


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return rng.numpy_generator(seed, "order", epoch).permutation(count)


def pair_order(seed: int, *, count: int, step: int, per_step: int) -> list[Draw]:
    """The draws of optimiser step `step` (from 0): every epoch is one seeded permutation of all `count` rows."""
    positions = range(step * per_step, (step + 1) * per_step)
    return [Draw(int(_permutation(seed, k // count, count)[k % count]), k // count) for k in positions]


def image_order(seed: int, *, desirable: np.ndarray, ratio: float, step: int, per_step: int) -> list[Draw]:
    """The draws of an unpaired step: with replacement, a desirable image with probability `ratio`.

    Args:
        desirable: [n] bool, the label of every image; both kinds must occur.
        ratio: share of desirable images among the draws, in [0, 1].
    References: Diffusion-KTO, weighted sampling of images (gamma = 0.8).
    """
    groups = np.flatnonzero(~desirable), np.flatnonzero(desirable)
    draws = []
    for k in range(step * per_step, (step + 1) * per_step):
        group = groups[int(rng.uniform(seed, "label", k) < ratio)]
        draws.append(Draw(int(group[int(rng.uniform(seed, "image", k) * len(group))]), k))
    return draws


def share(draws: Sequence[Draw], *, rank: int, world: int) -> list[int]:
    """The positions inside a step that process `rank` of `world` works on: every world-th of them."""
    return list(range(rank, len(draws), world))


def uniforms(seed: int, word: str, ids: Sequence[str], visits: Sequence[int]) -> np.ndarray:
    """float64 [B] in [0, 1), one per (id, visit)."""
    return np.array([rng.uniform(seed, word, i, v) for i, v in zip(ids, visits, strict=True)], dtype=np.float64)


BLOCK = 64


def strata(seed: int, *, step: int, per_step: int, positions: Sequence[int], u: np.ndarray) -> np.ndarray:
    """Stratify uniforms over an optimiser step: position p gets (stratum(p) + u) / per_step.

    Every block of 64 positions has 64 neighbouring strata, blocks shuffled, and shuffled inside: processes that take
    every n-th position get nearly equal levels, and so, where they invert, nearly equal work.
    """
    draw = rng.numpy_generator(seed, "strata", step)
    blocks = [draw.permutation(np.arange(start, min(start + BLOCK, per_step))) for start in range(0, per_step, BLOCK)]
    shuffled = np.concatenate([blocks[k] for k in draw.permutation(len(blocks))])
    return (shuffled[np.asarray(positions, dtype=np.int64)] + u) / per_step


def times(path: Path, u: np.ndarray, *, lowest: int) -> Tensor:
    """Levels t [B] from uniforms [B] (`Path.draw_t`)."""
    return path.draw_t(torch.from_numpy(np.ascontiguousarray(u)), lowest=lowest)


def normals(
    seed: int,
    word: str,
    ids: Sequence[str],
    visits: Sequence[int],
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise [B, *shape] on the CPU, one generator per (id, visit)."""
    if not ids:
        return torch.empty((0, *shape), dtype=dtype)
    rows = [
        torch.randn(tuple(shape), generator=rng.torch_generator(seed, word, i, v), dtype=dtype)
        for i, v in zip(ids, visits, strict=True)
    ]
    return torch.stack(rows)
