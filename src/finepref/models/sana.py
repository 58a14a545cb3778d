"""SANA: linear-attention transformer on 32-channel f32 latents of a deterministic autoencoder, flow matching, Gemma.

Shapes: N images, C channels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finepref.models.family import Cond, Family, image_labels

TOKENS = 300


def call(transformer: nn.Module, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """Velocity eps - x0 at x [N,C,h,w], s [N] in (0,1] (the network's label is 1000 s times its timestep_scale)."""
    config: Any = transformer.config
    return transformer(
        x,
        encoder_hidden_states=cond["prompt_embeds"],
        encoder_attention_mask=cond["prompt_mask"],
        timestep=image_labels(t, x) * 1000.0 * config.timestep_scale,
        return_dict=False,
    )[0]


def encode(pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
    """The pipeline's own encoding with its written instruction; the empty prompt without it, as guidance encodes it."""
    instruction = inspect.signature(pipe.__call__).parameters["complex_human_instruction"].default
    rows: list[tuple[Tensor, Tensor]] = []
    for prompt in prompts:
        embeds, mask, _, _ = pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=pipe.text_encoder.device,
            max_sequence_length=TOKENS,
            complex_human_instruction=instruction if prompt else None,
        )
        rows.append((embeds[0], mask[0]))
    return {"prompt_embeds": torch.stack([r[0] for r in rows]), "prompt_mask": torch.stack([r[1] for r in rows]).long()}


def moments(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The autoencoder has no posterior: its latent, and a standard deviation of zero."""
    latent = vae.encode(pixels, return_dict=False)[0]
    return latent, torch.zeros_like(latent)


FAMILY = Family(
    name="sana",
    pipelines=("SanaPipeline",),
    call=call,
    encode=encode,
    shapes=lambda config: {"prompt_embeds": (TOKENS, config.caption_channels), "prompt_mask": (TOKENS,)},
    reduction=32,
    moments=moments,
    settings={"tokens": TOKENS},
)
