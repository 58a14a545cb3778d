"""A denoiser with its frozen reference, behind the `Adapter` protocol; the family says how the network is called.

Shapes: N images, C channels, h w latent size.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor, nn

from finepref.core.files import atomic_folder
from finepref.core.images import ImageSize
from finepref.diffusion.path import Path
from finepref.models import lora
from finepref.models.family import Family
from finepref.models.precision import autocast_forward, follow_mode, freeze_copy, store_half
from finepref.models.protocol import Predict
from finepref.models.source import Source, load_class, load_vae, quiet, unmarked


class Denoiser:
    """Policy and reference of one family.

    policy, reference: (x [N,C,h,w], house time t [N], cond) -> native prediction [N,C,h,w]; the reference of an adapter
    that was loaded without one raises. Full fine-tuning: the reference is a frozen copy. LoRA: the reference is the
    policy with its adapters off. Both run under the same autocast, so that equal weights give equal numbers.
    """

    def __init__(
        self,
        source: Source,
        family: Family,
        policy: Any,
        *,
        path: Path,
        resolution: int,
        device: torch.device,
        reference: bool,
        switch: lora.Switch | None,
        dtype: torch.dtype | None,
        micro_conditioning: str | None,
        vae: str | None,
        sharded: bool = False,
    ) -> None:
        self.family = family.name
        self.path, self.resolution, self.device = path, resolution, device
        self._family, self._source, self._vae = family, source, vae
        self._micro, self._switch = micro_conditioning, switch
        self._pipe: Any = None
        self._reference: nn.Module | None = None
        if reference and switch is None:
            self._reference = freeze_copy(policy)
        if dtype is not None:
            frozen = policy if switch is not None else self._reference
            if frozen is not None:
                _store_frozen_half(frozen, dtype)
        self._policy = policy if sharded else policy.to(device)
        if self._reference is not None and not sharded:
            self._reference.to(device)
        if dtype is not None:
            for network in filter(None, (self._policy, self._reference)):
                autocast_forward(network, device, dtype)
        self.policy: Predict = functools.partial(family.call, self._policy)
        self.reference: Predict = _no_reference
        if self._reference is not None:
            self.reference = functools.partial(family.call, self._reference)
        elif reference:
            self.reference = self._without_adapters

    def condition(self, prompts: Mapping[str, Tensor], sizes: Sequence[ImageSize]) -> dict[str, Tensor]:
        """Cached prompt tensors and image sizes -> what the networks take, each [N,...], on the device."""
        on_device = {name: value.to(self.device, non_blocking=True) for name, value in prompts.items()}
        if self._family.condition is None:
            return on_device
        return self._family.condition(on_device, sizes, self.resolution, self._micro)

    def _without_adapters(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        assert self._switch is not None
        with self._switch.reference():
            return self.policy(x, t, cond)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The trained parameters by name, in the network's order."""
        return [(name, p) for name, p in self._policy.named_parameters() if p.requires_grad]

    def policy_module(self) -> nn.Module:
        """The network that is trained."""
        module: nn.Module = self._policy
        return module

    def reference_module(self) -> nn.Module | None:
        """The frozen copy (to shard it); None where the reference is the policy without adapters, or there is none."""
        return self._reference

    def train_mode(self, on: bool) -> None:
        """Training or evaluation mode of the policy; the frozen copy never drops anything out."""
        self._policy.train(on)
        if self._reference is not None:
            follow_mode(self._reference, on)

    def save(self, folder: FilePath, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write `unet/` or `transformer/`, or the LoRA file, where diffusers expects them; whole or not at all.

        weights: the whole trained parameters by name, where the policy holds only shards of them.
        """
        folder, part = FilePath(folder), self._family.part
        if self._switch is not None:
            lora.save(self._pipeline_class(), self._policy, part, folder, weights)
            return
        network = self._policy
        if weights is not None:
            cls = load_class("diffusers", self._source.index[part][1], where=self._source.folder)
            with torch.device("meta"):
                network = cls.from_config(self._policy.config)
            network.load_state_dict(weights, assign=True)
        with atomic_folder(folder / part) as place:
            network.save_pretrained(str(place), safe_serialization=True)

    def pipeline(self) -> Any:
        """A diffusers pipeline around the current policy; the other parts are read once, at the first call."""
        if self._pipe is None:
            source, part = self._source, self._family.part
            cls = self._pipeline_class()
            held = {part: self._policy, "vae": load_vae(source, self._vae)}
            with quiet():
                self._pipe = cls.from_pretrained(str(source.folder), **(source.absent() | unmarked(cls) | held))
            self._pipe.to(self.device)
            self._pipe.set_progress_bar_config(disable=True)
        return self._pipe

    def _pipeline_class(self) -> Any:
        return load_class("diffusers", str(self._source.index["_class_name"]), where=self._source.folder)


def _no_reference(x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
    raise RuntimeError("this adapter was loaded without a reference")


def _store_frozen_half(network: nn.Module, dtype: torch.dtype) -> None:
    """Half storage of a frozen network's weights; LoRA weights inside it stay in full precision."""
    for name, child in network.named_modules():
        if "lora_" not in name and isinstance(child, nn.Module) and not list(child.children()):
            store_half(child, dtype)
