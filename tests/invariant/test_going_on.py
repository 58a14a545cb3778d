"""A run that goes on: longer, with other memory, on other processes, after a signal; and its checkpoints used alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finepref import Callback
from finepref.cli import main
from finepref.core.errors import InputError
from finepref.core.interrupt import Interrupted
from finepref.evaluate.named_models import as_source
from finepref.formats.run import read_run
from finepref.models.export import export
from finepref.models.load import open_pipeline
from finepref.train.config import load_config
from finepref.train.run import train_run
from torchrun import FINEPREF, launched

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
STEADY = ["train.lr_scheduler=constant_with_warmup", "train.checkpoint_every=2", "train.checkpoints_keep=9"]


def train(world: Path, out: Path, steps: int, *words: str, **options: object) -> Path:
    config = load_config(world / "run.yaml", [*STEADY, f"train.max_steps={steps}", *words])
    return train_run(config, out, **options)


def picture(run: str | Path) -> torch.Tensor:
    pipe = open_pipeline(str(run))
    draw = torch.Generator().manual_seed(0)
    found = pipe("a red circle", num_inference_steps=2, generator=draw, output_type="pt", height=32, width=32)
    return found.images[0]


def same(one: Path, other: Path) -> bool:
    names = (WEIGHTS, Path("metrics.jsonl"))
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.fixture(autouse=True)
def _hears_ctrl_c() -> Iterator[None]:
    """What is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def six(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(world, tmp_path_factory.mktemp("runs") / "six", 6)


def test_a_longer_run_is_the_uninterrupted_one(world: Path, six: Path, tmp_path: Path) -> None:
    """Finished after 2 steps, then asked for 6: bit for bit; what it was stays usable until then."""
    out = train(world, tmp_path / "run", 2)
    assert picture(out).equal(picture(f"{six}@2"))
    with pytest.raises(InputError, match=r"a finished run of 2 steps, not 6; add --resume to go on to 6"):
        train(world, out, 6)
    train(world, out, 6, resume=True)
    assert same(out, six)
    assert read_run(out).steps == 6
    with pytest.raises(InputError, match="a finished run of 6 steps, not 4"):
        train(world, out, 4, resume=True)


def test_a_decaying_rate_depends_on_the_length(world: Path, tmp_path: Path) -> None:
    out = train(world, tmp_path / "run", 2, "train.lr_scheduler=cosine")
    with pytest.raises(InputError, match=r"train.max_steps 2, now 4"):
        train(world, out, 4, "train.lr_scheduler=cosine", resume=True)
    (out / "run.json").unlink()
    with pytest.raises(InputError, match=r"train.max_steps 2, now 4.*train.lr_scheduler=constant"):
        train(world, out, 4, "train.lr_scheduler=cosine", resume=True)


def test_fewer_steps_than_its_checkpoint_has(world: Path, six: Path, tmp_path: Path) -> None:
    out = shutil.copytree(six, tmp_path / "run")
    (out / "run.json").unlink()
    with pytest.raises(InputError, match=r"it has 6 steps already, and train\.max_steps is 4"):
        train(world, out, 4, resume=True)


@pytest.mark.parametrize(
    "words",
    [
        ["train.micro_batch=1"],
        ["train.gradient_checkpointing=true", "train.place_batch=2"],
        ["train.channels_last=true", "cache.batch_size=3", "train.checkpoints_keep=1"],
        ["data.format=imagefolder", "model.family=sd15"],
    ],
)
def test_what_decides_speed_or_memory_changes_no_run(world: Path, six: Path, tmp_path: Path, words: list[str]) -> None:
    """After 2 steps under other settings: the weights of the uninterrupted run, up to the rounding of other sums."""
    out = train(world, tmp_path / "run", 2)
    train(world, out, 6, *words, resume=True)
    start, ours, whole = (load_file(run / WEIGHTS) for run in (world / "model", out, six))
    moved = max((whole[name] - start[name]).abs().max() for name in start)
    apart = max((whole[name] - ours[name]).abs().max() for name in start)
    assert apart < 1e-2 * moved


@pytest.mark.parametrize("words", [[], ["train.ema_decay=0.5"], ["lora={rank: 2, alpha: 4}"]], ids=str)
def test_a_checkpoint_is_a_run(world: Path, tmp_path: Path, words: list[str]) -> None:
    """RUN@2 draws, starts, exports and is listed as the run of 2 steps."""
    two, four = (train(world, tmp_path / f"run-{steps}", steps, *words) for steps in (2, 4))
    assert picture(f"{four}@2").equal(picture(two))
    assert not picture(f"{four}@2").equal(picture(four))
    if not words or "lora" not in words[0]:  # of a LoRA's header the order is not fixed
        assert as_source(f"{four}@2").fingerprint == as_source(two).fingerprint
    started = [
        train(world, tmp_path / f"on-{name}", 1, f"model.init_from={start}", *words)
        for name, start in (("at", f"{four}@2"), ("two", two))
    ]
    assert picture(started[0]).equal(picture(started[1]))
    out = export(f"{four}@2", str(world / "model"), tmp_path / "out", format="merged")
    assert torch.allclose(picture(out), picture(two), atol=1e-5)


def test_a_checkpoint_that_is_not_there(world: Path, six: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such checkpoint; there are \S+six@2, \S+@4, \S+@6"):
        open_pipeline(f"{six}@5")
    old = shutil.copytree(six, tmp_path / "old")
    (old / "checkpoints" / "step-000002" / "run.json").unlink()
    with pytest.raises(InputError, match="a version before wrote this checkpoint"):
        open_pipeline(f"{old}@2")


class Signal(Callback):
    """Sends a signal to this process after a step."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_step(self, state, metrics):
        if state.step == self.step:
            signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_a_checkpoint(
    world: Path, six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"stopped after step 3 of 6: \S+step-000003 is kept") as caught:
        train(world, tmp_path / "run", 6, callbacks=[Signal(number, 3)])
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before
    assert "the run ends after this step, with a checkpoint" in capsys.readouterr().err
    train(world, tmp_path / "run", 6, resume=True)
    assert same(tmp_path / "run", six)


def test_ctrl_c_is_one_sentence(world: Path, tmp_path: Path) -> None:
    """`finepref train` itself: exit code 130, and what to do."""
    words = [sys.executable, "-m", "finepref", "train", "-c", world / "run.yaml", "--out", tmp_path / "run", *STEADY]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([*words, "train.max_steps=5000"], stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    lines = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (lines.exists() and lines.stat().st_size):
        signal.sigtimedwait([], 0.05)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=600)
    assert process.returncode == 130, text
    assert text.splitlines()[-1].startswith("finepref: stopped after step ")
    assert "Traceback" not in text


def test_resume_auto_starts_or_goes_on(world: Path, six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no run to go on with; leave out --resume, or write --resume auto"):
        train(world, tmp_path / "run", 2, resume=True)
    assert not (tmp_path / "run").exists()
    for steps in (2, 6):
        words = ["train", "-c", str(world / "run.yaml"), "--out", str(tmp_path / "run"), "--resume", "auto", *STEADY]
        monkeypatch.setattr(sys, "argv", ["finepref", *words, f"train.max_steps={steps}"])
        with pytest.raises(SystemExit) as caught:
            main.main()
        assert caught.value.code == 0
    assert same(tmp_path / "run", six)


@pytest.mark.parametrize("what", ["weights", "checkpoint", "cache", "nothing"])
def test_verify_reads_again_what_a_finished_run_does_not(
    world: Path,
    six: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
) -> None:
    """`--verify` alone finds a byte that changed in a finished run, or in the cache that it does not open again."""
    run, cache = shutil.copytree(six, tmp_path / "run"), shutil.copytree(world / "cache", tmp_path / "cache")
    places = {"weights": run / WEIGHTS, "checkpoint": run / "checkpoints" / "step-000004" / "optimizer.safetensors"}
    places["cache"] = min(cache.rglob("*.safetensors"))
    if what != "nothing":
        data = bytearray(places[what].read_bytes())
        data[-3] ^= 1
        places[what].write_bytes(data)
    words = ["train", "-c", str(world / "run.yaml"), "--out", str(run), *STEADY, "train.max_steps=6"]
    for verify in ([], ["--verify"]):
        monkeypatch.setattr(sys, "argv", ["finepref", *words, f"cache.folder={cache}", *verify])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main.main()
        refused = bool(verify) and what != "nothing"
        said = capsys.readouterr().err
        assert caught.value.code == (2 if refused else 0), (what, verify, said)
        if refused:
            assert said.splitlines()[-1].startswith(f"finepref: {places[what]}: its content has changed"), said
        elif verify:
            assert re.search(rf"{run}: \d\d files of the run, its checkpoints and its cache are as they were", said)
            assert f"next: finepref generate --model start={run}@0 --model run={run} --prompts" in said


def test_where_no_run_is_nothing_is_verified(world: Path, tmp_path: Path) -> None:
    for resume in (False, True):
        with pytest.raises(InputError, match="there is no run to "):
            train(world, tmp_path / "run", 2, resume=resume, verify=True)
    assert not (tmp_path / "run").exists()


def test_a_run_of_the_version_before_goes_on(
    world: Path, six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its state.json has a hash in place of what decides the weights, and its checkpoints no part of their own."""
    out = train(world, tmp_path / "run", 2)
    (out / "run.json").unlink()
    folder = out / "checkpoints" / "step-000002"
    shutil.move(folder / WEIGHTS, folder / "trainable.safetensors")
    for name in ("unet/config.json", "run.json", "config.yaml", "finepref.json"):
        (folder / name).unlink()
    state = json.loads((folder / "state.json").read_text())
    del state["decides"]
    (folder / "state.json").write_text(json.dumps({**state, "identity": "0" * 64}))
    train(world, out, 6, resume=True)
    assert "is of a version before" in capsys.readouterr().err
    assert same(out, six)


def test_what_lies_beside_a_base_makes_no_other_run(world: Path, tmp_path: Path) -> None:
    """Notes and a twin in another precision are not read; the weights are."""
    base = shutil.copytree(world / "model", tmp_path / "base")
    words = [f"model.base={base}"]
    run = train(world, tmp_path / "run", 2, *words)
    (base / "notes.json").write_text("{}")
    shutil.copy(base / WEIGHTS, base / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    train(world, run, 3, *words, resume=True)
    assert read_run(run).steps == 3
    tensors = load_file(base / WEIGHTS)
    save_file({name: value + 1e-3 for name, value in tensors.items()}, base / WEIGHTS)
    with pytest.raises(InputError, match="another base or start"):
        train(world, run, 4, *words, resume=True)


def test_a_finished_run_of_the_version_before_on_another_base(world: Path, six: Path, tmp_path: Path) -> None:
    """Its run.json has no more than the hashes of signal, base and start."""
    out = shutil.copytree(six, tmp_path / "run")
    (out / "finepref.json").unlink()
    record = json.loads((out / "run.json").read_text())
    del record["decides"]
    (out / "run.json").write_text(json.dumps(record))
    train(world, out, 6)
    (out / "run.json").write_text(json.dumps({**record, "base_sha256": "0" * 64}))
    with pytest.raises(InputError, match="a finished run of another signal, base or start"):
        train(world, out, 6)


def test_a_key_that_the_version_before_did_not_know(world: Path, tmp_path: Path) -> None:
    """Its warm-up began at 1/W: a run of it does not go on under another rate unsaid."""
    before = "train.lr_warmup_from_zero=false"
    out = train(world, tmp_path / "run", 2, before)
    (out / "run.json").unlink()
    lines = (out / "config.yaml").read_text().splitlines(keepends=True)
    (out / "config.yaml").write_text("".join(line for line in lines if "lr_warmup_from_zero" not in line))
    with pytest.raises(InputError, match=r"train.lr_warmup_from_zero False, now True\); set them as they were"):
        train(world, out, 4, "train.lr_warmup_from_zero=true", resume=True)
    train(world, out, 4, before, resume=True)
    assert same(out, train(world, tmp_path / "whole", 4, before))


def test_a_key_that_has_no_effect_is_not_asked_about(world: Path, tmp_path: Path) -> None:
    """Without a warm-up it is the same run, whatever its beginning would be."""
    steady = ["train.lr_scheduler=constant", "train.lr_warmup_from_zero=false"]
    out = train(world, tmp_path / "run", 1, *steady)
    lines = (out / "config.yaml").read_text().splitlines(keepends=True)
    (out / "config.yaml").write_text("".join(line for line in lines if "lr_warmup_from_zero" not in line))
    train(world, out, 2, "train.lr_scheduler=constant", "train.lr_warmup_from_zero=true", resume=True)
    assert read_run(out).steps == 2


def test_two_one_and_two_processes(world: Path, tmp_path: Path) -> None:
    """2 steps on two processes, 2 on one, 2 on two: the run of one process, to 1e-6."""
    words = ["objective.beta=2", "train.adam_epsilon=1e-2", "train.learning_rate=1e-2", "train.max_grad_norm=null"]
    one = train(world, tmp_path / "one", 6, *words)
    again = [*FINEPREF, "train", "-c", world / "run.yaml", "--out", tmp_path / "run", "--resume", "auto", *STEADY]
    for steps in (2, 4, 6):
        if steps == 4:
            train(world, tmp_path / "run", steps, *words, resume=True)
            continue
        launched(*again, *words, f"train.max_steps={steps}")
    start, ours, whole = (load_file(run / WEIGHTS) for run in (world / "model", tmp_path / "run", one))
    assert max((whole[name] - start[name]).abs().max() for name in start) > 1e-3
    assert max((whole[name] - ours[name]).abs().max() for name in start) < 1e-5
