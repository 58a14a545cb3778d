"""The original layouts of the SD3 and FLUX.1 transformers, as maps like those of `original`.

References: Stability-AI sd3-ref mmdit.py, black-forest-labs flux model.py, by diffusers 0.42
loaders/single_file_utils.py (convert_sd3_transformer_checkpoint_to_diffusers,
convert_flux_transformer_checkpoint_to_diffusers).
Deviations: a single block of FLUX is cut at any width; diffusers' reader knows 3072 only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finepref.core.errors import InputError
from finepref.models.original import Form, Place, Translate

Rule = tuple[str, str, int, Form]
"""(pattern of a diffusers name, original name, which of the tensors stacked there, form)."""


def _same(names: Mapping[str, str]) -> list[Rule]:
    return [(old, new, 0, "same") for old, new in names.items()]


def _stacked(new: str, *old: str) -> list[Rule]:
    """Matrices that stand in one, from the first to the last."""
    return [(name, new, row, "stacked") for row, name in enumerate(old)]


def _qkv(new: str, old: str) -> list[Rule]:
    return _stacked(new, *(old.format(letter) for letter in "qkv"))


def _translate(outer: Sequence[Rule], blocks: Mapping[str, tuple[str, Sequence[Rule]]]) -> Translate:
    """blocks: name of a list of blocks -> (its original name, rules below it). Names go without `.weight`, `.bias`."""
    tables = {old: (new, {rule[0]: rule[1:] for rule in rules}) for old, (new, rules) in blocks.items()}
    ends = {rule[0]: rule[1:] for rule in outer}

    def translate(name: str) -> Place:
        stem, dot, end = name.rpartition(".")
        found = re.fullmatch(r"(\w+)\.(\d+)\.(.+)", stem)
        if found is not None and found[1] in tables:
            place, rules = tables[found[1]]
            if found[3] not in rules:
                raise InputError(f"{name} has no original layout", remedy="use a diffusers folder")
            new, row, form = rules[found[3]]
            place = f"{place}.{found[2]}.{new}"
        else:
            place, row, form = ends.get(stem, (stem, 0, "same"))
        scale = place.endswith("_norm")  # a norm of FLUX calls its weight scale
        return (place + (".scale" if scale else dot + end), row, form)

    return translate


def _embedders(time: Sequence[str], text: Sequence[str]) -> dict[str, str]:
    layers = {"timestep_embedder": time, "text_embedder": text}
    return {
        f"time_text_embed.{name}.linear_{row}": place
        for name, places in layers.items()
        for row, place in enumerate(places, start=1)
    }


_SD3 = [
    *_same(_embedders(("t_embedder.mlp.0", "t_embedder.mlp.2"), ("y_embedder.mlp.0", "y_embedder.mlp.2"))),
    *_same({"pos_embed.proj": "x_embedder.proj", "proj_out": "final_layer.linear"}),
    ("norm_out.linear", "final_layer.adaLN_modulation.1", 0, "swapped"),
]
_SD3_BLOCK = [
    *_qkv("x_block.attn.qkv", "attn.to_{}"),
    *_qkv("context_block.attn.qkv", "attn.add_{}_proj"),
    *_qkv("x_block.attn2.qkv", "attn2.to_{}"),
    *_same(
        {
            "attn.norm_q": "x_block.attn.ln_q",
            "attn.norm_k": "x_block.attn.ln_k",
            "attn.norm_added_q": "context_block.attn.ln_q",
            "attn.norm_added_k": "context_block.attn.ln_k",
            "attn2.norm_q": "x_block.attn2.ln_q",
            "attn2.norm_k": "x_block.attn2.ln_k",
            "attn.to_out.0": "x_block.attn.proj",
            "attn.to_add_out": "context_block.attn.proj",
            "attn2.to_out.0": "x_block.attn2.proj",
            "norm1.linear": "x_block.adaLN_modulation.1",
            "norm1_context.linear": "context_block.adaLN_modulation.1",
            "ff.net.0.proj": "x_block.mlp.fc1",
            "ff.net.2": "x_block.mlp.fc2",
            "ff_context.net.0.proj": "context_block.mlp.fc1",
            "ff_context.net.2": "context_block.mlp.fc2",
        }
    ),
]
_FLUX = [
    *_same(_embedders(("time_in.in_layer", "time_in.out_layer"), ("vector_in.in_layer", "vector_in.out_layer"))),
    *_same(
        {
            "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
            "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
            "context_embedder": "txt_in",
            "x_embedder": "img_in",
            "proj_out": "final_layer.linear",
        }
    ),
    ("norm_out.linear", "final_layer.adaLN_modulation.1", 0, "swapped"),
]
_FLUX_BLOCK = [
    *_qkv("img_attn.qkv", "attn.to_{}"),
    *_qkv("txt_attn.qkv", "attn.add_{}_proj"),
    *_same(
        {
            "norm1.linear": "img_mod.lin",
            "norm1_context.linear": "txt_mod.lin",
            "attn.norm_q": "img_attn.norm.query_norm",
            "attn.norm_k": "img_attn.norm.key_norm",
            "attn.norm_added_q": "txt_attn.norm.query_norm",
            "attn.norm_added_k": "txt_attn.norm.key_norm",
            "ff.net.0.proj": "img_mlp.0",
            "ff.net.2": "img_mlp.2",
            "ff_context.net.0.proj": "txt_mlp.0",
            "ff_context.net.2": "txt_mlp.2",
            "attn.to_out.0": "img_attn.proj",
            "attn.to_add_out": "txt_attn.proj",
        }
    ),
]
_FLUX_SINGLE = [
    *_stacked("linear1", "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    *_same(
        {
            "norm.linear": "modulation.lin",
            "attn.norm_q": "norm.query_norm",
            "attn.norm_k": "norm.key_norm",
            "proj_out": "linear2",
        }
    ),
]
_FLUX_NAMES = _translate(
    _FLUX,
    {
        "transformer_blocks": ("double_blocks", _FLUX_BLOCK),
        "single_transformer_blocks": ("single_blocks", _FLUX_SINGLE),
    },
)
_SD3_NAMES = _translate(_SD3, {"transformer_blocks": ("joint_blocks", _SD3_BLOCK)})


def flux(config: Mapping[str, Any], names: Iterable[str]) -> Translate:
    """The transformer of FLUX.1: queries, keys and values in one matrix, in single blocks with the first of the MLP."""
    return _FLUX_NAMES


def sd3(config: Mapping[str, Any], names: Iterable[str]) -> Translate:
    """The transformer of SD3: the last block's context norm, and the last norm, have shift before scale."""
    last = f"transformer_blocks.{config['num_layers'] - 1}.norm1_context.linear."

    def translate(name: str) -> Place:
        if name == "pos_embed.pos_embed":
            return ("pos_embed", 0, "same")
        place, row, form = _SD3_NAMES(name)
        return (place, row, "swapped" if name.startswith(last) else form)

    return translate
