"""ImageReward's network on transformers' BLIP modules: vision tower, text tower that looks at the image, linear head.

N images, P patches + 1, L tokens. reward = (head(text state of [CLS]) - MEAN) / STD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.models.blip.configuration_blip import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from finepref.evaluate.scorers.clip import Tower
from finepref.evaluate.scorers.heads import LinearHead
from finepref.evaluate.scorers.weights import drop, in_blocks, weight_names
from finepref.objectives.core import wide

REWARD_MEAN = 0.16717362830052426
REWARD_STD = 1.0333394966054072
NAMES = weight_names("blip")
VISION_BLOCK = re.compile(r"^blocks\.(\d+)\.(.+)\.(weight|bias)$")
PARTS = {"blip.visual_encoder.": "vision.", "blip.text_encoder.": "text.", "mlp.": "head."}
UNUSED = ("blip.vision_proj.", "blip.text_proj.")


@dataclass(frozen=True, slots=True)
class BlipShape:
    """ImageReward's architecture. vision_eps is 1e-6 in the original (transformers' default is 1e-5)."""

    vision: Tower
    text: Tower
    patch: int = 16
    image: int = 224
    vocab: int = 30524
    positions: int = 512
    vision_eps: float = 1e-6
    text_eps: float = 1e-12


IMAGEREWARD = BlipShape(vision=Tower(24, 1024, 16, 4096), text=Tower(12, 768, 12, 3072))


class RewardNetwork(nn.Module):
    """Vision tower, text tower with cross attention, head; names of its state: `vision.`, `text.`, `head.`."""

    def __init__(self, shape: BlipShape) -> None:
        super().__init__()
        v, t = shape.vision, shape.text
        self.side = shape.image
        vision = BlipVisionConfig(
            **v.config(),
            image_size=shape.image,
            patch_size=shape.patch,
            hidden_act="gelu",
            layer_norm_eps=shape.vision_eps,
        )
        text = BlipTextConfig(
            **t.config(),
            vocab_size=shape.vocab,
            encoder_hidden_size=v.width,
            max_position_embeddings=shape.positions,
            hidden_act="gelu",
            layer_norm_eps=shape.text_eps,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
            sep_token_id=None,
        )
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.head = LinearHead(t.width)

    def image_states(self, pixels: Tensor) -> Tensor:
        """States of the class token and of every patch [N, P, width] of normalised pixels [N, 3, S, S]."""
        return self.vision(pixel_values=pixels).last_hidden_state

    def text_state(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """State of [CLS] [N, width] of ids [N, L] (mask 1: a real token) that look at image states [N, P, .]."""
        seen = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        out = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=states,
            encoder_attention_mask=seen,
            is_decoder=False,
        )
        return wide(out.last_hidden_state[:, 0])

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Reward [N] of images for their prompts.

        References:
            THUDM/ImageReward ImageReward.py `score`: (mlp - mean) / std.
        """
        raw = in_blocks(self.head, self.text_state(self.image_states(pixels), ids, mask))
        return (raw - REWARD_MEAN) / REWARD_STD


def from_imagereward(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the official ImageReward.pt to those of `RewardNetwork`; two unused projections are left out.

    294 vision and 316 text tensors and 10 of the head. Other names are kept: those of `RewardNetwork` are right
    already, and the strict load reports unknown ones.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in drop(state, ("position_ids",), UNUSED).items():
        old, new = next((pair for pair in PARTS.items() if name.startswith(pair[0])), ("", ""))
        inner = name.removeprefix(old)
        out[new + (_vision_name(inner) if new == "vision." else inner)] = tensor
    return out


def _vision_name(name: str) -> str:
    block = VISION_BLOCK.match(name)
    if block and block[2] in NAMES["blocks"]:
        return f"encoder.layers.{block[1]}.{NAMES['blocks'][block[2]]}.{block[3]}"
    return NAMES["top"].get(name, name)


def pad_ids(ids: Sequence[Sequence[int]], length: int, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids padded to `length`, and their mask (1 for real tokens); both int64 [N, length]."""
    rows = [[*row, *[pad] * (length - len(row))] for row in ids]
    mask = [[int(place < len(row)) for place in range(length)] for row in ids]
    return torch.tensor(rows).view(-1, length), torch.tensor(mask).view(-1, length)
