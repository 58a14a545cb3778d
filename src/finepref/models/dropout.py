"""Dropout of a LoRA's inputs whose masks are functions of (seed, pair_id, visit), like every other draw.

torch's own draws from one stream per process: with it, another size of micro-batch, another number of processes or a
resumed run would train another model.

Shapes: B ids, R = k B rows; row i belongs to id i mod B, so that the two images of a pair have one mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from finepref.core import rng


class DrawnFor:
    """Whose rows the network is called with; one object for all layers of a network."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.ids: list[tuple[str, int]] = []
        self.off = False

    @contextmanager
    def nothing_dropped(self) -> Iterator[None]:
        """Inside, no layer drops anything: a trajectory is no part of the loss."""
        self.off = True
        try:
            yield
        finally:
            self.off = False

    def tell(self, ids: Sequence[str], visits: Sequence[int]) -> None:
        """The ids and visits of the next call's rows."""
        self.ids = list(zip(ids, visits, strict=True))


class Dropout(nn.Module):
    """x mask / (1 - share) in training, with mask ~ Bernoulli(1 - share) from the stream (seed, layer, id, visit)."""

    def __init__(self, share: float, layer: str, drawn: DrawnFor) -> None:
        super().__init__()
        self.share, self.layer, self.drawn = share, layer, drawn

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        """x [R,...]. The masks are drawn on its device.

        Raises:
            RuntimeError: nobody said whose rows they are.
        """
        if not self.training or self.drawn.off:
            return x
        ids = self.drawn.ids
        if not ids or len(x) % len(ids):
            raise RuntimeError(f"dropout of {self.layer}: {len(x)} rows for {len(ids)} ids")
        mask = torch.empty((len(ids), *x.shape[1:]), dtype=x.dtype, device=x.device)
        generator = torch.Generator(x.device)
        for row, (each, visit) in zip(mask, ids, strict=True):
            generator.manual_seed(rng.key(self.drawn.seed, "dropout", self.layer, each, visit) & (2**63 - 1))
            row.bernoulli_(1.0 - self.share, generator=generator)
        return x * mask.repeat(len(x) // len(ids), *[1] * (x.ndim - 1)) / (1.0 - self.share)


def install(networks: Mapping[str, nn.Module], share: float, *, adapter: str, seed: int) -> DrawnFor | None:
    """Put dropout before an adapter's layers; None where the share is zero.

    networks: by what stands before the names of their layers.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not share:
        return None
    drawn = DrawnFor(seed)
    for before, network in networks.items():
        for name, layer in list(network.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                held: Any = layer
                held.lora_dropout[adapter] = Dropout(share, before + name, drawn)
        network.train(network.training)
    return drawn
