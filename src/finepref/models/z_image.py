"""Z-Image: single-stream transformer on 16-channel latents, flow matching, Qwen3.

Shapes: N images, C channels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from finepref.models.family import Cond, Family, image_labels

TOKENS = 512


def call(transformer: nn.Module, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """Velocity eps - x0 at x [N,C,h,w], s [N] in (0,1]: the network takes 1 - s and gives x0 - eps.

    It takes prompts without padding, one by one; without a mask every token is one.
    """
    embeds = list(cond["prompt_embeds"].unbind())
    if "prompt_mask" in cond:
        lengths = cond["prompt_mask"].sum(1).tolist()
        embeds = [row[:length] for row, length in zip(embeds, lengths, strict=True)]
    images = transformer(list(x.unsqueeze(2).unbind()), 1.0 - image_labels(t, x), embeds, return_dict=False)[0]
    return -torch.stack(images).squeeze(2)


def encode(pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
    """The pipeline's own encoding: second to last states of the chat template's tokens, with their mask."""
    rows, _ = pipe.encode_prompt(
        list(prompts), device=pipe.text_encoder.device, do_classifier_free_guidance=False, max_sequence_length=TOKENS
    )
    masks = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
    return {
        name: pad_sequence(each, batch_first=True) for name, each in (("prompt_embeds", rows), ("prompt_mask", masks))
    }


FAMILY = Family(
    name="z_image",
    pipelines=("ZImagePipeline",),
    call=call,
    encode=encode,
    shapes=lambda config: {"prompt_embeds": (TOKENS, config.cap_feat_dim)},
    scale=("scaling_factor", "shift_factor"),
    undone=("scaling_factor", "shift_factor"),
    patch=2,
    settings={"tokens": TOKENS},
)
