"""When a run ends before its last step, and which of its steps it leaves: what held-out pairs say.

The lines of heldout.jsonl decide, and nothing else: a run that was resumed decides as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from finepref.formats.heldout import HeldOutMetrics, read_heldout, start_far
from finepref.train.checkpoint import checkpoint_path, load_weights
from finepref.train.diagnose import speaks
from finepref.train.processes import as_sharded
from finepref.train.stop_options import StopOptions

if TYPE_CHECKING:
    from finepref.train.state import Run, State


HARM = 1.5
"""Share of the start's error at high noise that winners may lose there: beyond it pictures are harmed (docs/LOG.md)."""


def sound(lines: Sequence[HeldOutMetrics], far: float) -> list[HeldOutMetrics]:
    """The looks whose step may be kept, the start among them. far: the start's error of winners at high noise.

    Neither harmed (at high noise, where it is decided what a picture shows, winners lost more than `HARM` of the
    start's error), nor worse than the best of those by more than a standard error of a lead. The lead alone goes on
    growing while a network unlearns to draw: its losers get worse faster than its winners.
    """
    whole = [line for line in lines if math.isfinite(line.lead.value) and -line.gain_far <= HARM * far]
    if not whole:
        return list(lines[:1])
    best = max(whole, key=lambda line: line.lead.value)
    return [line for line in whole if line is lines[0] or best.lead.value - line.lead.value <= _error(best, line)]


def _error(*looks: HeldOutMetrics) -> float:
    """The larger standard error of some leads; that of the start, whose lead is 0, is 0."""
    return max((line.lead.error for line in looks if math.isfinite(line.lead.error)), default=0.0)


def kept_of(lines: Sequence[HeldOutMetrics], far: float) -> HeldOutMetrics | None:
    """The look whose step is left: the last sound one, or the start where held-out pairs do not speak for the run.

    None where none was looked at. Chosen as late as it is sound because looks are few and noisy: the best of them is
    hardly better than the last (docs/LOG.md).
    """
    if not lines:
        return None
    return sound(lines, far)[-1] if _speak(lines) else lines[0]


def _speak(lines: Sequence[HeldOutMetrics]) -> bool:
    """Whether held-out pairs speak for a run, by all its looks."""
    return len(lines) == 1 or speaks(lines)


def ends(lines: Sequence[HeldOutMetrics], far: float, options: StopOptions) -> bool:
    """Whether not one of the last `patience` looks is sound."""
    if len(lines) <= options.patience:
        return False
    found = sound(lines, far)
    return not any(line in found for line in lines[-options.patience :])


def is_over(run: Run) -> bool:
    """Whether the run ends here, on every process."""
    options = run.config.train.stop
    over = run.world.main and options is not None and ends(read_heldout(run.out), start_far(run.out), options)
    return bool(over if run.world.size == 1 else run.world.highest(int(over)))


def kept_step(run: Run, *, now: int) -> int | None:
    """The step that the run leaves after step `now`, on every process; None for that, as without early stopping."""
    return _step(run, now=now, speak=_speak)


def sound_step(run: Run, *, now: int) -> int | None:
    """The last sound step, which is left if held-out pairs speak for the run in the end; None as of `kept_step`."""
    return _step(run, now=now, speak=lambda looks: True)


def _step(run: Run, *, now: int, speak: Callable[[Sequence[HeldOutMetrics]], bool]) -> int | None:
    """As `kept_of`, of the steps whose weights there are: a version before kept checkpoints by another rule."""
    if run.config.train.stop is None:
        return None
    step, looks = -1, read_heldout(run.out) if run.world.main else ()
    if looks:
        steps = [line.step for line in sound(looks, start_far(run.out))] if speak(looks) else [0]
        step = [each for each in steps if each in (0, now) or checkpoint_path(run.out, each).is_dir()][-1]
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
