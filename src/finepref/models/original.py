"""The layouts in which model-sharing sites hold weights, as a one-to-one map of tensors to those of diffusers.

A map is used in both directions: a checkpoint becomes the parts of a diffusers folder, and parts become a checkpoint.
Since it is one-to-one, every tensor of a file is accounted for. diffusers reads the same layouts, but it has no writer,
drops tensors that it does not know, and leaves absent ones empty; so its reader is the oracle of the tests, which hold
this map to it tensor by tensor, and not the reader of the house.

References: names as in diffusers 0.42 loaders/single_file_utils.py, which follow the authors' repositories: CompVis
latent-diffusion (UNet, VAE), OpenAI CLIP and OpenCLIP (text), Stability-AI sd3-ref, black-forest-labs flux.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from finepref.core.errors import InputError

Form = Literal["same", "conv", "transposed", "stacked", "swapped"]
Place = tuple[str, int, Form]
Translate = Callable[[str], Place]
"""diffusers name -> (original name, which of the tensors stacked there, form)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor of the original layout.

    parts: names of the diffusers tensors that it is made of, in order.
    form: `conv`: a 1x1 convolution for a linear layer. `stacked`: parts one below the other. `swapped`: its two halves
    change places (shift and scale of a norm).
    """

    parts: tuple[str, ...]
    form: Form

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The original tensor of those of diffusers."""
        first = tensors[self.parts[0]]
        if self.form == "conv":
            return first[:, :, None, None]
        if self.form == "transposed":
            return first.T.contiguous()
        if self.form == "stacked":
            return torch.cat([tensors[name] for name in self.parts])
        return torch.cat(first.chunk(2)[::-1]) if self.form == "swapped" else first

    def shape(self, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """The original tensor's shape. shapes: of the diffusers tensors."""
        first = tuple(shapes[self.parts[0]])
        if self.form == "conv":
            return (*first, 1, 1)
        if self.form == "stacked":
            return (sum(shapes[name][0] for name in self.parts), *first[1:])
        return first[::-1] if self.form == "transposed" else first

    def split(self, tensor: Tensor, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The tensors of diffusers in the original one; shapes: theirs."""
        first = self.parts[0]
        if self.form == "conv":
            return {first: tensor.reshape(tuple(shapes[first]))}
        if self.form == "transposed":
            return {first: tensor.T.contiguous()}
        if self.form == "swapped":
            return {first: torch.cat(tensor.chunk(2)[::-1])}
        rows = tensor.split([shapes[name][0] for name in self.parts]) if self.form == "stacked" else [tensor]
        return {name: part.contiguous() for name, part in zip(self.parts, rows, strict=True)}


def pieces(translate: Translate, names: Iterable[str]) -> dict[str, Piece]:
    """Original name -> how it is made of the tensors of a diffusers network with these names."""
    found: dict[str, dict[int, tuple[str, Form]]] = {}
    for name in names:
        place, row, form = translate(name)
        held = found.setdefault(place, {})
        if row in held:
            raise RuntimeError(f"{name} and {held[row][0]} both become {place}")
        held[row] = (name, form)
    return {
        place: Piece(tuple(rows[row][0] for row in sorted(rows)), rows[0][1]) for place, rows in sorted(found.items())
    }


_TIME = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def unet(config: Mapping[str, Any], names: Iterable[str]) -> Translate:
    """The UNet of latent-diffusion: its blocks are one row of layers, resampling among them.

    Raises:
        InputError: blocks of different depths, which have no original layout.
    """
    depth = config["layers_per_block"]
    if not isinstance(depth, int):
        what = f"a UNet with layers_per_block {depth} has no original layout"
        raise InputError(what, remedy="use --format merged, or a diffusers folder")
    attentive = {name.split(".")[1] for name in names if name.startswith("up_blocks.") and ".attentions." in name}

    def translate(name: str) -> Place:
        found = _UNET_BLOCK.fullmatch(name)
        if found is None:
            place = _prefixed(name, _TIME)
            return (_inner(place, r"middle_block\.[02]\.", _RESNET), 0, "same")
        side, block, kind, layer, rest = found.groups()
        at = int(block) * (depth + 1) + int(layer) + (side == "down")
        if kind == "downsamplers":
            return (f"input_blocks.{(int(block) + 1) * (depth + 1)}.0.{rest.replace('conv.', 'op.')}", 0, "same")
        if kind == "upsamplers":
            return (f"output_blocks.{at + depth}.{2 if block in attentive else 1}.{rest}", 0, "same")
        row = "input_blocks" if side == "down" else "output_blocks"
        if kind == "attentions":
            return (f"{row}.{at}.1.{rest}", 0, "same")
        return (f"{row}.{at}.0.{_prefixed(rest, _RESNET)}", 0, "same")

    return translate


_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_VAE_ENDS = {"conv_norm_out": "norm_out"}
_VAE_BLOCK = re.compile(r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")


def vae(config: Mapping[str, Any], names: Iterable[str]) -> Translate:
    """The autoencoder of latent-diffusion: the decoder's levels count from the finest, attention is convolution."""
    levels = len(config["block_out_channels"])

    def translate(name: str) -> Place:
        side, _, rest = name.partition(".")
        if found := _VAE_BLOCK.fullmatch(name):
            side, block, kind, layer, rest = found.groups()
            level = int(block) if side == "encoder" else levels - 1 - int(block)
            row = f"{side}.{'down' if side == 'encoder' else 'up'}.{level}"
            if kind == "resnets":
                return (f"{row}.block.{layer}.{rest.replace('conv_shortcut', 'nin_shortcut')}", 0, "same")
            return (f"{row}.{kind.removesuffix('rs')}.{rest}", 0, "same")
        if found := re.fullmatch(r"mid_block\.resnets\.(\d)\.(.+)", rest):
            return (
                f"{side}.mid.block_{int(found[1]) + 1}.{found[2].replace('conv_shortcut', 'nin_shortcut')}",
                0,
                "same",
            )
        if rest.startswith("mid_block.attentions.0."):
            inner = _prefixed(rest.removeprefix("mid_block.attentions.0."), _VAE_ATTENTION)
            matrix = inner.endswith(".weight") and not inner.startswith("norm.")
            return (f"{side}.mid.attn_1.{inner}", 0, "conv" if matrix else "same")
        return (f"{side}.{_prefixed(rest, _VAE_ENDS)}", 0, "same")

    return translate


def clip(config: Mapping[str, Any], names: Iterable[str]) -> Translate:
    """CLIP as transformers names it, below `text_model.` whether or not the class has that name."""

    def translate(name: str) -> Place:
        bare = name.startswith(("text_model.", "text_projection."))
        return (name if bare else f"text_model.{name}", 0, "same")

    return translate


def same(config: Mapping[str, Any], names: Iterable[str]) -> Translate:
    """The names of transformers."""
    return lambda name: (name, 0, "same")


_OPEN_CLIP = {
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def open_clip(config: Mapping[str, Any], names: Iterable[str]) -> Translate:
    """OpenCLIP: queries, keys and values in one matrix, the projection transposed."""

    def translate(name: str) -> Place:
        name = name.removeprefix("text_model.")
        if name == "text_projection.weight":
            return ("text_projection", 0, "transposed")
        if name == "embeddings.position_embedding.weight":
            return ("positional_embedding", 0, "same")
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name)
        if found is None:
            return (_prefixed(name, _OPEN_CLIP), 0, "same")
        row, rest = f"transformer.resblocks.{found[1]}", found[2]
        if stacked := re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", rest):
            return (f"{row}.attn.in_proj_{stacked[2]}", "qkv".index(stacked[1]), "stacked")
        return (f"{row}.{_prefixed(rest, _OPEN_CLIP_LAYER)}", 0, "same")

    return translate


def _prefixed(name: str, table: Mapping[str, str]) -> str:
    """`name` with the beginning that stands in the table replaced."""
    for old, new in table.items():
        if name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name


def _inner(name: str, prefix: str, table: Mapping[str, str]) -> str:
    """`name` with what follows a prefix (a pattern) replaced by the table."""
    found = re.match(prefix, name)
    return name if found is None else found[0] + _prefixed(name[found.end() :], table)
