"""Under which names and at which scale ComfyUI and kohya's trainers read the modules of a LoRA.

Every module is a pair down [r,in,...], up [out,r,...] with a number alpha: a weight changes by alpha / r up down. In a
file for ComfyUI the modules of a transformer keep diffusers' names; those of a UNet, and all of kohya's, are called
`lora_unet_` and a name with `_` for every dot. kohya's trainers name the modules of the network as it was published,
where one weight may stand for several of diffusers'; their pairs become one, block beside block.

Shapes: r rank, n modules in one, in and out features of a module.

References (facts: names, order of blocks, scale): ComfyUI a125cd8, comfy/lora.py (load_lora, model_lora_keys_unet),
comfy/utils.py (unet_to_diffusers, mmdit_to_diffusers, flux_to_diffusers), comfy/ldm/qwen_image/model.py; sd-scripts
48d368f, networks/lora.py, lora_flux.py, lora_sd3.py, convert_flux_lora.py; musubi-tuner 30c658c, convert_lora.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finepref.core.errors import InputError
from finepref.models import original_flow
from finepref.models.original import Piece, Translate, pieces

REMEDY = "use --format diffusers or merged"
TOOLS = {"kohya": "kohya's trainers", "comfyui": "ComfyUI"}

Names = dict[str, str]
"""A module of diffusers -> the published module, # for a number."""


def _same(*names: str) -> Names:
    return dict(zip(names, names, strict=True))


_ATTENTION = tuple(f"attn{i}.to_{name}" for i in (1, 2) for name in ("q", "k", "v", "out.0"))
_FEED = ("ff.net.0.proj", "ff.net.2")
_RESNET = ("conv1", "conv2", "conv_shortcut", "time_emb_proj")
_INSIDE = (
    *(f"resnets.#.{name}" for name in _RESNET),
    *(f"attentions.#.{name}" for name in ("proj_in", "proj_out")),
    *(f"attentions.#.transformer_blocks.#.{name}" for name in (*_ATTENTION, *_FEED)),
)
UNET = {
    **_same(*(f"{block}.{name}" for block in ("down_blocks.#", "mid_block", "up_blocks.#") for name in _INSIDE)),
    **_same("down_blocks.#.downsamplers.#.conv", "up_blocks.#.upsamplers.#.conv", "conv_in", "conv_out"),
    **_same("time_embedding.linear_1", "time_embedding.linear_2"),
    **{"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"},  # as diffusers reads it
}

_ATTN = tuple(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out"))
_ADDED = tuple(f"attn.add_{name}_proj" for name in "qkv")
_FEEDS = tuple(f"{side}_mlp.{name}" for side in ("img", "txt") for name in ("net.0.proj", "net.2"))
QWEN_IMAGE = _same(
    *(f"transformer_blocks.#.{name}" for name in (*_ATTN, *_ADDED, "img_mod.1", "txt_mod.1", *_FEEDS)),
    *(f"time_text_embed.timestep_embedder.linear_{i}" for i in (1, 2)),
    *("img_in", "txt_in", "norm_out.linear", "proj_out"),
)


@dataclass(frozen=True, slots=True)
class ModuleNames:
    """How a family's modules are named.

    published: a table of names, or a map of a whole network. comfyui: what is before diffusers' names; None: kohya's.
    """

    published: Names | Callable[[Mapping[str, Any], Iterable[str]], Translate]
    comfyui: str | None = None


FAMILIES = {
    "sd15": ModuleNames(UNET),
    "sdxl": ModuleNames(UNET),
    "sd3": ModuleNames(original_flow.sd3, comfyui="transformer"),
    "flux": ModuleNames(original_flow.flux, comfyui="transformer"),
    "qwen_image": ModuleNames(QWEN_IMAGE, comfyui="diffusion_model"),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """down [r,in,...], up [out,r,...]; the change of the weight is scale up down."""

    down: Tensor
    up: Tensor
    scale: float


def pairs(weights: Mapping[str, Tensor], metadata: Mapping[str, Any], *, tool: str) -> dict[str, Pair]:
    """The modules of a LoRA of diffusers by name.

        scale = alpha / r,  or alpha / sqrt(r) where it is rank-stabilised

    All get one alpha, that of most modules (of a UNet, plain diffusers reads no two); where a module's own is another,
    its `up` carries the ratio.

    Raises:
        InputError: it has magnitudes (DoRA) or biases, which the tool reads otherwise or not at all.
    """
    from peft.utils.other import get_pattern_key

    if metadata.get("use_dora"):
        what = f"{tool} would divide its magnitudes (DoRA) by the norms of other weights"
        raise InputError(what, where="lora.dora", remedy=REMEDY)
    found: dict[str, Pair] = {}
    patterns = metadata.get("alpha_pattern") or {}
    for name in sorted({key.rsplit(".lora_", 1)[0] for key in weights}):
        down, up = weights.get(f"{name}.lora_A.weight"), weights.get(f"{name}.lora_B.weight")
        if down is None or up is None or f"{name}.lora_B.bias" in weights:
            what = f"{name} has other tensors than the pair lora_A.weight and lora_B.weight"
            raise InputError(what, where=tool, remedy=REMEDY)
        rank = down.shape[0]
        alpha: float = patterns.get(get_pattern_key(list(patterns), name), metadata["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if metadata.get("use_rslora") else rank)
        given = network_alpha(metadata) / rank
        found[name] = Pair(down, up * (scale / given), given)
    return found


def network_alpha(metadata: Mapping[str, Any]) -> float:
    """The alpha of most modules, for who divides it by the rank."""
    alpha: float = metadata["lora_alpha"]
    return float(alpha * math.sqrt(metadata["r"]) if metadata.get("use_rslora") else alpha)


def named(format: str, family: str, found: Mapping[str, Pair], network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a file that ComfyUI or kohya's trainers read, each module with its alpha.

    Args:
        network: of the base; its weights may be on the meta device.

    Raises:
        InputError: a family or a module that the tool has no name for.
    """
    known = names_of(format, family)
    made_of = _pieces(format, known, found, network)
    if format == "comfyui" and known.comfyui is not None:
        return _tensors({f"{known.comfyui}.{name}": pair for name, pair in found.items()}, "lora_A", "lora_B")
    modules: dict[str, Pair] = {}
    for published, piece in made_of.items():
        names = [name.removesuffix(".weight") for name in piece.parts]
        held = [found.get(name) for name in names]
        if any(held):
            rows = [len(network.get_submodule(name).weight) for name in names]  # type: ignore[arg-type]
            place = published.removesuffix(".weight").replace(".", "_")
            modules[f"lora_unet_{place}"] = _in_one(held, rows, swapped=piece.form == "swapped")
    return _tensors(modules, "lora_down", "lora_up")


def _pieces(format: str, known: ModuleNames, found: Iterable[str], network: Any) -> dict[str, Piece]:
    """Published weight -> the weights of diffusers that it is made of."""
    if not isinstance(known.published, dict):
        names = [name for name, _ in network.named_parameters() if name.endswith(".weight")]
        return pieces(known.published(network.config, names), names)
    return {_filled(format, known.published, name): Piece((f"{name}.weight",), "same") for name in found}


def names_of(format: str, family: str) -> ModuleNames:
    """How a family's modules are named.

    Raises:
        InputError: the tool has no such family.
    """
    if family not in FAMILIES:
        what = f"{TOOLS[format]} has no {family} model, or its names are not known here"
        raise InputError(what, where="format", remedy=REMEDY)
    return FAMILIES[family]


def _filled(format: str, table: Names, name: str) -> str:
    """The published name of a module, its numbers in it."""
    for pattern, published in table.items():
        fits = re.fullmatch(re.escape(pattern).replace(r"\#", r"(\d+)"), name)
        if fits is not None:
            for number in fits.groups():
                published = published.replace("#", number, 1)
            return published
    what = f"{TOOLS[format]} has no name for the module {name}"
    raise InputError(what, where="lora.targets", remedy=REMEDY)


def _in_one(parts: Sequence[Pair | None], rows: Sequence[int], *, swapped: bool) -> Pair:
    """n modules in one: down [nr,in] one below the other, up [sum of out,nr] on the diagonal, zeros for an absent one.

    r is the largest rank among them: kohya's trainers cut such a pair into n equal ranks. swapped: a weight that stands
    for one module has its halves the other way round.
    """
    held = [part for part in parts if part is not None]
    if len(parts) == 1:
        up = torch.cat(held[0].up.chunk(2)[::-1]) if swapped else held[0].up
        return Pair(held[0].down, up, held[0].scale)
    rank, scale = max(part.down.shape[0] for part in held), max(part.scale for part in held)
    down = held[0].down.new_zeros(len(parts) * rank, held[0].down.shape[1])
    up = held[0].up.new_zeros(sum(rows), len(parts) * rank)
    for at, part in enumerate(parts):
        if part is not None:
            own, below = part.down.shape[0], sum(rows[:at])
            down[at * rank : at * rank + own] = part.down
            up[below : below + rows[at], at * rank : at * rank + own] = part.up * (part.scale / scale)
    return Pair(down, up, scale)


def _tensors(modules: Mapping[str, Pair], down: str, up: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, pair in modules.items():
        found[f"{name}.{down}.weight"], found[f"{name}.{up}.weight"] = pair.down.contiguous(), pair.up.contiguous()
        found[f"{name}.alpha"] = torch.tensor(pair.scale * pair.down.shape[0])
    return found


_TEXTS = {
    "sd15": {"text_encoder": "lora_te"},
    "sdxl": {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
}


def of_text(family: str, part: str, found: Mapping[str, Pair]) -> dict[str, Tensor]:
    """The tensors of a text encoder in a file that ComfyUI or kohya's trainers read.

    References: ComfyUI, comfy/lora.py (model_lora_keys_clip); sd-scripts, networks/lora.py.
    """
    before = _TEXTS[family][part]
    modules = {f"{before}_{name.replace('.', '_')}": pair for name, pair in found.items()}
    return _tensors(modules, "lora_down", "lora_up")


_NETWORKS = {"sd3": "networks.lora_sd3", "flux": "networks.lora_flux", "qwen_image": "networks.lora_qwen_image"}


def about(family: str, metadata: Mapping[str, Any]) -> dict[str, str]:
    """What kohya's trainers and WebUI read in a file's header of its kind, rank and alpha."""
    return {
        "ss_network_module": _NETWORKS.get(family, "networks.lora"),
        "ss_network_dim": str(metadata["r"]),
        "ss_network_alpha": str(network_alpha(metadata)),
    }
