"""A wheel and an sdist of this tree, built with what is installed, without network."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Built:
    """What was built, in one folder."""

    sdist: Path
    wheel: Path


def build(folder: Path) -> Built:
    """The sdist of the tree, and the wheel of what that sdist holds."""
    backend = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*backend, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder / "sdist", filter="data")
    (source,) = (folder / "sdist").iterdir()
    subprocess.run([*backend, "-t", "wheel"], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)
