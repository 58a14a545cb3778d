"""When a run ends before its last step, and which of its steps it leaves: what held-out pairs say.

The lines of heldout.jsonl decide, and nothing else: a run that was resumed decides as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from finepref.formats.heldout import HeldOutMetrics, read_heldout
from finepref.train.checkpoint import checkpoint_path, load_weights
from finepref.train.processes import as_sharded
from finepref.train.stop_options import StopOptions

if TYPE_CHECKING:
    from finepref.train.state import Run, State


CAUTION = 0.1
"""What a lost unit of the winners' own error costs in units of lead: measured on the lab (docs/LOG.md)."""


def merit(line: HeldOutMetrics) -> float:
    """How good a step is by pairs that it never saw: mean of A_w - A_l, plus a tenth of what winners gained far out.

    The lead alone goes on growing while a network unlearns to draw: its losers get worse faster than its winners. What
    winners lose at high noise, where it is decided what a picture shows, tells that best. Predictions that overflowed
    are worse than anything.
    """
    found = line.lead.value + CAUTION * line.gain_far
    return found if math.isfinite(found) else -math.inf


def best_of(lines: Sequence[HeldOutMetrics]) -> HeldOutMetrics | None:
    """The step that held-out pairs like best, the first of equals; None where none was looked at."""
    return max(lines, key=merit, default=None)


def ends(lines: Sequence[HeldOutMetrics], options: StopOptions | None) -> bool:
    """Whether the last `patience` looks found nothing better."""
    best = best_of(lines)
    return options is not None and best is not None and len(lines) - 1 - lines.index(best) >= options.patience


def is_over(run: Run) -> bool:
    """Whether the run ends here, on every process."""
    options = run.config.train.stop
    over = run.world.main and options is not None and ends(read_heldout(run.out), options)
    return bool(over if run.world.size == 1 else run.world.highest(int(over)))


def kept_step(run: Run) -> int | None:
    """The step that the run would leave now, on every process; None for its last one, as without early stopping."""
    if run.config.train.stop is None:
        return None
    best = best_of(read_heldout(run.out)) if run.world.main else None
    step = -1 if best is None else best.step
    step = step if run.world.size == 1 else run.world.highest(step)
    return None if step < 0 else step


def put_kept(run: Run, state: State, step: int) -> None:
    """Give the network the weights of a step that was kept; 0 is the start of the run."""
    if step == state.step:
        return
    held: dict[str, Tensor]
    if step == 0:
        from finepref.train.opened import load_adapter

        start = load_adapter(run.config, reference=False, device="cpu")
        held = {name: parameter.detach() for name, parameter in start.trainable()}
    else:
        held = load_weights(checkpoint_path(run.out, step), state.named, averaged=state.average is not None)
    with torch.no_grad():
        for name, parameter in state.named:
            parameter.copy_(as_sharded(held[name], parameter))
