"""Checkpoints: a folder that is whole or absent, from which a run goes on bit-identically.

checkpoints/step-000500/
  trainable.safetensors   the trained parameters
  optimizer.safetensors   the optimiser's tensors, `<parameter number>.<name>`
  average.safetensors     the moving average of the weights, where there is one
  state.json              step, counters, config hash, the optimiser's plain numbers, the loss scaler of fp16
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.files import atomic_folder, reading, write_json
from finepref.core.outfolders import remove_files
from finepref.formats.folders import CHECKPOINT
from finepref.formats.records import read_record
from finepref.formats.run import CHECKPOINTS, STEP
from finepref.train.processes import as_sharded, whole_tensors

Named = Sequence[tuple[str, torch.nn.Parameter]]
REMEDY = "remove this checkpoint's folder to go on from the one before"


@dataclass(frozen=True, slots=True)
class Counters:
    """Where a run is: optimiser steps done, steps skipped for non-finite gradients, network calls by kind.

    overflows: steps left out because scaled gradients were beyond float16, which is no fault of theirs.
    """

    step: int
    skipped: int
    calls: Mapping[str, int]
    identity: str
    overflows: int = 0


@dataclass(frozen=True, slots=True)
class ScalerState:
    """What changes of `torch.amp.GradScaler`. growth_tracker: steps since it last changed the scale."""

    scale: float
    growth_tracker: int


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """What state.json holds. optimizer: the optimiser's plain numbers, by parameter number and name."""

    counters: Counters
    optimizer: Mapping[str, Any]
    scaler: ScalerState | None = None


def checkpoint_path(run: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimiser steps."""
    return run / CHECKPOINTS / f"step-{step:06d}"


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [p for p in (run / CHECKPOINTS).glob("step-*") if STEP.fullmatch(p.name) and (p / "state.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def save_checkpoint(
    run: Path,
    counters: Counters,
    *,
    named: Named,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: Mapping[str, Tensor] | None,
    keep: int,
    write: bool = True,
) -> None:
    """Write a checkpoint and remove the oldest beyond `keep`. A kill at any moment leaves the previous ones whole.

    Args:
        write: False for processes that only give their shards to the one that writes.
    """
    tensors, numbers = _split_state(optimizer)
    files: dict[str, Mapping[str, Tensor]] = {"trainable": dict(named), "optimizer": tensors}
    if average is not None:
        files["average"] = average
    held = {file: whole_tensors(values, keep=write) for file, values in files.items()}
    if not write:
        return
    with atomic_folder(checkpoint_path(run, counters.step), own=CHECKPOINT) as folder:
        for file, values in held.items():
            save_file(values, folder / f"{file}.safetensors")
        state = {**asdict(counters), "optimizer": numbers}
        write_json(folder / "state.json", state | ({"scaler": _of_scaler(scaler)} if scaler.is_enabled() else {}))
    for old in checkpoints(run)[:-keep]:
        remove_files(old.parent, [f"{old.name}/{file}" for file in CHECKPOINT])


def load_checkpoint(
    folder: Path,
    *,
    identity: str,
    named: Named,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: dict[str, Tensor] | None,
) -> Counters:
    """Load a checkpoint into the parameters, the optimiser, the loss scaler and the average, in place.

    Raises:
        InputError: it was written by another config or other data, or its parameters have other names or shapes.
    """
    state = read_state(folder)
    if state.counters.identity != identity:
        remedy = "resume with the config.yaml of that run, or train into another folder"
        raise InputError("this checkpoint was written with another config or other data", where=folder, remedy=remedy)
    stored = _tensors(folder / "trainable.safetensors")
    if {n: tuple(p.shape) for n, p in named} != {n: tuple(t.shape) for n, t in stored.items()}:
        remedy = "resume with the versions of diffusers and peft that wrote it"
        raise InputError("the trained parameters have other names or shapes", where=folder, remedy=remedy)
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(as_sharded(stored[name], parameter))
    with reading(folder / "optimizer.safetensors", "the state of this optimiser", remedy=REMEDY):
        _join_state(optimizer, _tensors(folder / "optimizer.safetensors"), state.optimizer)
    if average is not None:
        held = _tensors(folder / "average.safetensors")
        with reading(folder / "average.safetensors", "the average of these weights", remedy=REMEDY):
            for name, like in average.items():
                like.copy_(as_sharded(held[name], like))
    if scaler.is_enabled():
        if state.scaler is None:
            raise InputError("the state of the loss scaler is missing", where=folder / "state.json", remedy=REMEDY)
        held_scale = {"scale": state.scaler.scale, "_growth_tracker": state.scaler.growth_tracker}
        scaler.load_state_dict(scaler.state_dict() | held_scale)
    return state.counters


def read_state(folder: Path) -> CheckpointRecord:
    """Read the state.json of a checkpoint.

    Raises:
        InputError: it is damaged.
    """
    return read_record(folder / "state.json", CheckpointRecord, version=1, remedy=REMEDY, flat=("counters",))


def _of_scaler(scaler: torch.amp.GradScaler) -> dict[str, Any]:
    held = scaler.state_dict()
    return asdict(ScalerState(scale=held["scale"], growth_tracker=held["_growth_tracker"]))


def _tensors(path: Path) -> dict[str, Tensor]:
    with reading(path, "a whole safetensors file", remedy=REMEDY, missing=REMEDY):
        return load_file(path)


def _split_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = optimizer.state_dict()["state"]
    held = {f"{index}.{name}": value for index, entries in state.items() for name, value in entries.items()}
    tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in held.items() if name not in tensors}


def _join_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers}.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        state.setdefault(int(index), {})[name] = as_sharded(value, like) if isinstance(value, Tensor) else value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
