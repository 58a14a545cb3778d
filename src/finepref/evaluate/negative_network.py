"""Guidance away from a second network: what the prompt is compared with is not the network's own empty prompt.

    v = v_neg(x, negative prompt) + scale (v(x, prompt) - v_neg(x, negative prompt))

The second network was trained on losers (Diffusion-NPO). Shapes: N images, 2N rows of cat(negative, prompt).
"""

from __future__ import annotations

from typing import Any

import torch

from finepref.core.errors import InputError

PARTS = {
    "StableDiffusionPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "StableDiffusion3Pipeline": "transformer",
}
"""Pipelines that call their denoiser once with negative and prompt, one below the other -> the denoiser's name."""


def guide_away(pipeline: Any, negative: Any) -> None:
    """Let a pipeline take the negative half of its guidance from the denoiser of another one, in place.

    References: Diffusion-NPO (ICLR 2025), G-U-N/Diffusion-NPO, its pipelines with two UNets.

    Raises:
        InputError: a pipeline whose denoiser is not called with both halves, or two of other shapes.
    """
    name = type(pipeline).__name__
    part = PARTS.get(name)
    if part is None:
        what = f"a {name} is not guided by two halves of one call"
        raise InputError(what, where="negative", remedy=f"use it with {', '.join(PARTS)}")
    network, other = getattr(pipeline, part), getattr(negative, part, None)
    if other is None or _shapes(other) != _shapes(network):
        what = f"the {part} of the negative model is not like that of the model"
        raise InputError(what, where="negative", remedy="give a run of the same base")
    plain, away = network.forward, other.to(pipeline.device, pipeline.dtype).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        rows = len(args[0] if args else kwargs["hidden_states"])
        halves = [_half((args, kwargs), rows, start) for start in (0, rows // 2)]
        (first, named), (second, also) = halves
        return (torch.cat([away(*first, **named)[0], plain(*second, **also)[0]]),)

    network.forward = forward


def _shapes(network: Any) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items() if ".lora_" not in name}


def _half(value: Any, rows: int, start: int) -> Any:
    """The first or second half of every tensor that has a row an image."""
    if isinstance(value, torch.Tensor):
        return value[start : start + rows // 2] if value.ndim and len(value) == rows else value
    if isinstance(value, dict):
        return {key: _half(each, rows, start) for key, each in value.items()}
    return tuple(_half(each, rows, start) for each in value) if isinstance(value, tuple) else value
