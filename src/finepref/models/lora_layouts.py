"""Layouts of LoRA files, all of diffusers' and ComfyUI's of a UNet: their tensors under peft's names, by part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finepref.core.errors import InputError
from finepref.core.files import parse_json, reading
from finepref.models.header import read_header, refuse_types
from finepref.models.original import pieces, unet
from finepref.models.source import quiet

METADATA = "lora_adapter_metadata"
TEXT = "text_encoder"  # how the names of a pipeline's text encoders begin
OLD_CLIP = "text_model."  # before the names of CLIP's modules in files; current libraries' networks may go without
FAMILY = "give a LoRA of the same family"
_COMFYUI = "diffusion_model."
_WEIGHT = re.compile(
    r"\.(lora_[AB]\.(weight|bias)|lora(_linear_layer)?[._](down|up)\.weight|to_(q|k|v|out)_lora\.(down|up)\.weight"
    r"|lora_magnitude_vector(\.weight)?|alpha)"
)
"""How the name of a LoRA's tensor ends, in every layout: peft, kohya, diffusers' two older ones."""


def read_tensors(file: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """(tensors, adapter metadata of the header) of a file whose tensors are all those of a LoRA, and finite."""
    from safetensors.torch import load_file

    header = read_header(file)
    with reading(file, "a whole safetensors file", remedy="fetch it again"):
        raw, about = load_file(file), parse_json(header.metadata.get(METADATA, "{}"))
    if not isinstance(about, dict):
        raise InputError("its adapter metadata is no record", where=file, remedy="save it again with diffusers")
    strange = [name for name in raw if not any(found.end() == len(name) for found in _WEIGHT.finditer(name))]
    if strange or not raw:
        remedy = "give a plain LoRA; LyCORIS, DoRA of kohya's form and whole models are not read as one"
        raise refused(file, strange, raw, "are no weights of a LoRA", remedy=remedy)
    refuse_types(header, [name for name in raw if not (name.endswith(".alpha") and header.types[name][0] in "IU")])
    raw = {
        name: value.float() if header.types[name].startswith("F8") else value for name, value in raw.items()
    }  # exact
    broken = [name for name, value in raw.items() if not bool(torch.isfinite(value.float()).all())]
    if broken:
        raise refused(file, broken, raw, "hold numbers that are not finite", remedy="fetch it again, or train it anew")
    return raw, about


def of_diffusers(raw: Mapping[str, Tensor], file: Path, network: Any) -> dict[str, Tensor]:
    """A UNet's tensors under kohya's names, where they have those of ComfyUI: the modules of the published network.

    Deviations: diffusers reads no such file.
    """
    mine = [name for name in raw if name.startswith(_COMFYUI)]
    if not mine:
        return dict(raw)
    names = [name for name, _ in network.named_parameters() if name.endswith(".weight")]
    known = {_COMFYUI + place: piece.parts[0] for place, piece in pieces(unet(network.config, names), names).items()}
    strange = [name for name in mine if f"{_stem(name)}.weight" not in known]
    if strange:
        raise refused(file, strange, raw, "are of modules that the unet does not have", remedy=FAMILY)
    found = {name: value for name, value in raw.items() if name not in mine}
    for name in mine:
        module, end = known[f"{_stem(name)}.weight"].removesuffix(".weight"), name.removeprefix(_stem(name))
        for old, new in ((".lora_A.", ".lora_down."), (".lora_B.", ".lora_up.")):
            end = end.replace(old, new)
        place = f"lora_unet_{module.replace('.', '_')}{end}"
        if place in found:
            raise refused(file, [name], raw, f"are there twice, also as {place}", remedy="take one of them out")
        found[place] = raw[name]
    return found


def converted(
    raw: Mapping[str, Tensor], file: Path, networks: Mapping[str, Any], pipeline: Any
) -> tuple[dict[str, tuple[dict[str, Tensor], dict[str, float]]], list[str]]:
    """(part -> tensors by peft's names and alpha by module, names in the file of what did not get there).

    To each tensor a zero is added whose gradient tells whether the tensor reached the result.
    """
    part = next(iter(networks))
    marks = {name: torch.zeros((), requires_grad=True) for name, value in raw.items() if value.is_floating_point()}
    marked = {name: value + marks[name].to(value.dtype) if name in marks else value for name, value in raw.items()}
    with quiet(), reading(file, f"a LoRA that diffusers reads for {pipeline.__name__}", remedy=FAMILY):
        try:
            found = pipeline.lora_state_dict(marked, unet_config=networks[part].config, return_alphas=True)
        except ValueError as error:  # which names the tensors on its third line
            raise ValueError(" ".join(str(error).split())) from error
        state, given = found if isinstance(found, tuple) else (found, None)
        state = {**state, **(given or {})}
    texts = [name for name in state if name.startswith(TEXT) and name.partition(".")[0] not in networks]
    if texts:
        known = [name for name in networks if name != part]
        remedy = "train them too (lora.text_encoder, of a LoRA run of sd15 or sdxl), merge the file into the base "
        remedy += "(docs/backbones) and give that as model.base, or leave these tensors out"
        if known:
            remedy = f"those of this base are called {', '.join(known)}; {FAMILY}"
        raise refused(file, texts, state, "are for text encoders, and prompts are encoded by the base's", remedy=remedy)
    made: dict[str, tuple[dict[str, Tensor], dict[str, float]]] = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        of, rest = (first, rest) if first in networks else (part, name)
        renamed = _peft_name(rest) if of == part else _text_name(rest, networks[of])
        tensors, alphas = made.setdefault(of, ({}, {}))
        if name.endswith(".alpha"):
            alphas[module_of(renamed)] = float(torch.as_tensor(value).detach())
        else:
            tensors[renamed] = value
    ends = [value.sum() for tensors, _ in made.values() for value in tensors.values() if value.requires_grad]
    gradients = torch.autograd.grad(ends, [*marks.values()], allow_unused=True) if ends else [None] * len(marks)
    reached = {name for name, gradient in zip(marks, gradients, strict=True) if gradient is not None}
    stems = {_stem(name) for name in reached}
    unused = [name for name in raw if name not in reached and not (name.endswith(".alpha") and _stem(name) in stems)]
    plain = {
        of: ({name: value.detach() for name, value in tensors.items()}, alphas)
        for of, (tensors, alphas) in made.items()
    }
    return plain, unused


def _peft_name(name: str) -> str:
    """A name of a denoiser's tensor of either older layout of diffusers, as peft has it."""
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    return _short(next(iter(convert_unet_state_dict_to_peft({name: None}))))


def _short(name: str) -> str:
    """DoRA's magnitudes go by either of two names."""
    return name.removesuffix(".weight") if name.endswith("lora_magnitude_vector.weight") else name


def _text_name(name: str, network: nn.Module) -> str:
    """A name of a text encoder's tensor of either older layout of diffusers, as peft has it, and the network."""
    from diffusers.utils.state_dict_utils import DIFFUSERS_OLD_TO_PEFT, DIFFUSERS_TO_PEFT

    for table in (DIFFUSERS_OLD_TO_PEFT, DIFFUSERS_TO_PEFT):
        for old, new in table.items():
            name = name.replace(old, new)
    name = name if hasattr(network, OLD_CLIP.rstrip(".")) else name.removeprefix(OLD_CLIP)
    return _short(name)


def _stem(name: str) -> str:
    """The name of a tensor in a file without its ending: what the tensors of one module have in common."""
    return _WEIGHT.sub("", name)


def loose(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Adapter metadata of a text encoder whose module names fit networks with and without `text_model.`."""
    found = dict(fields)
    for name in ("rank_pattern", "alpha_pattern"):
        if found.get(name):
            found[name] = {re.sub(r"^\^?(text_model\\?\.)?", "", key): value for key, value in found[name].items()}
    if isinstance(found.get("target_modules"), list):
        found["target_modules"] = sorted(name.removeprefix(OLD_CLIP) for name in found["target_modules"])
    return found


def published_text(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's tensors under the names of published files, which plain diffusers reads."""
    made = {}
    for name, value in tensors.items():
        end = ".weight" if name.endswith("lora_magnitude_vector") else ""  # transformers asks for it, diffusers not
        made[f"{OLD_CLIP}{name.removeprefix(OLD_CLIP)}{end}"] = value
    return made


def module_of(name: str) -> str:
    """The module of a tensor, or of an alpha, by its name in peft's layout."""
    return re.split(r"\.lora_(?:[AB]|magnitude_vector)\b", name.removesuffix(".alpha"))[0]


def refused(file: Path, names: Sequence[str], of: Mapping[str, Any], what: str, *, remedy: str) -> InputError:
    """The refusal of a file for some of its tensors, the first of which it names."""
    first = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
    return InputError(f"{len(names)} of its {len(of)} tensors {what} ({first})", where=file, remedy=remedy)
