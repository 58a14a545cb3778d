"""A denoiser with its frozen reference, behind the `Adapter` protocol; the family says how the network is called.

Shapes: N images, C channels, h w latent size.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor, nn

from finepref.core.files import atomic_folder
from finepref.core.images import ImageSize
from finepref.diffusion.path import Path
from finepref.models import lora as low_rank
from finepref.models.family import Family
from finepref.models.precision import follow_mode, widen
from finepref.models.protocol import Network
from finepref.models.source import Source, assemble, empty_part, load_vae, pipeline_class


@dataclass(eq=False, kw_only=True)
class Denoiser:
    """Policy and reference of one family, made by `models.load.load_adapter`.

    Full fine-tuning: `reference` is a frozen copy. LoRA: the reference is the policy, its adapters switched off. Both
    run under the same autocast, so that equal weights give equal numbers. Without a reference, both are None.
    lora: whether adapters are trained. vae: another VAE for the pipeline's decoding.
    """

    source: Source
    kind: Family
    policy: Any
    reference: nn.Module | None
    switch: low_rank.Switch | None
    lora: bool
    path: Path
    resolution: int
    device: torch.device
    micro_conditioning: str | None
    vae: str | None
    family: str = field(init=False)

    def __post_init__(self) -> None:
        self.family = self.kind.name

    def condition(self, prompts: Mapping[str, Tensor], sizes: Sequence[ImageSize]) -> dict[str, Tensor]:
        """Cached prompt tensors and image sizes -> what `predict` takes, each [N,...], on the device."""
        on_device = {name: value.to(self.device, non_blocking=True) for name, value in prompts.items()}
        return self.kind.condition(on_device, sizes, self.resolution, self.micro_conditioning)

    def predict(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor], *, network: Network = "policy") -> Tensor:
        """Native prediction [N,C,h,w] at x [N,C,h,w], house time t [N], in float32 or wider.

        Raises:
            RuntimeError: the reference is asked for and the adapter was loaded without one.
        """
        if network == "policy":
            return widen(self.kind.call(self.policy, x, t, cond))
        with torch.no_grad():
            if self.reference is not None:
                return widen(self.kind.call(self.reference, x, t, cond))
            if self.switch is None:
                raise RuntimeError("this adapter was loaded without a reference")
            with self.switch.reference():
                return widen(self.kind.call(self.policy, x, t, cond))

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The trained parameters by name, in the network's order."""
        return [(name, p) for name, p in self.policy.named_parameters() if p.requires_grad]

    def policy_module(self) -> nn.Module:
        """The network that is trained."""
        module: nn.Module = self.policy
        return module

    def reference_module(self) -> nn.Module | None:
        """The frozen copy (to shard it); None where the reference is the policy without adapters, or there is none."""
        return self.reference

    def train_mode(self, on: bool) -> None:
        """Training or evaluation mode of the policy; the frozen copy never drops anything out."""
        self.policy.train(on)
        if self.reference is not None:
            follow_mode(self.reference, on)

    def save(self, folder: FilePath, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write `unet/` or `transformer/`, or the LoRA file, where diffusers expects them; whole or not at all.

        weights: the whole trained parameters by name, where the policy holds only shards of them.
        """
        folder, part = FilePath(folder), self.kind.part
        if self.lora:
            low_rank.save(pipeline_class(self.source), self.policy, part, folder, weights)
            return
        network = self.policy
        if weights is not None:
            network = empty_part(self.source, part, self.policy.config)
            network.load_state_dict(weights, assign=True)
        with atomic_folder(folder / part) as place:
            network.save_pretrained(str(place), safe_serialization=True)

    def pipeline(self) -> Any:
        """A diffusers pipeline around the current policy; the other parts are read once, at the first call."""
        return self._pipeline

    @functools.cached_property
    def _pipeline(self) -> Any:
        held = {self.kind.part: self.policy, "vae": load_vae(self.source, self.vae)}
        pipe = assemble(self.source, held).to(self.device)
        pipe.set_progress_bar_config(disable=True)
        return pipe
