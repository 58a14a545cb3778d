"""A run as its steps see it: what is fixed, and what changes from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finepref.core.tensors import ImageBatch, ListBatch, PairBatch
from finepref.formats.run import RunIdentity
from finepref.models.denoiser import Denoiser
from finepref.train.batches import ImageSource, PairSource
from finepref.train.callbacks import Callback, Progress
from finepref.train.checkpoint import CALLS
from finepref.train.config import RunConfig
from finepref.train.frozen import FrozenCache
from finepref.train.lists import ListSource
from finepref.train.method import Method
from finepref.train.opened import BaseRecord
from finepref.train.placement import draw_levels
from finepref.train.processes import World
from finepref.train.step import Calls
from finepref.train.unseen import UnseenPairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything a step needs, fixed for the run.

    identity: what decides its weights. base: what it records of that. draws: of an optimiser step. errors,
    trajectories: what the frozen reference is known to do, where it is cached. heldout: pairs that are looked at and
    not trained on. inverts: whether a step calls a network to place its pairs. sharded: whether parameters are shards
    (FSDP2).
    """

    config: RunConfig
    method: Method
    adapter: Denoiser
    source: PairSource | ImageSource | ListSource
    world: World
    out: Path
    identity: RunIdentity
    base: BaseRecord
    draws: int
    inverts: bool
    heldout: UnseenPairs | None = None
    errors: FrozenCache | None = None
    trajectories: FrozenCache | None = None
    sharded: bool = False
    trackers: Sequence[Any] = ()
    callbacks: Sequence[Callback] = ()

    def levels(self, batch: PairBatch | ImageBatch | ListBatch, *, step: int, positions: Sequence[int]) -> Tensor:
        """Levels [B] or [B,K] of a batch whose draws have these positions in an optimiser step (`draw_levels`)."""
        options = self.config.train
        return draw_levels(
            batch.ids,
            batch.visit,
            path=self.adapter.path,
            method=self.method,
            seed=options.seed,
            strata=(step, self.draws, positions) if options.stratified_t else None,
        )


@dataclass(slots=True)
class State:
    """What changes from step to step; all of it is in a checkpoint.

    skipped: steps whose gradients were not finite. overflows: those that only the loss scale made so.
    reference: the tensors of a reference that moves, by the names of the policy's; None for a frozen one.
    """

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    named: list[tuple[str, torch.nn.Parameter]]
    average: dict[str, Tensor] | None
    reference: dict[str, Tensor] | None = None
    step: int = 0
    skipped: int = 0
    overflows: int = 0
    calls: Calls = field(default_factory=lambda: dict.fromkeys(CALLS, 0))

    def beside(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds beside parameters and optimiser, by the names of its files."""
        held = {"average": self.average, "reference": self.reference}
        return {name: tensors for name, tensors in held.items() if tensors is not None}

    def nbytes(self) -> int:
        """Bytes of the tensors that a checkpoint holds."""
        held: list[Tensor] = [parameter for _, parameter in self.named]
        held += [value for tensors in self.beside().values() for value in tensors.values()]
        states = (value for entries in self.optimizer.state.values() for value in entries.values())
        return sum(value.nbytes for value in [*held, *states] if isinstance(value, Tensor))


def progress_of(run: Run, state: State) -> Progress:
    """A copy of where the run is, for callbacks."""
    steps = run.config.train.max_steps
    return Progress(out=run.out, step=state.step, max_steps=steps, skipped=state.skipped, calls=dict(state.calls))
