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
    """How many processes the launcher (torchrun, accelerate) started, which this is, and which on its machine."""
    names = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
    size, rank, local = (int(os.environ.get(name, alone)) for name, alone in names)
    return size, rank, local


def work_device() -> str:
    """`default_device`; where several processes of a machine share the work (LOCAL_RANK), this one's, made current.

    Raises:
        InputError: there are more processes than devices.
    """
    import torch

    kind, (_, _, rank) = default_device(), launched_as()
    if "LOCAL_RANK" not in os.environ or kind in ("cpu", "mps"):
        return kind
    count = torch.accelerator.device_count()
    if rank >= count:
        what = f"process {rank} of this machine has no {kind} device of its own: there are {count}"
        raise InputError(what, where="LOCAL_RANK", remedy=f"start {count} processes (--nproc_per_node {count})")
    use_device(torch.device(kind, rank))
    return f"{kind}:{rank}"


def own_device(number: int) -> torch.device:
    """Where the process of this number on its machine trains: its accelerator, where that has float64, else the CPU.

    Levels, their tables and the statistics of a step are float64; mps has none, and some xpu have none.
    """
    import torch

    kind = default_device()
    wide = kind not in ("cpu", "mps") and getattr(_properties(torch.device(kind, number)), "has_fp64", True)
    return torch.device(kind, number) if wide else torch.device("cpu")


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
