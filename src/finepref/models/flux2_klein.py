"""FLUX.2 klein: transformer on 2 x 2 patches of 32-channel latents, flow matching, three layers of Qwen3.

The latent of this family is the patch: [N,4C,h/2,w/2], normalised by the running statistics of the VAE's batch norm.
Shapes: N images, C channels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finepref.models.family import Cond, Family, image_labels, joined
from finepref.models.sd3 import ATTENTION

TOKENS = 512
LAYERS = 3  # states of layers 9, 18 and 27 side by side, the pipeline's own default


def patchify(z: Tensor) -> Tensor:
    """[N,C,h,w] -> [N,4C,h/2,w/2]: channel, then row and column within a 2 x 2 patch."""
    return torch.nn.functional.pixel_unshuffle(z, 2)


def unpatchify(latent: Tensor) -> Tensor:
    """Inverse of `patchify`."""
    return torch.nn.functional.pixel_shuffle(latent, 2)


def positions(rows: int, columns: int, tokens: int, device: torch.device) -> Tensor:
    """[rows * columns * tokens, 4] = (0, row, column, token)."""
    grid = torch.cartesian_prod(*(torch.arange(n, device=device) for n in (1, rows, columns, tokens)))
    return grid.view(-1, 4)


def call(transformer: nn.Module, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """Velocity eps - x0 at x [N,4C,h/2,w/2], s [N] in (0,1] (the network scales it by 1000 itself)."""
    rows, columns = x.shape[-2:]
    velocity: Tensor = transformer(
        hidden_states=x.flatten(2).transpose(1, 2),
        timestep=image_labels(t, x),
        encoder_hidden_states=cond["prompt_embeds"],
        txt_ids=positions(1, 1, cond["prompt_embeds"].shape[1], x.device),
        img_ids=positions(rows, columns, 1, x.device),
        return_dict=False,
    )[0]
    return velocity.transpose(1, 2).unflatten(2, (rows, columns))


def encode(pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
    """The pipeline's own encoding: 512 tokens of the chat template, padding included, as the network takes them."""
    embeds, _ = pipe.encode_prompt(list(prompts), device=pipe.text_encoder.device, max_sequence_length=TOKENS)
    return {"prompt_embeds": embeds}


def moments(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior in patches, normalised as the pipeline undoes it before it decodes."""
    posterior = vae.encode(pixels).latent_dist
    shape = (1, -1, 1, 1)
    mean = vae.bn.running_mean.view(shape)
    std = (vae.bn.running_var.view(shape) + vae.config.batch_norm_eps).sqrt()
    return (patchify(posterior.mean) - mean) / std, patchify(posterior.std) / std


FAMILY = Family(
    name="flux2_klein",
    pipelines=("Flux2KleinPipeline",),
    call=call,
    encode=encode,
    shapes=lambda config: {"prompt_embeds": (TOKENS, config.joint_attention_dim)},
    widths=lambda encoders: {"prompt_embeds": LAYERS * joined(encoders)["prompt_embeds"]},
    packed=4,
    scale=(),  # its scale is the batch norm's, which lies in the weights
    undone=(),
    lora_targets=(*ATTENTION, "attn.to_qkv_mlp_proj"),
    patch=2,
    moments=moments,
    decodable=unpatchify,
    settings={"tokens": TOKENS},
)
