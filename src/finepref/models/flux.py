"""FLUX.1: transformer on packed 16-channel latents, flow matching, CLIP (pooled) and T5.

Shapes: N images, C channels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finepref.models.family import Cond, Family, hidden, image_labels
from finepref.models.sd3 import ATTENTION, shapes

TOKENS = 512
GUIDANCE = 3.5  # the guidance label of distilled checkpoints (FLUX.1-dev): what its pipeline samples with


def pack(x: Tensor) -> Tensor:
    """[N,C,h,w] -> tokens [N, h/2 * w/2, 4C], 2 x 2 patches."""
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpack(tokens: Tensor, h: int, w: int) -> Tensor:
    """Inverse of `pack`."""
    n, _, c = tokens.shape
    return tokens.view(n, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, c // 4, h, w)


def positions(h: int, w: int, device: torch.device) -> Tensor:
    """Patch positions [h/2 * w/2, 3] = (0, row, column)."""
    rows, columns = torch.meshgrid(torch.arange(h // 2), torch.arange(w // 2), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).view(-1, 3)
    return ids.to(device, torch.float32, non_blocking=True)


def call(transformer: nn.Module, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """Velocity eps - x0 at x [N,C,h,w], s [N] in (0,1] (the network scales it by 1000 itself)."""
    h, w = x.shape[-2:]
    config: Any = transformer.config
    guidance = x.new_full((x.shape[0],), GUIDANCE, dtype=torch.float32) if config.guidance_embeds else None
    velocity: Tensor = transformer(
        hidden_states=pack(x),
        timestep=image_labels(t, x),
        guidance=guidance,
        pooled_projections=cond["pooled"],
        encoder_hidden_states=cond["prompt_embeds"],
        txt_ids=x.new_zeros((cond["prompt_embeds"].shape[1], 3), dtype=torch.float32),
        img_ids=positions(h, w, x.device),
        return_dict=False,
    )[0]
    return unpack(velocity, h, w)


def encode(pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
    """The pipeline's own encoding: T5 states of 512 tokens, pooled CLIP output."""
    embeds, pooled, _ = pipe.encode_prompt(
        list(prompts), None, device=pipe.text_encoder.device, max_sequence_length=TOKENS
    )
    return {"prompt_embeds": embeds, "pooled": pooled}


FAMILY = Family(
    name="flux",
    pipelines=("FluxPipeline",),
    call=call,
    encode=encode,
    texts=(("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")),
    shapes=lambda config: shapes(config, tokens=TOKENS),
    widths=lambda encoders: {
        "prompt_embeds": hidden(encoders["text_encoder_2"]),
        "pooled": hidden(encoders["text_encoder"]),
    },
    packed=4,
    scale=("scaling_factor", "shift_factor"),
    undone=("scaling_factor", "shift_factor"),
    lora_targets=ATTENTION,
    patch=2,
    settings={"tokens": TOKENS},
)
