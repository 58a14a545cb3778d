"""Equivalence classes of runs: what may differ and still give the same weights."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finepref.build import run_training
from finepref.errors import ConfigError, InputError
from finepref.train.config import load_config

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def train(world: Path, out: Path, *overrides: str, resume: bool = False) -> Path:
    return run_training(load_config(world / "run.yaml", overrides), out, resume=resume, overwrite=False)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / WEIGHTS)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture(scope="module")
def uninterrupted(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(world, tmp_path_factory.mktemp("runs") / "whole")


def test_first_step_is_log_two(uninterrupted: Path) -> None:
    """Policy equals reference: u is exactly 0 and the loss is ln 2."""
    first = metrics(uninterrupted)[0]
    assert first["u"] == 0.0
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-7)


def test_training_changes_the_weights(world: Path, uninterrupted: Path) -> None:
    assert largest_difference(weights(uninterrupted), load_file(world / "model" / WEIGHTS)) > 1e-5


def _child(world: Path, out: Path) -> None:
    os.setsid()
    train(world, out)
    os._exit(0)


@pytest.mark.parametrize("attempt", range(3))
def test_killed_and_resumed_is_bitwise_the_same(world: Path, uninterrupted: Path, tmp_path: Path, attempt: int) -> None:
    """SIGKILL at a random step, then --resume: weights and metrics.jsonl are bit-identical."""
    out, step = tmp_path / "run", random.Random(os.getpid() * 10 + attempt).randint(1, 7)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(world, out))
    child.start()
    log = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not log.exists() or log.read_text().count("\n") < step):
        assert child.is_alive() or log.exists()
        time.sleep(0.002)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (out / "run.json").exists(), "the run was over before it could be killed"
    train(world, out, resume=True)
    assert (out / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()
    assert (out / WEIGHTS).read_bytes() == (uninterrupted / WEIGHTS).read_bytes()


def test_accumulation_equals_the_big_batch(world: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Micro-batches of 2 give what micro-batches of 4 give, up to rounding."""
    other = train(world, tmp_path / "run", "train.micro_batch=2")
    for a, b in zip(metrics(other), metrics(uninterrupted), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-4)
    assert metrics(other)[1]["grad_norm"] == pytest.approx(metrics(uninterrupted)[1]["grad_norm"], rel=1e-3)


def test_two_processes_equal_one(world: Path, tmp_path: Path) -> None:
    """torchrun with 2 processes and k micro-batches each equals 1 process with 2k, to 1e-6.

    beta 2 keeps the loss from magnifying rounding, and Adam's epsilon 1e-2 keeps its sign-like first steps from it.
    """
    words = ["train.max_steps=3", "train.micro_batch=2", "train.learning_rate=1e-2", "objective.beta=2"]
    words += ["train.adam_epsilon=1e-2", "train.max_grad_norm=null"]
    one = train(world, tmp_path / "one", *words)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "finepref"]
    command += ["train", "-c", str(world / "run.yaml"), "--out", str(tmp_path / "two"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert result.returncode == 0, result.stderr[-2000:]
    start = load_file(world / "model" / WEIGHTS)
    moved = largest_difference(weights(one), start)
    assert moved > 1e-3
    assert largest_difference(weights(one), weights(tmp_path / "two")) < 1e-6
    for a, b in zip(metrics(one), metrics(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2


def test_a_finished_run_is_left_alone(world: Path, uninterrupted: Path) -> None:
    before = (uninterrupted / "run.json").read_bytes()
    train(world, uninterrupted)
    assert (uninterrupted / "run.json").read_bytes() == before


def test_a_checkpoint_of_another_config_is_refused(world: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """A folder of another run: one sentence, nothing overwritten."""
    before = (uninterrupted / "run.json").read_bytes()
    with pytest.raises(InputError, match="another config"):
        train(world, uninterrupted, "objective.beta=600")
    assert (uninterrupted / "run.json").read_bytes() == before
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (unfinished / name).write_bytes((uninterrupted / name).read_bytes())
    (unfinished / "checkpoints").symlink_to(uninterrupted / "checkpoints")
    with pytest.raises(InputError, match="unfinished run"):
        train(world, unfinished)
    with pytest.raises(InputError, match="checkpoint was written with another config"):
        train(world, unfinished, "objective.beta=600", resume=True)


def test_combinations_without_sense_are_refused(world: Path, tmp_path: Path) -> None:
    """An option without effect is an error with its reason."""
    for words, reason in (
        (["guard.name=sdpo", "objective={name: sft}"], "does not look at losers"),
        (["guard.mu=0.5"], "no effect without a guard"),
        (["signal.margin_scale=2"], "no signal file"),
        (["trajectory.name=renoice"], "did you mean 'renoise'"),
        (["objective.betta=3"], "did you mean 'beta'"),
        (["train.learning_rat=3"], "did you mean 'learning_rate'"),
        (["data.desirable_share=0.5"], "takes pairs"),
        (["objective={name: kto}"], "needs image labels"),
    ):
        with pytest.raises(ConfigError, match=reason):
            train(world, tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_not_finite_gradients_are_skipped_counted_and_stop_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN gradients: skip, count, name the pairs, stop after the stated number; weights stay finite."""
    from finepref.errors import CheckFailed
    from finepref.train import loop

    original = loop.pair_step

    def poisoned(*arguments, **keywords):
        out = original(*arguments, **keywords)
        return type(out)(loss=out.loss * float("nan"), stats=out.stats)

    monkeypatch.setattr(loop, "pair_step", poisoned)
    with pytest.raises(CheckFailed, match="2 steps were skipped"):
        train(world, tmp_path / "run", "train.max_skipped=1")
    lines = metrics(tmp_path / "run")
    assert len(lines) == 2
    assert len(lines[0]["skipped_pairs"]) == 8
