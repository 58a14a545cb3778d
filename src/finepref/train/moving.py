"""A reference that moves with the policy: a running average of it, or a copy of it every so many steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from finepref.core.options import Options, told


class ReferenceOptions(Options):
    """What the policy is compared with."""

    kind: Literal["frozen", "base", "ema", "refresh"] = told(
        "frozen",
        "frozen = the start; base = the base without model.init_from; ema = a running average of the policy; refresh = "
        "a copy of it every so many steps",
    )
    decay: float | None = told(None, "ema: what stays of the average in a step (Linear-DPO: 0.99 to 0.995)", ge=0, lt=1)
    every: int | None = told(None, "refresh: optimiser steps between two copies", ge=1)

    @model_validator(mode="after")
    def _used(self) -> ReferenceOptions:
        for name, kind in (("decay", "ema"), ("every", "refresh")):
            given = getattr(self, name) is not None
            if self.kind == kind and not given:
                raise ValueError(f"kind {kind} needs {name}")
            if self.kind != kind and given:
                raise ValueError(f"{name} has an effect on kind {kind} alone")
        return self

    @property
    def moves(self) -> bool:
        """Whether it is another one later."""
        return self.kind in ("ema", "refresh")


@torch.no_grad()
def move(
    reference: Mapping[str, Tensor],
    policy: Sequence[tuple[str, nn.Parameter]],
    options: ReferenceOptions,
    *,
    step: int,
    applied: bool,
) -> None:
    """Move the reference after an optimiser step, in place.

        ema: reference <- decay reference + (1 - decay) policy, after every step that was applied
        refresh: reference <- policy, after every step whose number is a multiple of `every`

    Args:
        reference: its own tensors by the names of the policy's. step: how many there were, this one among them.
        applied: whether it moved the policy.

    References: Linear-DPO (arXiv 2605.21123), ema; BalancedDPO (arXiv 2503.12575), refresh.
    Deviations: after the step (Linear-DPO's code averages the weights from before it). Of a LoRA the two matrices are
    averaged, each by itself, not their product.
    """
    if options.kind == "refresh" and options.every is not None and step % options.every == 0:
        for name, parameter in policy:
            reference[name].copy_(parameter)
    if options.kind == "ema" and options.decay is not None and applied:
        for name, parameter in policy:
            reference[name].lerp_(parameter.detach(), 1.0 - options.decay)
