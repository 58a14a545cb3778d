"""What a program of its own is told of a run: copies, so that it cannot change a number; it can only stop the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finepref.formats.heldout import HeldOutMetrics
from finepref.formats.metrics import StepMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is. out: its folder. step: optimiser steps that are done, of max_steps; skipped: of them.

    calls: images that the networks were called for, by purpose.
    """

    out: Path
    step: int
    max_steps: int
    skipped: int
    calls: Mapping[str, int]

    @property
    def finished(self) -> bool:
        """Whether this was the last step."""
        return self.step == self.max_steps


class Callback:
    """Derive from it and write the methods that you need; they are called on the main process.

    An error in one of them ends the run as a kill does: it goes on from its last checkpoint with `resume=True`.
    """

    def on_step(self, state: Progress, metrics: StepMetrics) -> bool | None:
        """After an optimiser step. metrics: the step's line of metrics.jsonl.

        Returns:
            True to stop the run here: it writes a checkpoint, is unfinished and goes on with `resume=True`.
        """

    def on_checkpoint(self, state: Progress, folder: Path) -> None:
        """After the checkpoint of `state.step` was written into this folder; the run may be further by then."""

    def on_samples(self, state: Progress, folder: Path) -> None:
        """After the pictures of the validation prompts were written into this folder."""

    def on_heldout(self, state: Progress, metrics: HeldOutMetrics) -> None:
        """After the held-out pairs were looked at. metrics: the line of heldout.jsonl."""

    def on_end(self, state: Progress) -> None:
        """After the last file of the run, or after the checkpoint of a run that was stopped."""
