"""CLIP backbones on transformers' CLIPModel: architectures, the mapping from open_clip's names, features.

N images or prompts, L tokens, D embedding width. Every score here is cos(image feature, text feature).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from finepref.core.errors import InputError
from finepref.core.files import read_object, reading
from finepref.evaluate.scorers.weights import drop, in_blocks, weight_names
from finepref.objectives.core import wide


@dataclass(frozen=True, slots=True)
class Tower:
    """One transformer of a CLIP: layers, width, attention heads, width of the hidden layer of its MLP."""

    layers: int
    width: int
    heads: int
    mlp: int

    def config(self) -> dict[str, Any]:
        """The same in transformers' words."""
        return {
            "num_hidden_layers": self.layers, "hidden_size": self.width, "num_attention_heads": self.heads,
            "intermediate_size": self.mlp,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClipShape:
    """A CLIP architecture. embed: D; act: "gelu" (open_clip) or "quick_gelu" (OpenAI); end: id of the end token."""

    embed: int
    vision: Tower
    text: Tower
    act: str
    patch: int = 14
    image: int = 224
    context: int = 77
    vocab: int = 49408
    end: int = 49407


SHAPES: dict[str, ClipShape] = {
    "vit-h-14": ClipShape(1024, Tower(32, 1280, 16, 5120), Tower(24, 1024, 16, 4096), "gelu"),
    "vit-l-14": ClipShape(768, Tower(24, 1024, 16, 4096), Tower(12, 768, 12, 3072), "quick_gelu"),
    "vit-b-32": ClipShape(512, Tower(12, 768, 12, 3072), Tower(12, 512, 8, 2048), "quick_gelu", patch=32),
    "vit-b-16": ClipShape(512, Tower(12, 768, 12, 3072), Tower(12, 512, 8, 2048), "quick_gelu", patch=16),
}

NAMES = weight_names("clip")
BLOCK = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)$")
FUSED = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$")
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")


def clip_config(shape: ClipShape) -> CLIPConfig:
    """The transformers configuration of an architecture (layer norm epsilon 1e-5, no dropout)."""
    both = {"hidden_act": shape.act, "layer_norm_eps": 1e-5, "projection_dim": shape.embed}
    text = {
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "bos_token_id": shape.end - 1,
        "eos_token_id": shape.end,
        "pad_token_id": shape.end,
    }
    vision = {"image_size": shape.image, "patch_size": shape.patch}
    return CLIPConfig(
        text_config={**shape.text.config(), **both, **text},
        vision_config={**shape.vision.config(), **both, **vision},
        projection_dim=shape.embed,
    )


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip / OpenAI CLIP names to transformers names: 686 -> 910 tensors for ViT-H-14.

    The fused attention input projection [3W, W] is cut into q, k, v in that order; the two output projections are
    transposed. Other names are kept: those of transformers are right already, and the strict load reports unknown ones.

    References:
        open_clip model.py `CLIP`; transformers convert_clip_original_pytorch_to_hf.py.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in drop(state, NOT_WEIGHTS).items():
        fused, block = FUSED.match(name), BLOCK.match(name)
        found = fused or block
        layer = f"{'vision' if found[1] else 'text'}_model.encoder.layers.{found[2]}" if found else ""
        if name in NAMES["transposed"]:
            out[NAMES["transposed"][name]] = tensor.T.contiguous()
        elif fused:
            for letter, part in zip("qkv", tensor.chunk(3, dim=0), strict=True):
                out[f"{layer}.self_attn.{letter}_proj.{fused[3]}"] = part.contiguous()
        elif block and block[3] in NAMES["blocks"]:
            out[f"{layer}.{NAMES['blocks'][block[3]]}.{block[4]}"] = tensor
        else:
            out[NAMES["top"].get(name, name)] = tensor
    return out


def config_of(path: Path | None, shape: str | None) -> CLIPConfig:
    """The configuration of a local CLIP: its own config.json if the folder has one, else the named architecture.

    Raises:
        InputError: there is neither.
    """
    if path is not None and (path / "config.json").is_file():
        with reading(path / "config.json", "a config of CLIP"):
            return CLIPConfig.from_dict(read_object(path / "config.json"))
    if shape is None:
        remedy = "give a folder in transformers' layout"
        raise InputError("no config.json beside the weights", where=path, remedy=remedy)
    return clip_config(SHAPES[shape])


def takes(model: CLIPModel) -> tuple[int, torch.device]:
    """(S, the side in pixels of the images that the model takes, its device)."""
    config: Any = model.config
    return int(config.vision_config.image_size), model.device


def image_features(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Unit-length image features [N, D] of normalised pixels [N, 3, S, S]."""
    pooled = wide(model.vision_model(pixel_values=pixels.to(model.device)).pooler_output)
    return torch.nn.functional.normalize(in_blocks(model.visual_projection, pooled), dim=-1)


def text_features(model: CLIPModel, ids: Sequence[Sequence[int]]) -> Tensor:
    """Unit-length text features [N, D] of token ids.

    Prompts of equal length go through the tower together, without padding, so the others cannot change a feature.
    (The tower is causal and is read at the end token: the originals' padding to 77 changes nothing either.)
    """
    features: dict[int, Tensor] = {}
    for length in sorted({len(row) for row in ids}):
        places = [place for place, row in enumerate(ids) if len(row) == length]
        batch = torch.tensor([list(ids[place]) for place in places], dtype=torch.long, device=model.device)
        pooled = wide(model.text_model(input_ids=batch).pooler_output)
        found = torch.nn.functional.normalize(in_blocks(model.text_projection, pooled), dim=-1)
        features |= zip(places, found, strict=True)
    return torch.stack([features[place] for place in range(len(ids))])
