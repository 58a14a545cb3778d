"""A small nonlinear denoiser with conditions, for tests of trajectories and objectives; batch rows do not interact."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from finepref.core import rng

CHANNELS = 2


class SmallNetwork:
    """tanh(W x + (t / scale) b + c + condition[row]), pixel by pixel; `sizes` lists the rows of every call."""

    def __init__(self, seed: int, *, scale: float = 1000.0, conditions: Tensor | None = None) -> None:
        def normal(word: str, *shape: int) -> Tensor:
            return torch.randn(shape, generator=rng.torch_generator(seed, word), dtype=torch.float64)

        self.weight = (0.5 * torch.eye(CHANNELS) + 0.15 * normal("W", CHANNELS, CHANNELS)).requires_grad_(True)
        self.bias, self.shift, self.scale = 0.3 * normal("b", CHANNELS), 0.1 * normal("c", CHANNELS), scale
        self.conditions = conditions
        self.sizes: list[int] = []
        self.seen: list[tuple[list[float], list[int]]] = []

    def __call__(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """The prediction at x [N,C,H,W]."""
        self.sizes.append(x.shape[0])
        self.seen.append((t.tolist(), rows.tolist()))
        level = (t.to(x.dtype) / self.scale)[:, None] * self.bias.to(x.dtype) + self.shift.to(x.dtype)
        if self.conditions is not None:
            level = level + self.conditions[rows].to(x.dtype)
        mixed = (self.weight.to(x.dtype)[None, :, :, None, None] * x[:, None]).sum(2)
        return torch.tanh(mixed + level[:, :, None, None])


def latents(seed: int, pairs: int, *words: object, dtype: torch.dtype = torch.float64) -> Tensor:
    """[B,2,3,3] normal latents."""
    generator = rng.torch_generator(seed, "latents", *words)
    return torch.randn((pairs, CHANNELS, 3, 3), generator=generator, dtype=torch.float64).to(dtype)


def keyed_draw(seed: int, pair_ids: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Fresh noise that depends on (pair, side, step) only."""

    def draw(rows: Tensor, steps: Tensor) -> Tensor:
        made = [
            torch.randn(
                (CHANNELS, 3, 3),
                generator=rng.torch_generator(seed, "eta", pair_ids[row % len(pair_ids)], row // len(pair_ids), step),
                dtype=torch.float64,
            )
            for row, step in zip(rows.tolist(), steps.tolist(), strict=True)
        ]
        return torch.stack(made)

    return draw
