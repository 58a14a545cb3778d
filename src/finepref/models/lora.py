"""Low-rank adapters: attach, switch between policy and reference, save with their scale, load.

W x + (alpha / rank) B A x, or alpha / sqrt(rank) where it is rank-stabilised, with A drawn from N(0, 1 / rank^2) and
B = 0, so that the policy starts as the base.
The names of the adapters inside the network: `default` is trained, `reference` is a frozen copy of a LoRA that the run
starts from; without such a start the reference is the network with its adapters off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finepref.core import rng
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import atomic_file, parse_json, reading
from finepref.core.known import refuse_damaged
from finepref.core.options import Options, told
from finepref.core.seal import seal
from finepref.models.header import read_header
from finepref.models.lora_file import KEPT, LoraFile, check_fields, put, widen_adapters
from finepref.models.lora_layouts import METADATA, TEXT, loose, published_text
from finepref.models.source import quiet

FILE = "pytorch_lora_weights.safetensors"
POLICY, REFERENCE = "default", "reference"


class LoraSettings(Options):
    """Low-rank adapters instead of full fine-tuning; the reference is the model with the adapters off."""

    rank: int = told(8, "rank of the two matrices that stand for a weight's change", ge=1)
    alpha: float | None = told(None, "scale is alpha / rank; null = rank", gt=0)
    targets: list[str] | None = told(
        None, "module name endings; null = the family's attention projections, or those of a LoRA start", min_length=1
    )
    rslora: bool = told(False, "scale is alpha / sqrt(rank) (arXiv 2312.03732)")
    dora: bool = told(False, "length and direction of every output's weights apart (arXiv 2402.09353)")
    dropout: float = told(
        0.0, "share of the adapters' inputs that a step leaves out, drawn for each pair (or image, KTO)", ge=0, lt=1
    )
    text_encoder: bool = told(
        False, "train the text encoders too (sd15, sdxl), their attention projections; prompts are then encoded anew"
    )

    def resolved(self, default_targets: Sequence[str]) -> tuple[float, list[str]]:
        """(alpha, targets) with what is None filled in."""
        return self.alpha or self.rank, self.targets or list(default_targets)


def attach(
    network: Any, settings: LoraSettings, default_targets: Sequence[str], *, seed: int, before: str = ""
) -> None:
    """Add the trained adapter to a frozen network; A is a function of the seed and of the module's name.

    before: what stands before the names of the network's modules, where several networks are trained.

    Raises:
        ConfigError: no module of the network ends in one of the targets.
    """
    from peft import LoraConfig

    alpha, targets = settings.resolved(default_targets)
    made: dict[str, Any] = {"r": settings.rank, "lora_alpha": alpha, "target_modules": targets}
    made |= {"use_rslora": settings.rslora, "use_dora": settings.dora}
    config = LoraConfig(init_lora_weights="gaussian", **made)
    try:
        network.add_adapter(config, adapter_name=POLICY)
    except ValueError as error:
        what = f"no module of the network is called {', '.join(targets)}"
        remedy = f"the family's own are {', '.join(default_targets)}"
        raise ConfigError(what, where="lora.targets", remedy=remedy) from error
    widen_adapters(network)
    for name, parameter in network.named_parameters():
        if f"lora_A.{POLICY}" in name:
            draw = torch.randn(parameter.shape, generator=rng.torch_generator(seed, "lora", before + name))
            parameter.data.copy_(draw / settings.rank)


def attach_copy(network: Any) -> None:
    """Add a frozen `reference` copy of the trained adapter, for a reference that moves."""
    from peft import set_peft_model_state_dict
    from peft.utils import get_peft_model_state_dict

    weights = get_peft_model_state_dict(network, adapter_name=POLICY)
    with quiet():  # of a second adapter, which is meant
        network.add_adapter(network.peft_config[POLICY], adapter_name=REFERENCE)
    widen_adapters(network)
    set_peft_model_state_dict(network, {k: v.clone() for k, v in weights.items()}, adapter_name=REFERENCE)
    _train_policy(network)


def _train_policy(network: Any) -> None:
    network.set_adapter(POLICY)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(f".{POLICY}." in name and "lora_" in name)


def check_asked(network: Any, held: LoraFile, settings: LoraSettings) -> None:
    """Compare what a run asks for with the LoRA that it starts from.

    Where the file's modules differ in rank or alpha, they are trained as they are; the run names the most common ones.

    Raises:
        ConfigError: another rank, alpha or targets than the file has.
    """
    modules = held.modules()
    alpha, targets = settings.resolved(sorted(modules))
    named = {name for name, _ in network.named_modules() if any(f".{name}".endswith(f".{end}") for end in targets)}
    asked = {
        "rank": (settings.rank, held.config.r),
        "alpha": (alpha, held.config.lora_alpha),
        "rslora": (settings.rslora, held.config.use_rslora),
        "dora": (settings.dora, held.config.use_dora),
    }
    for name, (wanted, found) in asked.items():
        if wanted != found:
            what = f"the run asks for {wanted}, the LoRA of model.init_from has {found}"
            raise ConfigError(what, where=f"lora.{name}", remedy=f"set lora.{name} to the file's value")
    if named != modules:
        other = sorted(named ^ modules)[0]
        what = (
            f"{len(named)} modules have these names, the LoRA of model.init_from has {len(modules)} ({other} differs)"
        )
        raise ConfigError(what, where="lora.targets", remedy="null takes the file's")


def attach_from(network: Any, held: LoraFile) -> None:
    """Start from a LoRA: the trained adapter and its frozen `reference` copy both hold the file's weights."""
    for adapter in (REFERENCE, POLICY):
        put(network, held, adapter, wide=True)
    _train_policy(network)


class Switch:
    """Turns networks' adapters off (or to their frozen copies) for a reference pass, without walking the networks.

    bare: off, also where there is a frozen copy of what a run started from.
    """

    def __init__(self, *networks: nn.Module, bare: bool = False) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers: list[Any] = [
            layer for each in networks for layer in each.modules() if isinstance(layer, BaseTunerLayer)
        ]
        copied, off = ("_active_adapter", [REFERENCE]), ("_disable_adapters", True)
        self.places = [(layer, *(copied if REFERENCE in layer.lora_A and not bare else off)) for layer in layers]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the network is the reference. Only for passes without gradient."""
        before = [getattr(layer, field) for layer, field, _ in self.places]
        for layer, field, value in self.places:
            setattr(layer, field, value)
        try:
            yield
        finally:
            for (layer, field, _), old in zip(self.places, before, strict=True):
                setattr(layer, field, old)


def state(
    network: Any, weights: Mapping[str, torch.Tensor] | None = None, *, before: str = ""
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(weights, metadata) of the trained adapter, as `save_lora_weights` of a diffusers pipeline takes them.

    weights: parameters by name that stand for the network's own, each name after `before`.
    """
    from peft.utils import get_peft_model_state_dict

    held = {name: p for name, p in network.named_parameters() if f".{POLICY}." in name and "lora_" in name}
    held |= {name: weights[before + name] for name in held if before + name in (weights or {})}  # type: ignore[index]
    weights = get_peft_model_state_dict(network, state_dict=held, adapter_name=POLICY)
    metadata = {k: v for k, v in network.peft_config[POLICY].to_dict().items() if k in KEPT}
    metadata["target_modules"] = sorted(metadata["target_modules"])
    return {k: v.detach().cpu().contiguous() for k, v in weights.items()}, metadata


def saving(
    pipeline_class: Any, networks: Mapping[str, Any], weights: Mapping[str, torch.Tensor] | None = None
) -> Callable[[Path], None]:
    """What writes `pytorch_lora_weights.safetensors`, with rank and alpha in its metadata (else the scale is lost).

    Args:
        networks: by the names of their parts; the modules of text encoders get the names that published files have.
        weights: trained parameters by name that stand for the networks' own, such as an average, or whole ones where a
            network holds only shards.
    """
    layers: dict[str, Any] = {}
    for part, network in networks.items():
        tensors, metadata = state(network, weights, before=f"{part}." if part.startswith(TEXT) else "")
        if part.startswith(TEXT):
            tensors, metadata = published_text(tensors), loose(metadata)
        layers |= {f"{part}_lora_layers": tensors, f"{part}_{METADATA}": metadata}

    def write(folder: Path) -> None:
        with atomic_file(folder / FILE) as temporary:
            pipeline_class.save_lora_weights(str(folder), weight_name=temporary.name, **layers)
            seal(temporary)

    return write


def parts(folder: Path) -> list[str]:
    """The parts that a LoRA file of ours changes, the denoiser first."""
    found = {name.partition(".")[0] for name in read_header(folder / FILE).shapes}
    return sorted(found, key=lambda name: (name.startswith(TEXT), name))


def read(folder: Path, part: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(weights without the part's prefix, adapter metadata) of a LoRA file that we wrote.

    Raises:
        InputError: no such file, or one without rank and alpha.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    file = folder / FILE
    if not file.is_file():
        raise InputError(f"no {FILE}", where=folder, remedy="give the folder of a LoRA run")
    with reading(file, "a whole safetensors file", remedy="fetch it again"):
        refuse_damaged(file, remedy="fetch it again")
        with safe_open(str(file), framework="pt") as handle:
            header: Mapping[str, str] = handle.metadata() or {}
        tensors, metadata = load_file(file), parse_json(header.get(METADATA, "{}"))
    if METADATA not in header or not isinstance(metadata, dict):
        remedy = "save it again with diffusers' adapter metadata"
        raise InputError("the LoRA file does not say its rank and alpha", where=file, remedy=remedy)
    prefix = f"{part}."
    fields, weights = (
        {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}
        for content in (metadata, tensors)
    )
    if not weights:
        raise InputError(f"the LoRA file holds nothing for the {part}", where=file, remedy="it is of another family")
    check_fields(file, fields, part)
    return weights, fields
