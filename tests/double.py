"""Networks in float64: two computations of the same thing then differ by what they do, not by a processor's kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel


def networks_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """UNets, VAEs and CLIP text models compute in float64 from here on; their weights become float64 at the first call.

    What lies between them stays what it is: the cache and a sample in an inversion are float32.
    """

    def widen(value: Any) -> Any:
        return value.double() if torch.is_tensor(value) and value.is_floating_point() else value

    def wider(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: torch.nn.Module, *args: Any, **own: Any) -> Any:
            return function(self.double(), *map(widen, args), **{name: widen(value) for name, value in own.items()})

        return call

    for owner, name in ((UNet2DConditionModel, "forward"), (AutoencoderKL, "encode"), (CLIPTextModel, "forward")):
        monkeypatch.setattr(owner, name, wider(getattr(owner, name)))
