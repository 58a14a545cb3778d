"""A checkpoint is written while the run goes on: nothing of the run changes, and a failure of its writer is said."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from finepref import Callback
from finepref.core.provenance import sha256_folder
from finepref.formats.metrics import METRICS, StepMetrics
from finepref.formats.run import is_finished
from finepref.train import checkpoint, loop
from finepref.train.callbacks import Progress
from finepref.train.checkpoint import check_checkpoint, checkpoint_path, checkpoints
from finepref.train.config import load_config
from finepref.train.run import train_run

WORDS = ["train.max_steps=6", "train.checkpoint_every=2", "train.ema_decay=0.5", "train.checkpoints_keep=9"]


def train(world: Path, out: Path, *callbacks: Callback, resume: bool = False) -> Path:
    return train_run(load_config(world / "run.yaml", WORDS), out, resume=resume, callbacks=callbacks)


def content(run: Path) -> tuple[str, bytes]:
    return sha256_folder(run / "unet"), (run / METRICS).read_bytes()


@pytest.fixture(scope="module")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, each checkpoint of which is written before it goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "COPIED", 0)
        return train(world, tmp_path_factory.mktemp("plain") / "run")


class Held(Callback):
    """Holds the writer of the checkpoint of step 2 back until two steps later."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, int]] = []
        self.go = threading.Event()
        mark = checkpoint.mark

        def late(folder: Path, *words: object, **options: object) -> None:
            assert self.go.wait(300), "the run does not go on while a checkpoint is written"
            mark(folder, *words, **options)  # type: ignore[arg-type]

        patch.setattr(checkpoint, "mark", late)

    def on_step(self, state: Progress, metrics: StepMetrics) -> None:
        self.told.append(("step", state.step))
        if state.step == 3:
            assert not checkpoint_path(state.out, 2).exists(), "whole or absent"
            self.go.set()

    def on_checkpoint(self, state: Progress, folder: Path) -> None:
        assert check_checkpoint(folder) > 0
        assert folder == checkpoint_path(state.out, state.step)
        self.told.append(("checkpoint", state.step))


def test_it_is_that_of_its_step(world: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on before the checkpoint is whole; every checkpoint is, bit for bit, that of the plain run."""
    held = Held(monkeypatch)
    run = train(world, tmp_path / "run", held)
    assert held.told.index(("step", 3)) < held.told.index(("checkpoint", 2))
    assert [step for what, step in held.told if what == "checkpoint"] == [2, 4, 6]
    assert content(run) == content(plain)
    for ours, theirs in zip(checkpoints(run), checkpoints(plain), strict=True):
        for file in ("optimizer.safetensors", "average.safetensors", "trainable.safetensors"):
            found = [folder / file for folder in (ours, theirs)]
            assert [path.exists() for path in found] in ([True, True], [False, False])
            assert not found[0].exists() or found[0].read_bytes() == found[1].read_bytes()
        assert sha256_folder(ours / "unet") == sha256_folder(theirs / "unet")


class Full(Callback):
    """The disk is full while the checkpoint of step 4 is written."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.last = 0
        save = checkpoint.save_file

        def full(tensors: object, path: Path) -> None:
            if self.last >= 4:
                raise OSError(28, "No space left on device", str(path))
            save(tensors, path)  # type: ignore[arg-type]

        patch.setattr(checkpoint, "save_file", full)

    def on_step(self, state: Progress, metrics: StepMetrics) -> None:
        self.last = state.step


def test_a_failure_ends_the_run(world: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device"):
        train(world, tmp_path / "run", Full(patch))
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-000002"]
    assert check_checkpoint(checkpoint_path(tmp_path / "run", 2)) > 0
    assert not is_finished(tmp_path / "run")
    assert content(train(world, tmp_path / "run", resume=True)) == content(plain)


class Dies(Held):
    """The process is killed at step 5, while the checkpoint of step 4 is written."""

    def on_step(self, state: Progress, metrics: StepMetrics) -> None:
        if state.step == 2:
            self.go.set()
        if state.step == 3:
            self.until_written(state.out)
            self.go.clear()
        if state.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    def until_written(self, out: Path) -> None:
        while not checkpoint_path(out, 2).exists():
            threading.Event().wait(0.01)


def _die(world: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        train(world, out, Dies(patch))


def test_killed_while_one_is_written(world: Path, plain: Path, tmp_path: Path) -> None:
    """The last whole one is there, and the run that goes on from it is the plain one, bit for bit."""
    child = multiprocessing.get_context("fork").Process(target=_die, args=(world, tmp_path / "run"))
    child.start()
    child.join(600)
    assert child.exitcode == -signal.SIGKILL
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-000002"]
    assert content(train(world, tmp_path / "run", resume=True)) == content(plain)
    assert not [*(tmp_path / "run").rglob(".finepref-*")], "what was half-written is put away"
