"""A denoiser with its frozen reference, behind the `Adapter` protocol; the family says how the network is called.

Shapes: N images, C channels, h w latent size.
"""

from __future__ import annotations

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
from finepref.models.precision import autocast_forward, follow_mode, freeze_copy, store_half, widen
from finepref.models.protocol import Network
from finepref.models.source import Source, assemble, empty_part, load_vae, pipeline_class


class Denoiser:
    """Policy and reference of one family.

    Full fine-tuning: the reference is a frozen copy. LoRA: the reference is the policy with its adapters off. Both run
    under the same autocast, so that equal weights give equal numbers.
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
        self._reference = freeze_copy(policy) if reference and switch is None else None
        self._has_reference = reference
        if dtype is not None:
            frozen = policy if switch is not None else self._reference
            if frozen is not None:
                store_half(frozen, dtype)
        self._policy = policy if sharded else policy.to(device)
        if self._reference is not None and not sharded:
            self._reference.to(device)
        if dtype is not None:
            for network in filter(None, (self._policy, self._reference)):
                autocast_forward(network, device, dtype)

    def condition(self, prompts: Mapping[str, Tensor], sizes: Sequence[ImageSize]) -> dict[str, Tensor]:
        """Cached prompt tensors and image sizes -> what `predict` takes, each [N,...], on the device."""
        on_device = {name: value.to(self.device, non_blocking=True) for name, value in prompts.items()}
        return self._family.condition(on_device, sizes, self.resolution, self._micro)

    def predict(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor], *, network: Network = "policy") -> Tensor:
        """Native prediction [N,C,h,w] at x [N,C,h,w], house time t [N], in float32 or wider.

        Raises:
            RuntimeError: the reference is asked for and the adapter was loaded without one.
        """
        if network == "policy":
            return widen(self._family.call(self._policy, x, t, cond))
        if not self._has_reference:
            raise RuntimeError("this adapter was loaded without a reference")
        with torch.no_grad():
            if self._switch is not None:
                with self._switch.reference():
                    return widen(self._family.call(self._policy, x, t, cond))
            assert self._reference is not None
            return widen(self._family.call(self._reference, x, t, cond))

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
            lora.save(pipeline_class(self._source), self._policy, part, folder, weights)
            return
        network = self._policy
        if weights is not None:
            network = empty_part(self._source, part, self._policy.config)
            network.load_state_dict(weights, assign=True)
        with atomic_folder(folder / part) as place:
            network.save_pretrained(str(place), safe_serialization=True)

    def pipeline(self) -> Any:
        """A diffusers pipeline around the current policy; the other parts are read once, at the first call."""
        if self._pipe is None:
            held = {self._family.part: self._policy, "vae": load_vae(self._source, self._vae)}
            self._pipe = assemble(self._source, held).to(self.device)
            self._pipe.set_progress_bar_config(disable=True)
        return self._pipe
