"""A LoRA file of any layout that diffusers reads, as the weights that arrive in a network.

Every tensor of the file is used, or the file is refused by that tensor's name. Names are converted by diffusers' own
converters; rank and alpha of each module are the file's own numbers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
FAMILY = "give a LoRA of the same family"
_COMFYUI = "diffusion_model."
KEPT = (
    *("r", "lora_alpha", "target_modules", "init_lora_weights"),
    *("rank_pattern", "alpha_pattern", "lora_bias", "use_dora", "use_rslora"),
)
"""Fields of peft's config that are written into a file's metadata and read from it."""
_IDLE = (
    *("auto_mapping", "peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision"),
    *("inference_mode", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout", "bias"),
)
"""Fields without effect on a file's numbers: its tensors say which modules there are."""
_FIELDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("r", "rank_pattern"), ((int,), "a whole number above 0")),
    **dict.fromkeys(("lora_alpha", "alpha_pattern"), ((int, float), "a number above 0")),
    **dict.fromkeys(("use_dora", "use_rslora", "lora_bias"), ((bool,), "true or false")),
}
"""Field -> (the types of its value or values, in words)."""
_WEIGHT = re.compile(
    r"\.(lora_[AB]\.(weight|bias)|lora(_linear_layer)?[._](down|up)\.weight|to_(q|k|v|out)_lora\.(down|up)\.weight"
    r"|lora_magnitude_vector(\.weight)?|alpha)"
)
"""How the name of a LoRA's tensor ends, in every layout: peft, kohya, diffusers' two older ones."""


@dataclass(frozen=True, slots=True)
class LoraFile:
    """The adapter of one network.

    file: where it is. tensors: `MODULE.lora_A.weight` and so on -> float32 value. config: peft's, with rank and alpha
    of each module. alphas: of the modules whose alpha is a tensor of the file.
    """

    file: Path
    tensors: Mapping[str, Tensor]
    config: Any
    alphas: Mapping[str, float]

    def modules(self) -> set[str]:
        """Names of the modules that it changes."""
        return {_module(name) for name in self.tensors}


def read_lora(file: Path, network: nn.Module, part: str, pipeline: Any) -> LoraFile:
    """Read a LoRA for a network, which may be on the meta device.

    Args:
        part: `unet` or `transformer`, the network's name in the pipeline. pipeline: the diffusers class that reads
            LoRA files of this family.

    Raises:
        InputError: a file that is no whole LoRA, holds numbers that are not finite, or tensors that would not be used:
            those of text encoders, of other modules, of a layout that diffusers does not know.
    """
    raw, about = _read(file)
    raw = _of_diffusers(raw, file, network) if part == "unet" else raw
    tensors, alphas, unused = _converted(raw, file, network, part, pipeline)
    if unused:
        raise _refused(file, unused, raw, "are not read by diffusers", remedy="save it as a plain LoRA")
    known = dict(network.named_modules())
    strange = [name for name in [*tensors, *alphas] if _module(name) not in known]
    if strange:
        raise _refused(file, strange, raw, f"are of modules that the {part} does not have", remedy=FAMILY)
    _check_shapes(file, tensors, known)
    config = _metadata_config(file, about, part, tensors) or _derived_config(tensors, alphas)
    return LoraFile(file, {name: value.float() for name, value in tensors.items()}, config, alphas)


def put(network: Any, held: LoraFile, adapter: str) -> None:
    """Attach a LoRA file to a network as the adapter of that name.

    Raises:
        InputError: its metadata and its tensors contradict each other, or it does not fit.
    """
    from peft import inject_adapter_in_model, set_peft_model_state_dict
    from peft.utils import get_peft_model_state_dict

    weights = {name: value.clone() for name, value in held.tensors.items()}
    device = next(network.parameters()).device
    with quiet(), device, reading(held.file, "a LoRA of this network", remedy=FAMILY):
        inject_adapter_in_model(held.config, network, adapter_name=adapter, state_dict=weights)
        network._hf_peft_config_loaded = True  # what diffusers' own loading sets, for `unload_lora`
        made = get_peft_model_state_dict(network, adapter_name=adapter)
    shapes = {name: tuple(value.shape) for name, value in made.items()}
    for name in sorted({*shapes, *weights}):
        found = tuple(weights[name].shape) if name in weights else None
        if shapes.get(name) != found:
            what = f"{name} has shape {found}, and by the file's metadata {shapes.get(name)}"
            raise InputError(what, where=held.file, remedy="save it again with diffusers")
    for name, alpha in held.alphas.items():
        layer = network.get_submodule(name)
        if layer.lora_alpha[adapter] != alpha:
            what = f"{name} has alpha {alpha}, and by the file's metadata {layer.lora_alpha[adapter]}"
            raise InputError(what, where=held.file, remedy="save it again with diffusers")
    if device.type != "meta":
        set_peft_model_state_dict(network, weights, adapter_name=adapter)


def fuse(network: Any, held: LoraFile) -> None:
    """Add a LoRA's B A alpha / rank to the weights, for full fine-tuning that starts from it."""
    put(network, held, "fused")
    with quiet(), reading(held.file, "a LoRA of this network", remedy=FAMILY):
        network.fuse_lora()
        network.unload_lora()


def _read(file: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
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
        raise _refused(file, strange, raw, "are no weights of a LoRA", remedy=remedy)
    refuse_types(header, [name for name in raw if not (name.endswith(".alpha") and header.types[name][0] in "IU")])
    raw = {
        name: value.float() if header.types[name].startswith("F8") else value for name, value in raw.items()
    }  # exact
    broken = [name for name, value in raw.items() if not bool(torch.isfinite(value.float()).all())]
    if broken:
        raise _refused(file, broken, raw, "hold numbers that are not finite", remedy="fetch it again, or train it anew")
    return raw, about


def _of_diffusers(raw: Mapping[str, Tensor], file: Path, network: Any) -> dict[str, Tensor]:
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
        raise _refused(file, strange, raw, "are of modules that the unet does not have", remedy=FAMILY)
    found = {name: value for name, value in raw.items() if name not in mine}
    for name in mine:
        module, end = known[f"{_stem(name)}.weight"].removesuffix(".weight"), name.removeprefix(_stem(name))
        for old, new in ((".lora_A.", ".lora_down."), (".lora_B.", ".lora_up.")):
            end = end.replace(old, new)
        place = f"lora_unet_{module.replace('.', '_')}{end}"
        if place in found:
            raise _refused(file, [name], raw, f"are there twice, also as {place}", remedy="take one of them out")
        found[place] = raw[name]
    return found


def _converted(
    raw: Mapping[str, Tensor], file: Path, network: Any, part: str, pipeline: Any
) -> tuple[dict[str, Tensor], dict[str, float], list[str]]:
    """(tensors by peft's names, alpha by module, names in the file of what did not get there).

    To each tensor a zero is added whose gradient tells whether the tensor reached the result.
    """
    marks = {name: torch.zeros((), requires_grad=True) for name, value in raw.items() if value.is_floating_point()}
    marked = {name: value + marks[name].to(value.dtype) if name in marks else value for name, value in raw.items()}
    with quiet(), reading(file, f"a LoRA that diffusers reads for {pipeline.__name__}", remedy=FAMILY):
        try:
            found = pipeline.lora_state_dict(marked, unet_config=network.config, return_alphas=True)
        except ValueError as error:  # which names the tensors on its third line
            raise ValueError(" ".join(str(error).split())) from error
        state, given = found if isinstance(found, tuple) else (found, None)
        state = {**state, **(given or {})}
    parts = {name.partition(".")[0] for name in state}
    texts = [name for name in state if name.startswith("text_encoder")]
    if texts:
        remedy = "merge the file into the base (docs/backbones) and give that as model.base, or leave these tensors out"
        raise _refused(
            file, texts, state, "are for text encoders, and prompts are encoded by the base's", remedy=remedy
        )
    prefix = f"{part}." if part in parts else ""
    tensors: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for name, value in state.items():
        renamed = _peft_name(name.removeprefix(prefix) if name.startswith(prefix) else name)
        if name.endswith(".alpha"):
            alphas[_module(renamed)] = float(torch.as_tensor(value).detach())
        else:
            tensors[renamed] = value
    ends = [value.sum() for value in tensors.values() if value.requires_grad]
    gradients = torch.autograd.grad(ends, [*marks.values()], allow_unused=True) if ends else [None] * len(marks)
    reached = {name for name, gradient in zip(marks, gradients, strict=True) if gradient is not None}
    stems = {_stem(name) for name in reached}
    unused = [name for name in raw if name not in reached and not (name.endswith(".alpha") and _stem(name) in stems)]
    return {name: value.detach() for name, value in tensors.items()}, alphas, unused


def _peft_name(name: str) -> str:
    """A name of either older layout of diffusers, as peft has it."""
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    return next(iter(convert_unet_state_dict_to_peft({name: None})))


def _stem(name: str) -> str:
    """The name of a tensor in a file without its ending: what the tensors of one module have in common."""
    return _WEIGHT.sub("", name)


def _module(name: str) -> str:
    """The module of a tensor, or of an alpha, by its name in peft's layout."""
    return re.split(r"\.lora_(?:[AB]|magnitude_vector)\b", name.removesuffix(".alpha"))[0]


def _check_shapes(file: Path, tensors: Mapping[str, Tensor], known: Mapping[str, nn.Module]) -> None:
    """Refuse matrices that are not of their module's width, or whose ranks differ."""
    for name in sorted({_module(each) for each in tensors}):
        layer: Any = known[name]
        down, up = (tensors.get(f"{name}.lora_{side}.weight") for side in "AB")
        if down is None or up is None:
            missing = f"{name}.lora_{'A' if down is None else 'B'}.weight"
            raise InputError(f"{missing} is missing, the other half is there", where=file, remedy="fetch it again")
        weight = getattr(layer, "weight", None)
        if not isinstance(layer, nn.Linear | nn.Conv2d) or weight is None:
            what = f"{name} is a {type(layer).__name__}, which takes no LoRA"
            raise InputError(what, where=file, remedy=FAMILY)
        rank, shape = down.shape[0], tuple(weight.shape)
        wanted = (rank, *shape[1:]), (shape[0], rank, *(1 for _ in shape[2:]))
        if (tuple(down.shape), tuple(up.shape)) != wanted:
            what = f"{name} holds {tuple(down.shape)} and {tuple(up.shape)}, its weight {shape} needs {wanted}"
            raise InputError(what, where=file, remedy=FAMILY)


def _derived_config(tensors: Mapping[str, Tensor], alphas: Mapping[str, float]) -> Any:
    """peft's config of a file without metadata: rank by shape; alpha as the file has it, else the rank.

    Deviations: diffusers 0.42 gives all attention modules of a kohya file one alpha, the most common; here each has
    its own, as the trainers that write such files, WebUI and ComfyUI have it.
    """
    from peft import LoraConfig

    ranks = {_module(name): value.shape[0] for name, value in tensors.items() if name.endswith(".lora_A.weight")}
    scales = {name: alphas.get(name, float(rank)) for name, rank in ranks.items()}
    rank, alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(scales.values()).most_common(1)[0][0]
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a fraction is fine
        target_modules=sorted(ranks),
        rank_pattern={f"^{re.escape(name)}": each for name, each in ranks.items() if each != rank},
        alpha_pattern={f"^{re.escape(name)}": each for name, each in scales.items() if each != alpha},
        use_dora=any("lora_magnitude_vector" in name for name in tensors),
        lora_bias=any(name.endswith(".lora_B.bias") for name in tensors),
    )


def _metadata_config(file: Path, about: Mapping[str, Any], part: str, tensors: Mapping[str, Tensor]) -> Any:
    """peft's config by a file's adapter metadata; None where it says nothing of this part."""
    from peft import LoraConfig

    fields = {name.removeprefix(f"{part}."): value for name, value in about.items() if name.startswith(f"{part}.")}
    fields = fields or {name: value for name, value in about.items() if "." not in name}
    if not fields:
        return None
    check_fields(file, fields, part)
    usual = {**LoraConfig().to_dict(), **dict.fromkeys((*KEPT, *_IDLE))}
    other = [
        name for name, value in fields.items() if usual.get(name) not in (None, value) or (value and name not in usual)
    ]
    if fields.get("init_lora_weights", True) not in (True, False, "gaussian", "orthogonal"):  # others change the base
        other.append("init_lora_weights")
    if other:
        what = f"its metadata sets {', '.join(other)}, which is not read"
        raise InputError(what, where=file, remedy="save it as a plain LoRA")
    with reading(file, "a LoRA with peft's metadata", remedy="save it again with diffusers"):
        named = {"target_modules": sorted({_module(name) for name in tensors})}
        return LoraConfig(**{**named, **{name: value for name, value in fields.items() if name in KEPT}})


def check_fields(file: Path, fields: Mapping[str, Any], part: str) -> None:
    """Refuse adapter metadata without a rank and an alpha, or in which a number or a yes or no is something else.

    Raises:
        InputError: names the field.
    """
    if fields.get("r") is None or fields.get("lora_alpha") is None:
        raise InputError(f"no rank and alpha of the {part} in its header", where=file, remedy="save it again with both")
    for name, value in fields.items():
        types, wanted = _FIELDS.get(name, ((), ""))
        held = [*value.values()] if name.endswith("_pattern") and isinstance(value, dict) else [value]
        fits = all(type(each) in types and (types == (bool,) or 0 < each < math.inf) for each in held)
        if types and value is not None and not fits:
            what = f"its metadata sets {name} to {value!r}, which is not {wanted}"
            raise InputError(what, where=file, remedy="save it again with diffusers")


def _refused(file: Path, names: Sequence[str], of: Mapping[str, Any], what: str, *, remedy: str) -> InputError:
    first = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
    return InputError(f"{len(names)} of its {len(of)} tensors {what} ({first})", where=file, remedy=remedy)
