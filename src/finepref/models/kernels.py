"""How fast a network runs: checkpointing, memory layout, compilation. Nothing here changes a number beyond rounding."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from finepref.core.errors import ConfigError

Checkpointing = bool | Literal["selective"]


def use_checkpointing(network: Any, how: Checkpointing) -> None:
    """Recompute blocks in backward instead of keeping their activations: every block, or every second (selective)."""
    if how == "selective":
        network.enable_gradient_checkpointing(_every_second())
    elif how:
        network.enable_gradient_checkpointing()


def _every_second() -> Any:
    order: dict[int, int] = {}

    def run(block: nn.Module, *arguments: Any) -> Any:
        number = order.setdefault(id(block), len(order))
        return checkpoint(block, *arguments, use_reentrant=False) if number % 2 == 0 else block(*arguments)

    return run


def use_channels_last(network: nn.Module, *, family: str, part: str) -> None:
    """Lay convolution weights out as N H W C; activations follow them.

    Raises:
        ConfigError: the denoiser is a transformer, where the layout has no effect.
    """
    if part != "unet":
        what = f"it lays out convolutions, and the denoiser of {family} is a transformer"
        raise ConfigError(what, where="train.channels_last", remedy="remove it")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
