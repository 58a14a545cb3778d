"""Which device a command runs on, what torch knows of it, and where is kept what is generated or downloaded.

Torch names its accelerator: cuda (ROCm calls itself that too), xpu, mps, ...; without one it is the CPU. What only some
of them can tell is asked of torch's module of that kind, such as `torch.cuda`.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finepref.core.errors import InputError
from finepref.core.memory import give_back

if TYPE_CHECKING:
    import torch

Precision = Literal["no", "bf16", "fp16"]
"""What networks compute in: float32, or half precision."""


def default_device() -> str:
    """The kind of accelerator that torch sees, else cpu."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else found.type


def launched_as() -> tuple[int, int, int]:
    """How many processes the launcher (torchrun, accelerate, srun) started, which this is, and which on its machine."""
    size, rank, local = (_launchers_number(name) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
    return size or 1, rank or 0, local or 0


_SRUN = {"WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID"}
"""How srun calls what torchrun sets. SLURM_NTASKS is also set in a batch script, which runs once."""


def _launchers_number(name: str) -> int | None:
    """What a launcher sets; None without one. torchrun goes before srun, which may have started it."""
    said = os.environ.get(name, os.environ.get(_SRUN[name]))
    return None if said is None else int(said)


def work_device() -> str:
    """`default_device`; where a launcher started several processes on a machine, this one's, made current.

    Raises:
        InputError: there are more processes than devices.
    """
    kind, number = default_device(), _launchers_number("LOCAL_RANK")
    if number is None or kind in ("cpu", "mps"):
        return kind
    use_device(found := _numbered(kind, number))
    return str(found)


def _numbered(kind: str, number: int) -> torch.device:
    """The device of the process of this number on its machine.

    Raises:
        InputError: there are more processes than devices.
    """
    import torch

    count = torch.accelerator.device_count()
    if number >= count:
        what = f"process {number} of this machine has no {kind} device of its own: there are {count}"
        remedy = f"start {count} processes (--nproc_per_node {count}), or let each see all (srun --gpus-per-node)"
        raise InputError(what, where="LOCAL_RANK", remedy=remedy)
    return torch.device(kind, number)


def own_device(number: int) -> torch.device:
    """Where the process of this number on its machine trains: its accelerator, where that has float64, else the CPU.

    Levels, their tables and the statistics of a step are float64; mps has none, and some xpu have none.

    Raises:
        InputError: there are more processes than devices.
    """
    import torch

    kind = default_device()
    if kind in ("cpu", "mps"):
        return torch.device("cpu")
    found = _numbered(kind, number)
    return found if getattr(_properties(found), "has_fp64", True) else torch.device("cpu")


def use_device(device: torch.device) -> None:
    """Make it the current device of this process, where a kind may have several."""
    if hasattr(_module(device), "set_device"):
        _module(device).set_device(device)


def device_name(device: torch.device | str) -> str:
    """The maker's name of an accelerator where torch knows it, else its kind with the machine's processor."""
    import torch

    known = getattr(_module(torch.device(device)), "get_device_name", None)
    return f"{torch.device(device).type} ({platform.machine()})" if known is None else str(known(device))


def peak_memory_mb(device: torch.device) -> float:
    """Most MiB that were allocated at once on a device; of the whole process where torch does not count (cpu, mps)."""
    counted = getattr(_module(device), "max_memory_allocated", None)
    if counted is not None:
        return float(counted(device)) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024  # bytes there, KiB elsewhere


def free_memory() -> None:
    """Give back what was held for networks and tables that nothing refers to any more, before others are loaded."""
    import torch

    give_back()
    emptied = getattr(_module(torch.device(default_device())), "empty_cache", None)
    if emptied is not None:
        emptied()


def accelerators() -> list[str]:
    """Kind, number, name and memory of every accelerator that torch sees."""
    import torch

    kind, found = default_device(), []
    for number in range(torch.accelerator.device_count() if kind != "cpu" else 0):
        about = _properties(torch.device(kind, number))
        memory = "" if about is None else f", {about.total_memory / 2**30:.0f} GiB"
        found.append(f"{kind}:{number} {device_name(torch.device(kind, number))}{memory}")
    return found


def _module(device: torch.device) -> Any:
    """Torch's module of a kind of device."""
    import torch

    return torch.get_device_module(device)


def _properties(device: torch.device) -> Any:
    """What torch knows of an accelerator; None where it tells nothing."""
    found = getattr(_module(device), "get_device_properties", None)
    return None if found is None else found(device)


def cache_home() -> Path:
    """Where generated models and downloads are kept: $FINEPREF_HOME, else finepref/ in the user's cache folder."""
    given = os.environ.get("FINEPREF_HOME")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finepref"
