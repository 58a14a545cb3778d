"""A denoiser with its frozen reference: the family says how the network is called.

Shapes: N images, C channels, h w latent size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from finepref.core.buckets import Bucket
from finepref.core.errors import InputError
from finepref.core.files import atomic_folder, reading
from finepref.core.images import ImageSize
from finepref.diffusion.path import Path
from finepref.formats.folders import WEIGHTS
from finepref.models import lora as low_rank
from finepref.models.dropout import DrawnFor
from finepref.models.family import Family
from finepref.models.precision import follow_mode
from finepref.models.source import Source, assemble, empty_part, load_vae, pipeline_class
from finepref.models.text_encoders import TextEncoders


class Predict(Protocol):
    """The native prediction [N,C,h,w] at x [N,C,h,w], level t [N] (house time: discrete int or flow s in (0,1])."""

    def __call__(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor], /) -> Tensor: ...


@dataclass(eq=False, kw_only=True)
class Denoiser:
    """Policy and reference of one family, made by `models.load.load_adapter`.

    policy, reference: (x [N,C,h,w], house time t [N], cond) -> native prediction [N,C,h,w]; the reference of an adapter
    that was loaded without one raises. Full fine-tuning: the reference is a `frozen` copy of the `network`. LoRA: it is
    the network with its adapters switched off. Both run under the same autocast, so that equal weights give equal
    numbers. Predictions may be in half precision: who takes errors widens them first. lora: whether adapters are
    trained. vae: another VAE for the pipeline's decoding. drawn: whose dropout the next call of the policy draws; None
    where there is no dropout. texts: text encoders that are trained too; `cond` then holds their token ids.
    """

    source: Source
    kind: Family
    network: Any
    frozen: nn.Module | None
    switch: low_rank.Switch | None
    lora: bool
    path: Path
    device: torch.device
    micro_conditioning: str | None
    vae: str | None
    drawn: DrawnFor | None = None
    texts: TextEncoders | None = None
    family: str = field(init=False)
    policy: Predict = field(init=False)
    reference: Predict = field(init=False)

    def __post_init__(self) -> None:
        self.family = self.kind.name
        self.policy = functools.partial(self.kind.call, self.network) if self.texts is None else self._with_texts
        if self.frozen is not None:
            self.reference = functools.partial(self.kind.call, self.frozen)
        else:
            self.reference = self._without_adapters

    def condition(self, prompts: Mapping[str, Tensor], sizes: Sequence[ImageSize]) -> dict[str, Tensor]:
        """Cached prompt tensors and image sizes -> what the networks take, each [N,...], on the device."""
        on_device = {name: value.to(self.device, non_blocking=True) for name, value in prompts.items()}
        if self.kind.condition is None:
            return on_device
        return self.kind.condition(on_device, sizes, self.micro_conditioning)

    def check_prompts(self, prompts: Mapping[str, Tensor], *, where: FilePath) -> None:
        """Refuse prompt tensors of a cache that are not those which the network takes.

        Raises:
            InputError: one is missing, or of another width.
        """
        remedy = "make the cache of this model again with `finepref cache --overwrite`"
        size = ImageSize(1, 1, 0, 0, Bucket(1, 1))
        with reading(where, f"a cache of prompts for {self.family}", remedy=remedy):
            held = self.condition(prompts, [size])
        for name, shape in self.kind.shapes(self.network.config).items():
            if name not in held:
                raise InputError(f"its prompts have no {name!r}", where=where, remedy=remedy)
            if len(shape) > 1 and held[name].shape[-1] != shape[-1]:
                what = f"its {name} are {held[name].shape[-1]} wide, and the network takes {shape[-1]}"
                raise InputError(what, where=where, remedy=remedy)

    def _without_adapters(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        if self.switch is None:
            raise RuntimeError("this adapter was loaded without a reference")
        with self.switch.reference():
            return self.policy(x, t, cond)

    def _with_texts(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        assert self.texts is not None
        return self.kind.call(self.network, x, t, self.texts.embedded(cond))

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The trained parameters by name, in the networks' order; those of text encoders with their part before."""
        texts = [] if self.texts is None else self.texts.named()
        return [(name, p) for name, p in [*self.network.named_parameters(), *texts] if p.requires_grad]

    def reference_tensors(self) -> dict[str, Tensor]:
        """What the reference has in the place of every trained parameter, by that parameter's name."""
        held = dict((self.network if self.frozen is None else self.frozen).named_parameters())
        held |= {} if self.texts is None else dict(self.texts.named())
        ours, theirs = (f".{name}" for name in (low_rank.POLICY, low_rank.REFERENCE))
        return {name: held[name.replace(ours, theirs) if self.lora else name] for name, _ in self.trainable()}

    def policy_module(self) -> nn.Module:
        """The network that is trained."""
        return self.network

    def reference_module(self) -> nn.Module | None:
        """The frozen copy (to shard it); None where the reference is the policy without adapters, or there is none."""
        return self.frozen

    def train_mode(self, on: bool) -> None:
        """Training or evaluation mode of the policy; the frozen copy never drops anything out."""
        self.network.train(on)
        if self.texts is not None:
            self.texts.train_mode(on)
        if self.frozen is not None:
            follow_mode(self.frozen, on)

    def saving(self, weights: Mapping[str, Tensor] | None = None) -> Callable[[FilePath], None]:
        """What writes `unet/` or `transformer/`, or the LoRA file, where diffusers expects them; whole or not at all.

        weights: the whole trained parameters by name, where the policy holds only shards of them, or is trained on
            before they are written.
        """
        part = self.kind.part
        if self.lora:
            networks = {part: self.network, **({} if self.texts is None else self.texts.encoders)}
            return low_rank.saving(pipeline_class(self.source), networks, weights)
        network = self.network
        if weights is not None:
            network = empty_part(self.source, part, self.network.config)
            buffers = {name: value for name, value in self.network.state_dict().items() if name not in weights}
            network.load_state_dict({**buffers, **weights}, assign=True)

        def write(folder: FilePath) -> None:
            with atomic_folder(folder / part, own=WEIGHTS) as place:
                network.save_pretrained(str(place), safe_serialization=True)

        return write

    def pipeline(self) -> Any:
        """A diffusers pipeline around the current policy; the other parts are read once, at the first call."""
        return self._pipeline

    @functools.cached_property
    def _pipeline(self) -> Any:
        held = {self.kind.part: self.network, "vae": load_vae(self.source, self.vae)}
        held |= {} if self.texts is None else self.texts.encoders
        pipe = assemble(self.source, held).to(self.device)
        pipe.set_progress_bar_config(disable=True)
        return pipe
