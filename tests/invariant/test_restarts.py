"""torchrun starts the processes of a run again after one of them was killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from finepref.core.provenance import sha256_folder
from finepref.train.processes import LOST
from torchrun import FINEPREF, environment, launched, torchrun

SCRIPT = """
import os, signal, sys
import torch
from finepref.core.errors import CheckFailed
from finepref.train.processes import join_world
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
try:
    with join_world(2.0) as world:
        if attempt < 2 and world.rank == attempt:
            os.kill(os.getpid(), signal.SIGKILL)
        total = world.sum(torch.ones(1))
        print(f"attempt {attempt}, rank {world.rank}, sum {int(total)}", flush=True)
except CheckFailed as error:
    print(f"attempt {attempt}: {error}", flush=True)
    sys.exit(error.exit_code)
"""


def test_an_attempt_knows_nothing_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    told = launched(tmp_path / "script.py", restarts=3).stdout.splitlines()
    assert {line for line in told if "rank" in line} == {"attempt 2, rank 0, sum 2", "attempt 2, rank 1, sum 2"}
    assert any("lost another one" in line and "--resume auto" in line for line in told)


def test_what_backends_say_of_a_lost_process() -> None:
    for said in (
        "[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4001.",
        "Timed out waiting 1800000ms for recv operation to complete",
        "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)",
    ):
        assert LOST.search(said)
    assert not LOST.search("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)")


def killed_once(out: Path, words: list[str], chance: random.Random) -> str:
    """What a run of two processes says, one of which is killed at a random step."""
    command = torchrun(*FINEPREF, "train", *words, "--out", out, "--resume", "auto", restarts=3)
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment(), **piped) as child:
        step, metrics = chance.randint(1, 90), out / "metrics.jsonl"
        while child.poll() is None and not (metrics.is_file() and len(metrics.read_bytes().splitlines()) >= step):
            time.sleep(0.02)
        found = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True, check=True)
        os.kill(int(chance.choice(found.stdout.split())), signal.SIGKILL)
        said, _ = child.communicate(timeout=900)
        assert child.returncode == 0, said
    return said


@pytest.mark.parametrize("attempt", range(int(os.environ.get("FINEPREF_RESTARTS", "1"))))
def test_a_killed_process_changes_nothing(tmp_path: Path, world: Path, attempt: int) -> None:
    words = ["-c", str(world / "run.yaml"), "train.max_steps=120", "train.checkpoint_every=9"]
    launched(*FINEPREF, "train", *words, "--out", tmp_path / "whole")
    killed_once(tmp_path / "killed", words, random.Random(attempt))
    digests = {sha256_folder(tmp_path / name / "unet") for name in ("whole", "killed")}
    assert len(digests) == 1
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert metrics[0] == metrics[1]
