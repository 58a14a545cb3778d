"""A frozen base in fewer bits, by diffusers' own quantisation: what a LoRA is trained on, and pictures are drawn with,
where memory is short.

int8: linear weights in 8 bits, one scale a row (torchao). nf4: in 4 bits, one scale for 64 numbers (bitsandbytes, which
has no kernels for CPUs in diffusers). A forward takes the weights back to the network's own precision, so policy and
reference, the same network with its adapters on and off, are equal before the first step.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from finepref.core.errors import ConfigError, check_word

Quantization = Literal["int8", "nf4"]
BYTES: Mapping[str, float] = {"int8": 1.0, "nf4": 0.5 + 4.0 / 64}
"""Bytes of a linear weight; scales of int8 rows are left out, as they are one in thousands."""
EXTRAS = {"int8": ("torchao", "quant"), "nf4": ("bitsandbytes", "bnb")}


def check_quantization(kind: str | None, device: torch.device | str, *, where: str = "model.quantize") -> None:
    """Refuse a quantisation that this machine cannot do.

    Raises:
        ConfigError: an unknown one, its library is not installed, or it has no kernels here.
    """
    if kind is None:
        return
    check_word(kind, EXTRAS, "quantisation", where=where)
    import importlib.util

    library, extra = EXTRAS[kind]
    if importlib.util.find_spec(library) is None:
        remedy = f"pip install 'finepref[{extra}]'"
        raise ConfigError(f"{kind} needs {library}, which is not installed", where=where, remedy=remedy)
    if kind == "nf4" and torch.device(device).type == "cpu":
        what = "nf4 has no kernels for a CPU in diffusers"
        raise ConfigError(what, where=where, remedy="use int8, or a GPU")


def config_of(kind: str | None, dtype: torch.dtype) -> Any:
    """diffusers' config of a quantisation; None for none. dtype: what weights are taken back to."""
    if kind is None:
        return None
    import diffusers

    with warnings.catch_warnings(action="ignore"):
        if kind == "nf4":
            return diffusers.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        from torchao.quantization import Int8WeightOnlyConfig

        return diffusers.TorchAoConfig(Int8WeightOnlyConfig())


def is_plain(value: Tensor) -> bool:
    """Whether a tensor holds its numbers as they are."""
    return type(value.data) is Tensor and value.dtype not in (torch.uint8, torch.int8)


def quantizable(network: nn.Module) -> int:
    """How many numbers of a network quantisation takes: the weights of its linear layers, adapters left out."""
    layers = (layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear) and "lora_" not in name)
    return sum(layer.weight.numel() for layer in layers)
