"""Qwen-Image: joint transformer on packed 16-channel latents of a video VAE, flow matching, Qwen2.5-VL.

Shapes: N images, C channels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finepref.models.family import Cond, Family, image_labels
from finepref.models.flux import pack, unpack
from finepref.models.sd3 import ATTENTION

TOKENS = 512


def call(transformer: nn.Module, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """Velocity eps - x0 at x [N,C,h,w], s [N] in (0,1]."""
    h, w = x.shape[-2:]
    velocity: Tensor = transformer(
        hidden_states=pack(x),
        timestep=image_labels(t, x),
        encoder_hidden_states=cond["prompt_embeds"],
        encoder_hidden_states_mask=cond["prompt_mask"],
        img_shapes=[[(1, h // 2, w // 2)]] * x.shape[0],
        return_dict=False,
    )[0]
    return unpack(velocity, h, w)


def encode(pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
    """The pipeline's own encoding (chat template, system part dropped), with the mask of real tokens."""
    embeds, mask = pipe.encode_prompt(list(prompts), device=pipe.text_encoder.device, max_sequence_length=TOKENS)
    if mask is None:
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    return {"prompt_embeds": embeds, "prompt_mask": mask.long()}


def moments(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior of the video VAE for a video of one frame."""
    posterior = vae.encode(pixels.unsqueeze(2)).latent_dist
    return posterior.mean.squeeze(2), posterior.std.squeeze(2)


FAMILY = Family(
    name="qwen_image",
    pipelines=("QwenImagePipeline",),
    call=call,
    encode=encode,
    shapes=lambda config: {"prompt_embeds": (TOKENS, config.joint_attention_dim), "prompt_mask": (TOKENS,)},
    packed=4,
    scale=(),  # the defaults of its VAE's class are its own
    undone=("latents_mean", "latents_std"),
    lora_targets=ATTENTION,
    decodable=lambda latent: latent.unsqueeze(2),  # a video of one frame
    patch=2,
    moments=moments,
    settings={"tokens": TOKENS},
)
