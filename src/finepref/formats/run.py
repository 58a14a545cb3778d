"""run.json of a run folder: what was trained from what, and what it cost. It is there when the run is finished."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import write_json
from finepref.core.provenance import hash_config
from finepref.formats.records import read_record

RUN = "run.json"
CHECKPOINTS = "checkpoints"
STEP = re.compile(r"step-(\d{6,})")
"""Name of the folder of a checkpoint, and of the samples of a step."""
VERSION = 1
PARTS = {
    "encoding": "Encoding",
    "labelling": "Labelling",
    "reference_cache": "Reference errors",
    "trajectory_cache": "Inversions",
    "training": "Training",
}
"""The parts of device_seconds, and what a report calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAxes:
    """Names of the rows that the run combines."""

    signal: str
    trajectory: str
    objective: str
    guard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSignals:
    """The signal of a run. pairs, left_out: of a paired objective; images, desirable: of one on single images."""

    kind: str
    sha256: str
    rewards: tuple[str, ...] = ()
    device_seconds: float | None = None
    pairs: int | None = None
    left_out: int | None = None
    images: int | None = None
    desirable: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """What decides the weights of a run after a number of steps: equal identities are the same run.

    settings: dotted keys of its config, without what decides speed, memory or length only. base: hashes of its weights
    and of `init_from`'s. cache, signal: of what it reads. code: of rows that are not ours.
    """

    settings: Mapping[str, Any]
    base: Mapping[str, str | None]
    cache: str
    signal: str
    code: Mapping[str, str] = field(default_factory=dict)

    def lies_as(self, other: RunIdentity) -> bool:
        """Whether both have one base and start: by what is read of the base where both say that, else by its folder."""
        both = all("base_content" in each.base for each in (self, other))
        left_out = "base_sha256" if both else "base_content"
        first, second = ({k: v for k, v in each.base.items() if k != left_out} for each in (self, other))
        return first == second

    def sha256(self) -> str:
        """One hash of all of it."""
        return hash_config(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What run.json holds. Seconds are device seconds of all processes; None: not measured.

    identity: hash of `decides`, which a run of the version before does not hold. base_sha256: of all of the base's
    folder. kept: the step whose weights it left, where held-out pairs chose it; 0 is the start. base_content: hash of
    what is read of it, which a run of the version before does not hold either.
    """

    method: str
    axes: RunAxes
    base: str
    revision: str | None = None
    family: str
    base_sha256: str
    base_content: str | None = None
    init_sha256: str | None = None
    seed: int
    config_hash: str
    identity: str
    decides: RunIdentity | None = None
    signals: RunSignals
    steps: int
    kept: int | None = None
    skipped_steps: int = 0
    pairs: int
    network_calls: Mapping[str, int | None] = field(default_factory=dict)
    device_seconds: float | None = None
    device_seconds_by: Mapping[str, float | None] = field(default_factory=dict)
    processes: int = 1
    device: str
    peak_memory_mb: float
    created: str = ""
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[Mapping[str, Any], ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    @property
    def swapped(self) -> bool:
        """Whether it was trained on losers (`signal.swap`), to be guided away from."""
        return self.decides is not None and bool(self.decides.settings.get("signal.swap"))


def home_of(folder: Path) -> tuple[Path, int | None]:
    """(run folder, step) of a checkpoint of a run; of a run folder itself (folder, None)."""
    step = STEP.fullmatch(folder.name) if folder.parent.name == CHECKPOINTS else None
    return (folder, None) if step is None else (folder.parent.parent, int(step[1]))


def is_the_base(folder: Path) -> bool:
    """Whether a finished run left the base as it was; step 0 of any run is the base."""
    home, step = home_of(folder)
    return step == 0 or (step is None and is_finished(home) and read_run(home).kept == 0)


def at_step(name: str | Path) -> str | Path:
    """`RUN@500` -> the folder of that run's checkpoint after 500 steps, which is a run folder too; others as they are.

    A `~` becomes the home folder.

    Raises:
        InputError: the run has no such checkpoint, or one of a version before, which a run can only go on from.
    """
    name = os.path.expanduser(name)
    run, at, step = str(name).rpartition("@")
    kept = Path(run) / CHECKPOINTS
    if not (at and run) or os.path.exists(name) or not (os.path.isdir(kept) or is_finished(run)):
        return name
    folders = [each for each in kept.glob("step-*") if STEP.fullmatch(each.name) and each.is_dir()]
    there = {str(number): each for number, each in sorted((int(each.name[5:]), each) for each in folders)}
    folder = there.get(step.lstrip("0"))
    if folder is None:
        remedy = f"there are {', '.join(f'{run}@{each}' for each in there)}" if there else "there is none"
        raise InputError(
            "no such checkpoint", where=name, remedy=f"{remedy}; train.checkpoints_keep says how many stay"
        )
    if not is_finished(folder):
        what = "a version before wrote this checkpoint, and it cannot be used alone"
        raise InputError(what, where=name, remedy="resume the run, which writes others")
    return folder


def at_start(name: str | Path) -> str | None:
    """`RUN@0` -> RUN, where it means what that finished run started from; None for other names."""
    run, _, step = os.path.expanduser(name).rpartition("@")
    return run if step == "0" and is_finished(run) and not os.path.exists(f"{run}@0") else None


def is_finished(folder: str | Path) -> bool:
    """Whether a folder holds a finished run."""
    return os.path.isfile(Path(folder) / RUN)


def read_run(folder: str | Path) -> RunRecord:
    """Read run.json of a run folder.

    Raises:
        InputError: there is none, or it is broken or no record of a run.
    """
    remedy = "it is the record of a finished run: remove it and resume the run, which writes it again"
    return read_record(Path(folder) / RUN, RunRecord, version=VERSION, remedy=remedy)


def write_run(folder: str | Path, record: RunRecord) -> None:
    """Write run.json; the counts that a signal does not have are left out."""
    signals = {name: value for name, value in asdict(record.signals).items() if value is not None}
    write_json(Path(folder) / RUN, {**asdict(record), "signals": signals})
