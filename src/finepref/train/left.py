"""What a run leaves, and each of its checkpoints: trained part, config.yaml and run.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from finepref.core import provenance
from finepref.core.device import device_name, peak_memory_mb
from finepref.core.files import write_text
from finepref.formats.metrics import read_timing
from finepref.formats.run import RunAxes, RunRecord, write_run

if TYPE_CHECKING:
    from finepref.train.state import Run, State


def leaving(
    run: Run, state: State, weights: Mapping[str, Tensor] | None, *, kept: int | None = None
) -> Callable[[Path], bool]:
    """What writes what a run leaves after `state.step` steps: run.json, which says that it is whole, last.

    Args:
        weights: the whole trained parameters by name, on the CPU; None for those of the network when it is written.
        kept: the step that they are of, where held-out pairs chose it.

    Returns:
        A function of the folder, which tells whether the trained part holds them by the same names, as full weights do
        and a LoRA does not.
    """
    save, record = run.adapter.saving(weights), run_record(run, state, kept=kept)

    def write(folder: Path) -> bool:
        save(folder)
        write_text(folder / "config.yaml", run.config.to_yaml())
        write_run(folder, record)
        return not run.adapter.lora

    return write


def run_record(run: Run, state: State, *, kept: int | None = None) -> RunRecord:
    """The record of a run after `state.step` steps; kept: as in `leaving`."""
    config, about, device = run.config, run.source.table.about, run.world.device
    seconds = {
        "training": run.world.size * sum(line.seconds for line in read_timing(run.out)),
        "encoding": run.source.drawing.cache.device_seconds(),
        "labelling": about.device_seconds if about.rewards else 0.0,  # None: not measured
        "reference_cache": 0.0 if run.errors is None else run.errors.device_seconds,
        "trajectory_cache": 0.0 if run.trajectories is None else run.trajectories.device_seconds,
    }
    measured = [value for value in seconds.values() if value is not None]
    axes = RunAxes(
        signal=about.kind,
        trajectory=run.method.trajectory.name,
        objective=run.method.objective.name,
        guard=config.guard.name,
    )
    return RunRecord(
        method=config.method,
        axes=axes,
        config_hash=provenance.hash_config(config.as_dict()),
        identity=run.identity.sha256(),
        decides=run.identity,
        signals=about,
        steps=state.step,
        kept=kept,
        skipped_steps=state.skipped,
        pairs=state.step * config.train.pairs_per_step,
        network_calls={**state.calls, **run.source.drawing.cache.calls()},
        device_seconds=sum(measured) if len(measured) == len(seconds) else None,
        device_seconds_by=seconds,
        processes=run.world.size,
        device=device_name(device),
        peak_memory_mb=peak_memory_mb(device),
        **asdict(run.base),
        **provenance.provenance(seed=config.train.seed),
    )
