"""One numeric regime for policy and reference: the same kernels under the same autocast.

Full precision weights under autocast cast every linear and convolution weight to half before use. A frozen network may
therefore store exactly those weights in half: the numbers are bit for bit the same, at half the memory and no casting.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from finepref.core.errors import InputError, check_word
from finepref.models.quantized import is_plain

DTYPES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# What autocast runs in half; norms and everything else keep full-precision weights.
CAST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


def compute_dtype(precision: str, *, where: str = "train.mixed_precision") -> torch.dtype | None:
    """The type of half precision that a setting names; None for full precision."""
    check_word(precision, DTYPES, "precision", where=where)
    return DTYPES[precision]


def cast_layers(network: nn.Module) -> list[nn.Module]:
    """The layers whose weights autocast runs in half, LoRA's own left out."""
    return [layer for name, layer in network.named_modules() if isinstance(layer, CAST) and "lora_" not in name]


def store_half(network: nn.Module, dtype: torch.dtype, place: torch.device | None = None) -> None:
    """Store a frozen network's linear and convolution weights in `dtype`, as autocast would cast them at each call.

    place: where they go, one by one, so that there is no second copy where they were; None leaves them there.
    """
    for layer in cast_layers(network):
        for name, parameter in [*layer.named_parameters(recurse=False)]:
            if is_plain(parameter):  # a quantised weight is taken back to that type at each call
                half = parameter.detach().to(place, dtype)
                setattr(layer, name, nn.Parameter(half, requires_grad=parameter.requires_grad))


def autocast_forward(module: nn.Module, device: torch.device, dtype: torch.dtype, *, widened: bool = False) -> None:
    """Make every call of `module` run under autocast, whoever calls it (our step or a diffusers pipeline).

    widened: a tuple's first tensor comes back in float32, as a pipeline's samplers and VAE, which are float32, want it.
    """
    forward = module.forward

    @functools.wraps(forward)
    def under_autocast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, dtype=dtype):
            found = forward(*args, **kwargs)
        plain = widened and isinstance(found, tuple) and isinstance(found[0], torch.Tensor)
        return (found[0].float(), *found[1:]) if plain else found

    module.forward = under_autocast  # type: ignore[method-assign]


def to_half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of weights as float16.

    Raises:
        InputError: it holds numbers beyond those of float16.
    """
    made = tensor.half() if tensor.is_floating_point() else tensor
    if not bool(made.isfinite().all()):
        what = f"{name} holds {float(tensor.abs().max()):.3g}, and float16 ends at 65504"
        raise InputError(what, where="half", remedy="leave it out")
    return made


def widen(network: nn.Module, *, but: Collection[nn.Module] = ()) -> None:
    """Store floating-point weights in float32, those of some layers left out."""
    for layer in network.modules():
        for parameter in () if layer in but else layer.parameters(recurse=False):
            if parameter.is_floating_point() and is_plain(parameter):
                parameter.data = parameter.data.float()


def freeze_copy(module: nn.Module, *, moved: bool = False) -> nn.Module:
    """A frozen copy of the policy. moved: both go to a device afterwards, and so may have one memory until then."""
    shared = {id(p): nn.Parameter(p.detach()) for p in module.parameters()} if moved else {}
    return copy.deepcopy(module, shared).eval().requires_grad_(False)


def follow_mode(copied: nn.Module, on: bool) -> None:
    """Put a frozen copy into the policy's mode, its dropout excepted.

    Some blocks choose memory layouts, and with them kernels, by their mode: in another mode than the policy, a copy of
    equal weights differs by 1e-6 (seen on SDXL in float32; 1e-2 in bfloat16), and the first implicit score is not zero.
    """
    copied.train(on)
    for child in copied.modules():
        if isinstance(child, nn.Dropout):
            child.eval()
