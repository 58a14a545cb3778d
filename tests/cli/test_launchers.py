"""What torchrun and srun tell a process of the others, in environments of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import own_pairs
import tiny
from finepref.formats.run import read_run
from torchrun import FINEPREF, environment

ASK = "from finepref.core.device import launched_as; print(*launched_as())"
STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}
TORCHRUN = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}


def plain() -> dict[str, str]:
    """An environment that no launcher made."""
    return {k: v for k, v in environment().items() if not k.startswith("SLURM_") and k not in TORCHRUN}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, "1 0 0"),
        (STEP, "4 3 1"),
        (STEP | TORCHRUN, "2 1 1"),  # srun torchrun
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, "1 0 0"),  # a batch script: it runs once
    ],
    ids=["alone", "srun", "srun-torchrun", "sbatch"],
)
def test_which_process_it_is(said: dict[str, str], found: str) -> None:
    command = [sys.executable, "-c", ASK]
    ran = subprocess.run(command, env=plain() | said, capture_output=True, text=True, timeout=600, check=True)
    assert ran.stdout.split() == found.split()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["arena", "votes.csv", "--out", "made"], "arena: it is the work of one process, and a launcher started 4;"),
        (
            ["train", "-c", "lab/dpo", "--out", "made"],
            "MASTER_ADDR: 4 processes, and nothing says where they meet; start them with torchrun; or, for",
        ),
    ],
)
def test_several_that_would_write_one_place_are_refused(tmp_path: Path, words: list[str], told: str) -> None:
    (tmp_path / "votes.csv").write_text("left,right,outcome\na,b,left\n")
    command = [sys.executable, *FINEPREF, *words]
    ran = subprocess.run(
        command, env=plain() | STEP, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 2, ran.stderr
    assert told in ran.stderr.splitlines()[-1]
    assert not (tmp_path / "made").exists()


def test_srun_starts_a_run_of_two(tmp_path: Path) -> None:
    """Without torchrun: two tasks of a step train one run."""
    tiny.sd15(tmp_path / "model")
    own_pairs.make_folder(tmp_path / "data", pairs=4)
    words = [f"model.base={tmp_path / 'model'}", f"data.paths=[{tmp_path / 'data'}]", "data.resolution=32"]
    words += [f"cache.folder={tmp_path / 'cache'}", "train.max_steps=2", "train.pairs_per_step=4"]
    command = [sys.executable, *FINEPREF, "train", "-c", "lab/dpo", "--out", str(tmp_path / "run"), *words]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "SLURM_STEP_NUM_TASKS": "2"}
    tasks = [
        subprocess.Popen(
            command,
            env=plain() | meet | {"SLURM_PROCID": task, "SLURM_LOCALID": task},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in "01"
    ]
    said = [task.communicate(timeout=900)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert read_run(tmp_path / "run").processes == 2
