"""Checkpoints: a folder that is whole or absent, from which a run goes on bit-identically.

checkpoints/step-000500/
  what a run of 500 steps leaves: its trained part (unet/, transformer/ or a LoRA file), config.yaml, run.json
  trainable.safetensors   the trained parameters     } where that part does not hold them: of a LoRA both,
  average.safetensors     their moving average       } of full weights the parameters beside their average
  reference.safetensors   what a reference that moves has in their place
  optimizer.safetensors   the optimiser's tensors, `<parameter number>.<name>`
  state.json              step, counters, identity of the run, the optimiser's plain numbers, the loss scaler of fp16
  finepref.json           hashes of all these files
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.files import atomic_folder, reading, write_json
from finepref.core.outfolders import mark, own_files, refuse_changed, remove_files
from finepref.core.progress import say
from finepref.formats.folders import CHECKPOINT, SAVED
from finepref.formats.records import read_record
from finepref.formats.run import CHECKPOINTS, STEP, RunIdentity
from finepref.train.optim import check_state
from finepref.train.processes import as_sharded, whole_tensors

CALLS = ("policy", "reference", "inversion", "anchor")
Count = Annotated[int, Field(ge=0)]
Named = Sequence[tuple[str, torch.nn.Parameter]]
REMEDY = "remove this checkpoint's folder to go on from the one before"


@dataclass(frozen=True, slots=True)
class Counters:
    """Where a run is: optimiser steps done, steps skipped for non-finite gradients, network calls by kind.

    overflows: steps left out because scaled gradients were beyond float16, which is no fault of theirs.
    """

    step: Count
    skipped: Count
    calls: Mapping[str, Count]
    overflows: Count = 0


@dataclass(frozen=True, slots=True)
class ScalerState:
    """What changes of `torch.amp.GradScaler`. growth_tracker: steps since it last changed the scale."""

    scale: float
    growth_tracker: int


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """What state.json holds. optimizer: the optimiser's plain numbers, by parameter number and name.

    unmoved: numbers of the parameters of which the optimiser holds nothing, as no step had a gradient of theirs; a
    checkpoint of the version before does not hold it. decides: what decided the weights; neither does it hold that.
    """

    counters: Counters
    optimizer: Mapping[str, Any]
    unmoved: tuple[int, ...] | None = None
    scaler: ScalerState | None = None
    decides: RunIdentity | None = None


def checkpoint_path(run: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimiser steps."""
    return run / CHECKPOINTS / f"step-{step:06d}"


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [p for p in (run / CHECKPOINTS).glob("step-*") if STEP.fullmatch(p.name) and (p / "state.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def newest_whole(run: Path, *, told: bool = False) -> Path | None:
    """The newest checkpoint of a run that is not damaged; None where it has none at all.

    told: say of every newer one why it is passed over.

    Raises:
        InputError: it has some, and all are damaged.
    """
    faults: list[InputError] = []
    for folder in reversed(checkpoints(run)):
        try:
            check_checkpoint(folder)
        except InputError as error:
            faults.append(error)
        else:
            for fault in faults if told else ():
                say(f"{fault.where}: {fault.what}; this checkpoint is passed over for {folder.name}")
            return folder
    if faults:
        what = f"none of its checkpoints is whole; the newest, {faults[0].where}: {faults[0].what}"
        raise InputError(what, where=run, remedy="overwrite it to start again, or train into another folder")
    return None


def check_checkpoint(folder: Path) -> int:
    """Refuse a checkpoint that is damaged, without loading it; one of the version before is known by its headers.

    Returns how many files were compared with their hashes.

    Raises:
        InputError: it is damaged.
    """
    read_state(folder)
    compared = refuse_changed(folder, remedy=REMEDY, whole=True)
    for path in {folder / "optimizer.safetensors", *folder.rglob("*.safetensors")}:
        with _whole(path), safe_open(path, framework="pt"):
            pass
    return compared


def take_checkpoint(
    run: Path,
    counters: Counters,
    identity: RunIdentity,
    *,
    named: Named,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    beside: Mapping[str, Mapping[str, Tensor]],
    leaving: Callable[[Mapping[str, Tensor]], Callable[[Path], bool]],
    keep: int,
    spared: int | None = None,
    main: bool = True,
    copy: bool = False,
) -> Callable[[], None] | None:
    """Take what a checkpoint holds; returns what writes it and removes the oldest beyond `keep`.

    A kill at any moment leaves the previous ones whole.

    Args:
        beside: the average of the parameters and the moving reference, where the run has them, by their files' names.
        leaving: of the average or else the parameters, what writes what a run of so many steps leaves into a folder,
            and tells whether the tensors stand there by the names they have here.
        spared: a step whose checkpoint stays.
        main: False for processes that only give their shards to the one that writes; they get None.
        copy: whether the tensors may change before they are written.
    """
    tensors, numbers = _split_state(optimizer)
    files: dict[str, Mapping[str, Tensor]] = {"trainable": dict(named), "optimizer": tensors, **beside}
    held = {file: whole_tensors(values, keep=main, copy=copy) for file, values in files.items()}
    if not main:
        return None
    usable = "average" if "average" in beside else "trainable"
    leave = leaving(held[usable])
    moved = {key.partition(".")[0] for key in (*tensors, *numbers)}
    unmoved = [number for number in range(len(named)) if str(number) not in moved]
    state = {**asdict(counters), "decides": asdict(identity), "optimizer": numbers, "unmoved": unmoved}
    state |= {"scaler": _of_scaler(scaler)} if scaler.is_enabled() else {}

    def write() -> None:
        with atomic_folder(checkpoint_path(run, counters.step), own=CHECKPOINT) as folder:
            if leave(folder):
                del held[usable]
            for file, values in held.items():
                save_file(values, folder / f"{file}.safetensors")
            write_json(folder / "state.json", state)
            mark(folder, SAVED, hashed=own_files(folder, CHECKPOINT))
        for old in checkpoints(run)[:-keep]:
            if spared is None or old != checkpoint_path(run, spared):
                remove_files(old.parent, [f"{old.name}/{file}" for file in own_files(old, CHECKPOINT)])

    return write


def load_checkpoint(
    folder: Path,
    *,
    named: Named,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    beside: Mapping[str, Mapping[str, Tensor]],
) -> Counters:
    """Load a checkpoint of this run into the parameters, the optimiser and the loss scaler, in place.

    beside: as in `take_checkpoint`.

    Raises:
        InputError: it is damaged or was edited: names, shapes, types or values are not those that a step left.
    """
    refuse_changed(folder, remedy=REMEDY, whole=True)
    state = read_state(folder)
    stored = _weights(folder, "trainable", named)
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(as_sharded(stored[name], parameter))
    with reading(folder / "optimizer.safetensors", "the state of this optimiser", remedy=REMEDY):
        _join_state(optimizer, _tensors(folder / "optimizer.safetensors"), state)
    for file, tensors in beside.items():
        held = _weights(folder, file, named)
        with torch.no_grad():
            for name, like in tensors.items():
                like.copy_(as_sharded(held[name], like))
    if scaler.is_enabled():
        if state.scaler is None:
            raise InputError("the state of the loss scaler is missing", where=folder / "state.json", remedy=REMEDY)
        held_scale = {"scale": state.scaler.scale, "_growth_tracker": state.scaler.growth_tracker}
        scaler.load_state_dict(scaler.state_dict() | held_scale)
    return state.counters


def load_weights(folder: Path, named: Named, *, averaged: bool) -> dict[str, Tensor]:
    """The whole trained parameters that a checkpoint of this run leaves, by name: their average, where it keeps one.

    Raises:
        InputError: it is damaged or was edited.
    """
    refuse_changed(folder, remedy=REMEDY, whole=True)
    return _weights(folder, "average" if averaged else "trainable", named)


def read_state(folder: Path) -> CheckpointRecord:
    """Read the state.json of a checkpoint.

    Raises:
        InputError: it is damaged, or of another step than its folder says.
    """
    file = folder / "state.json"
    state = read_record(file, CheckpointRecord, version=1, remedy=REMEDY, flat=("counters",))
    if (named := STEP.fullmatch(folder.name)) and state.counters.step != int(named[1]):
        raise InputError(f"it is of step {state.counters.step}, its folder of another", where=file, remedy=REMEDY)
    if strange := sorted({*state.counters.calls} - {*CALLS}):
        raise InputError(f"{strange[0]!r} is no kind of network call", where=file, remedy=REMEDY)
    return state


def _of_scaler(scaler: torch.amp.GradScaler) -> dict[str, Any]:
    held = scaler.state_dict()
    return asdict(ScalerState(scale=held["scale"], growth_tracker=held["_growth_tracker"]))


def _weights(folder: Path, name: str, named: Named) -> dict[str, Tensor]:
    """The tensors of a file; where the trained part stands for it, those of its tensors that are trained.

    Raises:
        InputError: they are not as the parameters are, or hold numbers that are not finite.
    """
    file = folder / f"{name}.safetensors"
    parts = [] if file.is_file() else sorted(folder.glob("*/diffusion_pytorch_model*.safetensors"))
    held = {key: value for part in parts or [file] for key, value in _tensors(part).items()}
    held = {key: held[key] for key, _ in named if key in held} if parts else held
    if {key: (value.shape, value.dtype) for key, value in held.items()} != {n: (p.shape, p.dtype) for n, p in named}:
        remedy = "resume with the versions of diffusers and peft that wrote it"
        raise InputError(f"the {name} parameters have other names, shapes or types", where=folder, remedy=remedy)
    for key, value in held.items():
        if not bool(value.isfinite().all()):
            raise InputError(f"{key} of its {name} parameters is not finite", where=folder, remedy=REMEDY)
    return held


def _tensors(path: Path) -> dict[str, Tensor]:
    with _whole(path):
        return load_file(path)


def _whole(path: Path) -> AbstractContextManager[None]:
    return reading(path, "a whole safetensors file", remedy=REMEDY, missing=REMEDY)


def _split_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = optimizer.state_dict()["state"]
    held = {f"{index}.{name}": value for index, entries in state.items() for name, value in entries.items()}
    tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in held.items() if name not in tensors}


def _join_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], record: CheckpointRecord) -> None:
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **record.optimizer}.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = value
    if record.unmoved is not None and {*state, *record.unmoved} != {*range(len(parameters))}:
        raise ValueError("parameters without a state")
    for index, held in state.items():
        check_state(optimizer, held, parameters[index].shape)
        like = parameters[index]
        state[index] = {n: as_sharded(each, like) if isinstance(each, Tensor) else each for n, each in held.items()}
    optimizer.load_state_dict({"state": state, "param_groups": groups})
