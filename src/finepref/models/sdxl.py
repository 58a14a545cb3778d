"""Stable Diffusion XL: UNet with size and crop conditioning, two CLIP text encoders, epsilon or v-prediction.

Shapes: N images, H W size of a bucket, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finepref.core.images import ImageSize
from finepref.diffusion.path import from_scheduler_config
from finepref.models.family import Cond, Family, Shapes, joined


def call(unet: nn.Module, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """UNet prediction at x [N,C,h,w], integer t [N]; prompt_embeds [N,L,D], pooled [N,D2], time_ids [N,6]."""
    added = {"text_embeds": cond["pooled"], "time_ids": cond["time_ids"]}
    return unet(x, t, encoder_hidden_states=cond["prompt_embeds"], added_cond_kwargs=added, return_dict=False)[0]


def condition(prompts: Cond, sizes: Sequence[ImageSize], micro: str | None) -> dict[str, Tensor]:
    """Prompt tensors and time_ids [N,6] = original height and width, crop top and left, target height and width.

    micro "true": each image's own size and crop, as SDXL was trained. "official": [H,W,0,0,H,W] for every image, as the
    published DPO, SmPO, DSPO and SDPO scripts do, whose images are squares.
    """
    like = next(iter(prompts.values()))
    if micro == "official":
        rows = [[*s.bucket, 0, 0, *s.bucket] for s in sizes]
    else:
        rows = [[s.original_height, s.original_width, s.crop_top, s.crop_left, *s.bucket] for s in sizes]
    return {**prompts, "time_ids": torch.tensor(rows, dtype=torch.float32).to(like.device, non_blocking=True)}


def encode(pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
    """The pipeline's own encoding: penultimate hidden states of both encoders, pooled output of the second.

    The empty prompt is encoded like any other (the pipeline's zeros stand only for an absent negative prompt).
    """
    device = (pipe.text_encoder or pipe.text_encoder_2).device
    embeds, _, pooled, _ = pipe.encode_prompt(list(prompts), device=device, do_classifier_free_guidance=False)
    return {"prompt_embeds": embeds, "pooled": pooled}


def embed(encoders: Mapping[str, Any], ids: Cond) -> dict[str, Tensor]:
    """Penultimate hidden states of token ids [N,77] side by side, the pooled output of the second encoder."""
    made = [encoder(ids[name], output_hidden_states=True) for name, encoder in encoders.items()]
    return {"prompt_embeds": torch.cat([each.hidden_states[-2] for each in made], dim=-1), "pooled": made[-1][0]}


def shapes(config: Any) -> Shapes:
    """Shapes of one image's conditions: 77 states, the pooled output, sizes and crop."""
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return {"prompt_embeds": (77, config.cross_attention_dim), "pooled": (pooled,), "time_ids": (6,)}


def widths(encoders: Mapping[str, Any]) -> dict[str, int]:
    """States of both encoders side by side, the pooled output of the second."""
    return {**joined(encoders), "pooled": encoders["text_encoder_2"].projection_dim}


FAMILY = Family(
    name="sdxl",
    pipelines=("StableDiffusionXLPipeline",),
    part="unet",
    path=from_scheduler_config,
    call=call,
    condition=condition,
    encode=encode,
    embed=embed,
    unread={"text_encoder": 1},
    texts=(("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")),
    shapes=shapes,
    widths=widths,
    undone=("scaling_factor", "latents_mean", "latents_std"),
    fixed={"addition_embed_type": "text_time", "class_embed_type": None, "encoder_hid_dim_type": None},
    micro_conditioning=("true", "official"),
)
