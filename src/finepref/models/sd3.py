"""Stable Diffusion 3 and 3.5: joint transformer on 16-channel latents, flow matching, two CLIPs and an optional T5.

Shapes: N images, C channels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from finepref.models.family import Cond, Family, Shapes, hidden, image_labels

ATTENTION = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
)
TOKENS = 256


def call(transformer: nn.Module, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """Velocity eps - x0 at x [N,C,h,w], s [N] in (0,1] (the network's own label is 1000 s)."""
    return transformer(
        hidden_states=x,
        timestep=image_labels(t, x) * 1000.0,
        encoder_hidden_states=cond["prompt_embeds"],
        pooled_projections=cond["pooled"],
        return_dict=False,
    )[0]


def encode(pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
    """The pipeline's own encoding: CLIP states, T5 states (zeros where there is no T5), both pooled CLIP outputs."""
    embeds, _, pooled, _ = pipe.encode_prompt(
        list(prompts),
        None,
        None,
        device=pipe.text_encoder.device,
        do_classifier_free_guidance=False,
        max_sequence_length=TOKENS,
    )
    return {"prompt_embeds": embeds, "pooled": pooled}


def shapes(config: Any, *, tokens: int) -> Shapes:
    """Shapes of one image's conditions: text states and the pooled output."""
    return {"prompt_embeds": (tokens, config.joint_attention_dim), "pooled": (config.pooled_projection_dim,)}


def widths(encoders: Mapping[str, Any]) -> dict[str, int]:
    """Both CLIPs' pooled outputs side by side; CLIP states are widened to T5's, which may be absent."""
    pooled = sum(encoders[part].projection_dim for part in ("text_encoder", "text_encoder_2") if part in encoders)
    t5 = encoders.get("text_encoder_3")
    return {"pooled": pooled, **({} if t5 is None else {"prompt_embeds": hidden(t5)})}


FAMILY = Family(
    name="sd3",
    pipelines=("StableDiffusion3Pipeline",),
    call=call,
    encode=encode,
    texts=(("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"), ("tokenizer_3", "text_encoder_3")),
    shapes=lambda config: shapes(config, tokens=77 + TOKENS),  # CLIP states before T5 states
    widths=widths,
    scale=("scaling_factor", "shift_factor"),
    undone=("scaling_factor", "shift_factor"),
    lora_targets=ATTENTION,
    patch=2,
    settings={"tokens": TOKENS},
)
