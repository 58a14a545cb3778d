"""What is installed, which devices there are, and which known breakages are present; nothing is repaired."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from finepref.core.device import accelerators, launched_as
from finepref.core.provenance import version_of, versions

FLOORS = {
    "torch": (2, 6),
    "diffusers": (0, 42),
    "transformers": (5, 6),
    "peft": (0, 18),
    "numpy": (2, 1),
    "pyarrow": (17, 0),
}
EXTRAS = {
    "datasets": ("datasets", "hub data sets by name"),
    "sentencepiece": ("sentencepiece", "T5 tokenizers without tokenizer.json"),
    "bitsandbytes": ("bnb", "8-bit AdamW, and LoRA on a 4-bit base"),
    "torchao": ("quant", "LoRA on an 8-bit base"),
    "fastapi": ("collect", "the page that collects votes"),
    "uvicorn": ("collect", "the page that collects votes"),
    "opencv-python-headless": ("control", "edges of pictures (control-maps --kind canny)"),
    "duckdb": ("duckdb", "votes in SQL"),
    "tensorboard": ("tensorboard", "the tensorboard tracker"),
    "wandb": ("wandb", "the wandb tracker"),
    "trackio": ("trackio", "the trackio tracker"),
}
"""Package -> the extra that brings it, and what it is for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """good: whether all is well. what: one line. remedy: what to do, empty where nothing is to be done."""

    good: bool
    what: str
    remedy: str = ""


def examine() -> tuple[dict[str, Any], list[Finding]]:
    """Facts (versions, devices, environment) and findings, the bad ones with their remedy."""
    devices, seen = _devices()
    extras = {name: version_of(name) for name in EXTRAS}
    facts = {"versions": versions(), "extras": extras, "devices": devices}
    return facts, [_floors(), _probe_torchvision(), _disk(), seen, _launcher()]


def _floors() -> Finding:
    old, wanted = list[str](), list[str]()
    for name, floor in FLOORS.items():
        version = version_of(name)
        numbers = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in (version or "0").split(".")[:2])
        if numbers < floor:
            least = ".".join(map(str, floor))
            old.append(f"{name} {version or 'is missing'}, at least {least} is needed")
            wanted.append(f"'{name}>={least}'")
    if old:
        return Finding(False, "; ".join(old), f"pip install --upgrade {' '.join(wanted)}")
    return Finding(True, "versions are at or above the lowest that finepref asks for")


def _probe_torchvision() -> Finding:
    """A torchvision that does not fit the torch breaks diffusers and transformers with misleading messages."""
    if version_of("torchvision") is None:
        return Finding(True, "torchvision is not installed (it is not needed)")
    probe = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    if probe.returncode == 0:
        return Finding(True, "torchvision imports")
    reason = (probe.stderr.strip() or "it does not import").splitlines()[-1]
    what = f"torchvision is broken ({reason}); diffusers and transformers fail with it installed"
    return Finding(False, what, "pip uninstall torchvision (finepref does not use it)")


def _disk() -> Finding:
    free = shutil.disk_usage(os.getcwd()).free / 2**30
    if free < 5:
        return Finding(False, f"{free:.1f} GiB free on this disk", "free some space before caching or training")
    return Finding(True, f"{free:.0f} GiB free on this disk")


def _devices() -> tuple[list[str], Finding]:
    try:
        import torch
    except ImportError as error:
        return [], Finding(False, f"torch does not import ({error})", "install finepref again")
    names = ["cpu", *accelerators()]
    if len(names) == 1 and shutil.which("nvidia-smi") is not None:
        what = f"this machine has an NVIDIA driver, but torch {torch.__version__} sees no GPU"
        return names, Finding(False, what, "install a CUDA build of torch, see pytorch.org")
    return names, Finding(True, f"devices: {', '.join(names)}")


def _launcher() -> Finding:
    size, rank, _ = launched_as()
    if size > 1:
        return Finding(True, f"process {rank} of {size}, as the launcher set it")
    return Finding(True, "one process (start more with `torchrun --nproc_per_node N -m finepref train -c run.yaml`)")
