"""Stable Diffusion 1.x and 2.x: UNet on 4-channel latents, one CLIP text encoder, epsilon or v-prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from finepref.diffusion.path import from_scheduler_config
from finepref.models.family import Cond, Family


def call(unet: nn.Module, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """UNet prediction (epsilon or v) at x [N,C,h,w], integer t [N], prompt_embeds [N,L,D]."""
    return unet(x, t, encoder_hidden_states=cond["prompt_embeds"], return_dict=False)[0]


def encode(pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
    """The pipeline's own prompt encoding: final CLIP hidden states, padded to 77 tokens."""
    embeds, _ = pipe.encode_prompt(list(prompts), pipe.text_encoder.device, 1, False)
    return {"prompt_embeds": embeds}


def embed(encoders: Mapping[str, Any], ids: Cond) -> dict[str, Tensor]:
    """Final CLIP hidden states of token ids [N,77]."""
    return {"prompt_embeds": encoders["text_encoder"](ids["text_encoder"])[0]}


FAMILY = Family(
    name="sd15",
    pipelines=("StableDiffusionPipeline",),
    part="unet",
    path=from_scheduler_config,
    call=call,
    encode=encode,
    embed=embed,
    shapes=lambda config: {"prompt_embeds": (77, config.cross_attention_dim)},
    scale=(),  # VAEs of 2022 do not say it, and the class's default is theirs
    fixed={"addition_embed_type": None, "class_embed_type": None, "encoder_hid_dim_type": None},
)
