"""torchrun starts the processes of a run again after one of them was killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from finepref.core.files import read_parquet
from finepref.core.provenance import sha256_folder
from finepref.data.latents import LatentCache
from finepref.formats.manifest import read_manifest
from finepref.formats.run import read_run
from finepref.train.config import load_config
from finepref.train.processes import LOST
from finepref.train.run import train_run
from torchrun import FINEPREF, environment, launched, torchrun

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
SCRIPT = """
import os, pathlib, signal, sys
import torch
from finepref.core.errors import CheckFailed
from finepref.train.processes import join_world
folder, deaths = pathlib.Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, which may come before what was lost is said
attempt = len([*folder.glob("death-*")])
try:
    with join_world(2.0) as world:
        if attempt < deaths and world.rank == attempt:
            (folder / f"death-{attempt}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        total = world.sum(torch.ones(1))
        world.barrier()
        print(f"attempt {attempt}, rank {world.rank}, sum {int(total)}", flush=True)
except CheckFailed as error:
    print(f"attempt {attempt}: {error}", flush=True)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def test_an_attempt_knows_nothing_of_the_one_before(script: Path) -> None:
    told = launched(script, script.parent, "2", restarts=3).stdout.splitlines()
    assert {line for line in told if "rank" in line} == {"attempt 2, rank 0, sum 2", "attempt 2, rank 1, sum 2"}
    assert any("lost another one" in line and "--resume auto" in line for line in told)


def test_two_machines_meet_at_a_rendezvous(script: Path) -> None:
    """Two launchers, as on two machines. A process of the first is killed; the second counts no restart of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{free.getsockname()[1]}", "--rdzv_id", "a"]
    words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", *meet]
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [*words, "--max-restarts", "3", str(script), str(script.parent), "1"]
    machines = [subprocess.Popen(command, env=environment(), **piped) for _ in range(2)]
    said = [machine.communicate(timeout=600)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    told = [line for text in said for line in text.splitlines() if line.startswith("attempt 1, rank")]
    assert sorted(told) == ["attempt 1, rank 0, sum 2", "attempt 1, rank 1, sum 2"]


def test_what_backends_say_of_a_lost_process() -> None:
    for said in (
        "[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4001.",
        "Timed out waiting 1800000ms for recv operation to complete",
        "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)",
    ):
        assert LOST.search(said)
    assert not LOST.search("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)")


def done(run: Path, steps: int) -> bool:
    lines = run / "metrics.jsonl"
    return lines.is_file() and len(lines.read_bytes().splitlines()) >= steps


def killed_once(words: Sequence[str | Path], begun: Callable[[], bool], chance: random.Random) -> None:
    """A command in two processes, one of which is killed when it has begun; they are started again and finish."""
    command = torchrun(*FINEPREF, *words, restarts=3)
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment(), **piped) as child:
        while child.poll() is None and not begun():
            time.sleep(0.02)
        found = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True, check=True)
        os.kill(int(chance.choice(found.stdout.split())), signal.SIGKILL)
        said, _ = child.communicate(timeout=900)
        assert child.returncode == 0, said


@pytest.mark.parametrize("attempt", range(int(os.environ.get("FINEPREF_RESTARTS", "1"))))
def test_a_killed_process_changes_nothing(tmp_path: Path, world: Path, attempt: int) -> None:
    words = ["-c", str(world / "run.yaml"), "train.max_steps=120", "train.checkpoint_every=9"]
    launched(*FINEPREF, "train", *words, "--out", tmp_path / "whole")
    chance = random.Random(attempt)
    step = chance.randint(1, 90)
    words = ["train", *words, "--out", str(tmp_path / "killed"), "--resume", "auto"]
    killed_once(words, lambda: done(tmp_path / "killed", step), chance)
    digests = {sha256_folder(tmp_path / name / "unet") for name in ("whole", "killed")}
    assert len(digests) == 1
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("command", ["cache", "generate"])
def test_what_is_shared_out_goes_on(tmp_path: Path, world: Path, command: str) -> None:
    """The same words again, after one of two processes was killed, make what one process makes."""
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([f"a red circle, {number}" for number in range(12)]))
    words: dict[str, list[str | Path]] = {
        "cache": ["-c", world / "run.yaml", "cache.batch_size=1"],
        "generate": ["--model", f"a={world / 'model'}", "--prompts", prompts, "--steps", "2", "--batch-size", "1"],
    }
    begun = {"cache": "images/*", "generate": "**/*.png"}[command]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([sys.executable, *FINEPREF, command, *words[command], "--out", whole], env=environment(), check=True)
    killed_once([command, *words[command], "--out", killed], lambda: any(killed.glob(begun)), random.Random(0))
    assert not [*killed.rglob(".finepref-*")]
    if command == "cache":
        ours, theirs = ([read_parquet(folder / "pairs.parquet")] for folder in (whole, killed))
        assert ours == theirs
        assert LatentCache(killed).check() > 0
    else:
        files = [file.relative_to(whole) for file in whole.rglob("*.png")]
        assert len(files) == 12
        assert all((whole / file).read_bytes() == (killed / file).read_bytes() for file in files)
        assert len(read_manifest(killed).rows) == 12


def test_two_killed_go_on_as_one_and_as_three(tmp_path: Path, world: Path) -> None:
    """A run of two processes, both killed: with another number of them it ends where it would have, up to rounding."""
    words = ["train.max_steps=40", "train.checkpoint_every=2", "train.micro_batch=2"]
    words += ["objective.beta=2", "train.adam_epsilon=1e-2", "train.learning_rate=1e-2", "train.max_grad_norm=null"]
    run = tmp_path / "killed"
    command = torchrun(*FINEPREF, "train", "-c", world / "run.yaml", *words, "--out", run)
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as child:
        while child.poll() is None and not done(run, 5):
            time.sleep(0.02)
        found = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True, check=True)
        for process in found.stdout.split():
            os.kill(int(process), signal.SIGKILL)
    assert not (run / "run.json").exists()
    shutil.copytree(run, tmp_path / "one")
    shutil.copytree(run, tmp_path / "three")
    for name in ("one", "whole"):
        train_run(load_config(world / "run.yaml", words), tmp_path / name, resume="auto")
    again = ["train", "-c", world / "run.yaml", *words, "--out", tmp_path / "three", "--resume", "auto"]
    launched(*FINEPREF, *again, processes=3)
    weights = {name: load_file(tmp_path / name / WEIGHTS) for name in ("one", "three", "whole")}
    start = load_file(world / "model" / WEIGHTS)
    assert max(float((value - start[key]).abs().max()) for key, value in weights["whole"].items()) > 1e-3
    for name in ("one", "three"):
        assert max(float((value - weights["whole"][key]).abs().max()) for key, value in weights[name].items()) < 1e-5
        assert read_run(tmp_path / name).steps == 40
