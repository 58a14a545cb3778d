"""A LoRA file of any layout that diffusers reads, as the weights that arrive in a network.

Every tensor of the file is used, or the file is refused by that tensor's name. Names are converted by diffusers' own
converters; rank and alpha of each module are the file's own numbers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from finepref.core.errors import InputError
from finepref.core.files import reading
from finepref.models.lora_layouts import (
    FAMILY,
    TEXT,
    converted,
    loose,
    module_of,
    of_diffusers,
    read_tensors,
    refused,
)
from finepref.models.source import quiet

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


@dataclass(frozen=True, slots=True)
class LoraFile:
    """The adapter of one network, the denoiser's or a text encoder's.

    file: where it is. tensors: `MODULE.lora_A.weight` and so on -> float32 value. config: peft's, with rank and alpha
    of each module. alphas: of the modules whose alpha is a tensor of the file.
    """

    file: Path
    tensors: Mapping[str, Tensor]
    config: Any
    alphas: Mapping[str, float]

    def modules(self) -> set[str]:
        """Names of the modules that it changes."""
        return {module_of(name) for name in self.tensors}


def read_lora(file: Path, networks: Mapping[str, nn.Module], pipeline: Any) -> dict[str, LoraFile]:
    """Read a LoRA for networks, which may be on the meta device; by part, for those that the file changes.

    Args:
        networks: by their names in the pipeline: first the denoiser (`unet` or `transformer`), then the text encoders
            that the file may change. pipeline: the diffusers class that reads LoRA files of this family.

    Raises:
        InputError: a file that is no whole LoRA, holds numbers that are not finite, or tensors that would not be used:
            those of other text encoders, of other modules, of a layout that diffusers does not know.
    """
    raw, about = read_tensors(file)
    part = next(iter(networks))
    raw = of_diffusers(raw, file, networks[part]) if part == "unet" else raw
    found, unused = converted(raw, file, networks, pipeline)
    if unused:
        raise refused(file, unused, raw, "are not read by diffusers", remedy="save it as a plain LoRA")
    said = {name.partition(".")[0] for name in about if "." in name} - {*found}
    if said:
        what = f"its metadata speaks of {', '.join(sorted(said))}, of which it has no tensors"
        raise InputError(what, where=file, remedy="save it again with diffusers")
    held = {}
    for name in [each for each in networks if each in found]:  # the denoiser first
        tensors, alphas = found[name]
        known = dict(networks[name].named_modules())
        strange = [each for each in [*tensors, *alphas] if module_of(each) not in known]
        if strange:
            raise refused(file, strange, raw, f"are of modules that the {name} does not have", remedy=FAMILY)
        _check_shapes(file, tensors, known)
        fields = _fields(about, name, alone=name == part)
        config = _metadata_config(file, fields, name, tensors) if fields else _derived_config(tensors, alphas)
        held[name] = LoraFile(file, {each: value.float() for each, value in tensors.items()}, config, alphas)
    return held


def put(network: Any, held: LoraFile, adapter: str, *, wide: bool = False) -> None:
    """Attach a LoRA file to a network as the adapter of that name. wide: in float32, whatever the network is in.

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
    if wide:
        widen_adapters(network)
    if device.type != "meta":
        set_peft_model_state_dict(network, weights, adapter_name=adapter)


def widen_adapters(network: Any) -> None:
    """Adapters have the type of the layers that they lie on; trained, they are in float32."""
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def fuse(network: Any, held: LoraFile) -> None:
    """Add a LoRA's B A alpha / rank to the weights, for full fine-tuning that starts from it."""
    put(network, held, "fused")
    with quiet(), reading(held.file, "a LoRA of this network", remedy=FAMILY):
        network.fuse_lora()
        network.unload_lora()


def _check_shapes(file: Path, tensors: Mapping[str, Tensor], known: Mapping[str, nn.Module]) -> None:
    """Refuse matrices that are not of their module's width, or whose ranks differ."""
    for name in sorted({module_of(each) for each in tensors}):
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

    ranks = {module_of(name): value.shape[0] for name, value in tensors.items() if name.endswith(".lora_A.weight")}
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


def _fields(about: Mapping[str, Any], part: str, *, alone: bool) -> dict[str, Any]:
    """What a file's adapter metadata say of a part; alone: also what they say of none."""
    fields = {name.removeprefix(f"{part}."): value for name, value in about.items() if name.startswith(f"{part}.")}
    return fields or {name: value for name, value in about.items() if alone and "." not in name}


def _metadata_config(file: Path, fields: Mapping[str, Any], part: str, tensors: Mapping[str, Tensor]) -> Any:
    """peft's config by what a file's adapter metadata say of a part."""
    from peft import LoraConfig

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
    kept = {name: value for name, value in fields.items() if name in KEPT}
    if part.startswith(TEXT):  # whose modules may have other names in the file than here; its tensors say which
        kept = {name: value for name, value in loose(kept).items() if name != "target_modules"}
    with reading(file, "a LoRA with peft's metadata", remedy="save it again with diffusers"):
        named = {"target_modules": sorted({module_of(name) for name in tensors})}
        return LoraConfig(**{**named, **kept})


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
