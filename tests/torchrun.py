"""Several processes on this machine, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FINEPREF = ("-m", "finepref")


def environment() -> dict[str, str]:
    """That of a child: one thread each."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(*words: str | Path, processes: int = 2, restarts: int = 0) -> list[str]:
    """The command that starts a script, or `-m` and a module, in several processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*launcher, "--max-restarts", str(restarts), *map(str, words)]


def launched(
    *words: str | Path, processes: int = 2, restarts: int = 0, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """What such a command says, which ends with this code."""
    command = torchrun(*words, processes=processes, restarts=restarts)
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == code, ran.stderr[-4000:]
    return ran
