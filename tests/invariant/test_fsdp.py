"""Sharded training (FSDP2) on two processes equals the plain run on two processes; its files are ordinary files."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import socket
import traceback
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finepref.core.errors import ConfigError
from finepref.train.config import load_config
from finepref.train.frozen import ERRORS, NOISE
from finepref.train.run import fill_run, train_run

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
LORA = "pytorch_lora_weights.safetensors"
WORDS = ["train.max_steps=3", "train.micro_batch=2", "train.learning_rate=1e-2", "objective.beta=2"]
WORDS += ["train.adam_epsilon=1e-2", "train.checkpoint_every=2", "train.ema_decay=0.5"]
SHARDED = "train.distributed=fsdp2"


def _process(world: Path, rank: int, port: int, jobs: list[tuple[Path, list[str], bool]], failures) -> None:
    """One of two processes: train every job."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    try:
        import torch.distributed as dist

        dist.init_process_group("gloo")
        for out, words, resume in jobs:
            config = load_config(world / "run.yaml", words)
            if config.train.trajectory_cache is not None and not Path(config.train.trajectory_cache).exists():
                fill_run(config, NOISE)
            if config.train.reference_cache is not None and not Path(config.train.reference_cache).exists():
                fill_run(config, ERRORS)
            train_run(config, out, resume=resume, overwrite=False)
        dist.destroy_process_group()
        os._exit(0)
    except BaseException:
        failures.put(traceback.format_exc())
        failures.close()
        failures.join_thread()
        os._exit(1)


def two_processes(world: Path, *jobs: tuple[Path, list[str], bool]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    children = [context.Process(target=_process, args=(world, r, port, list(jobs), failures)) for r in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(250)
        if child.is_alive():
            child.kill()
    assert [child.exitcode for child in children] == [0, 0], "" if failures.empty() else failures.get()


@pytest.fixture(scope="module")
def runs(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes: full and LoRA, plain and sharded."""
    folder = tmp_path_factory.mktemp("two")
    once = ["train.max_steps=1", "train.ema_decay=null"]
    lora = ["lora={rank: 2, alpha: 4}", *once]
    heavy = ["train.mixed_precision=bf16", "train.gradient_checkpointing=selective", *once, "train.max_grad_norm=null"]
    heavy += ["validation={prompts: [a red circle], every: 1, steps: 2}"]
    points = ["trajectory={name: renoise, network: reference}", f"train.trajectory_cache={folder / 'points'}", *once]
    scaled = ["train.mixed_precision=fp16", "train.max_steps=5", "train.pairs_per_step=2", "train.micro_batch=1"]
    scaled += ["train.learning_rate=0", "train.ema_decay=null", "objective.beta=100"]
    cached = [f"train.reference_cache={folder / 'errors'}", *once, SHARDED]
    two_processes(
        world,
        (folder / "plain", WORDS, False),
        (folder / "sharded", [*WORDS, SHARDED], False),
        (folder / "plain-lora", [*WORDS, *lora], False),
        (folder / "sharded-lora", [*WORDS, *lora, SHARDED], False),
        (folder / "sharded-cached", [*WORDS, *cached], False),
        (folder / "plain-heavy", [*WORDS, *heavy], False),
        (folder / "sharded-heavy", [*WORDS, *heavy, SHARDED], False),
        (folder / "plain-scaled", [*WORDS, *scaled], False),
        (folder / "sharded-scaled", [*WORDS, *scaled, SHARDED], False),
        (folder / "plain-unscaled", [*WORDS, *scaled, "train.mixed_precision=no"], False),
        (folder / "plain-points", [*WORDS, *points], False),
        (folder / "sharded-points", [*WORDS, *points, SHARDED], False),
    )
    return folder


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def difference(a: Path, b: Path) -> float:
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


def test_sharded_equals_plain(world: Path, runs: Path) -> None:
    """Full fine-tuning with a sharded reference: weights (a moving average), losses and gradient norms."""
    assert difference(runs / "plain" / WEIGHTS, world / "model" / WEIGHTS) > 1e-3
    assert difference(runs / "plain" / WEIGHTS, runs / "sharded" / WEIGHTS) < 1e-6
    for a, b in zip(metrics(runs / "plain"), metrics(runs / "sharded"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)


def test_sharded_lora_equals_plain(runs: Path) -> None:
    """LoRA: the reference is the sharded policy with its adapters off."""
    assert difference(runs / "plain-lora" / LORA, runs / "sharded-lora" / LORA) < 1e-6
    (a,), (b,) = metrics(runs / "plain-lora"), metrics(runs / "sharded-lora")
    assert a["loss"] == b["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)


def test_sharded_with_bf16_checkpointing_and_images(runs: Path) -> None:
    """The first step's loss is the plain run's to bf16's rounding, its gradients too; images are drawn on the way."""
    plain, sharded = (metrics(runs / f"{name}-heavy")[0] for name in ("plain", "sharded"))
    assert sharded["loss"] == pytest.approx(plain["loss"], rel=1e-3)
    assert sharded["grad_norm"] == pytest.approx(plain["grad_norm"], rel=2e-2)
    for name in ("plain", "sharded"):
        assert len(list((runs / f"{name}-heavy" / "samples").rglob("*.png"))) == 2


def test_overflows_are_shared(runs: Path) -> None:
    """Every process halves its loss scale at once: what is left after unscaling are float32's gradients.

    Sharded gradients are averaged, so that their loss is two times larger before, and its scale a half.
    """
    known = [line["grad_norm"] for line in metrics(runs / "plain-unscaled")]
    for name in ("plain", "sharded"):
        lines = metrics(runs / f"{name}-scaled")
        assert [line["overflow"] for line in lines][::4] == [True, False]
        for line, norm in zip(lines, known, strict=True):
            assert line["overflow"] or line["grad_norm"] == pytest.approx(norm, rel=1e-2)


def test_sharded_with_the_references_inversions(runs: Path) -> None:
    """What the reference inverted beforehand needs no call in the step, so that it can be trained in shards."""
    plain, sharded = (metrics(runs / f"{name}-points")[0] for name in ("plain", "sharded"))
    assert sharded["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert sharded["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)


def test_a_sharded_reference_fills_the_cache(runs: Path) -> None:
    (line,) = metrics(runs / "sharded-cached")
    first = metrics(runs / "sharded")[0]
    assert {key: line[key] for key in ("loss", "grad_norm", "u")} == {
        key: first[key] for key in ("loss", "grad_norm", "u")
    }


def test_the_checkpoint_holds_whole_tensors(runs: Path) -> None:
    """Names, shapes and numbers of a sharded checkpoint are those of a plain one."""
    for file in ("trainable.safetensors", "optimizer.safetensors", "unet/diffusion_pytorch_model.safetensors"):
        a, b = (load_file(runs / name / "checkpoints/step-000002" / file) for name in ("plain", "sharded"))
        assert {n: tuple(t.shape) for n, t in a.items()} == {n: tuple(t.shape) for n, t in b.items()}
        assert max((a[n] - b[n]).abs().max().item() for n in a) < 1e-5


def test_the_saved_part_loads_in_plain_diffusers(runs: Path) -> None:
    from diffusers import UNet2DConditionModel

    about = json.loads((runs / "sharded" / "unet" / "config.json").read_text())
    assert about["_class_name"] == "UNet2DConditionModel"
    UNet2DConditionModel.from_pretrained(runs / "sharded" / "unet")


def test_a_sharded_run_resumes_bit_identically(world: Path, runs: Path) -> None:
    """From its own checkpoint after step 2, in fresh processes."""
    import shutil

    out = runs / "again"
    out.mkdir()
    for name in ("config.yaml", "metrics.jsonl", "timing.jsonl"):
        shutil.copy(runs / "sharded" / name, out / name)
    shutil.copytree(runs / "sharded" / "checkpoints" / "step-000002", out / "checkpoints" / "step-000002")
    two_processes(world, (out, [*WORDS, SHARDED], True))
    assert (out / "metrics.jsonl").read_bytes() == (runs / "sharded" / "metrics.jsonl").read_bytes()
    assert (out / WEIGHTS).read_bytes() == (runs / "sharded" / WEIGHTS).read_bytes()


def test_one_process_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to shard over"):
        train_run(load_config(world / "run.yaml", [SHARDED]), tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["train.pairs_per_step=9"], "cannot be shared evenly"),
        (["trajectory={name: renoise}"], "equally many calls"),
        (["train.compile=true"], "whole networks"),
        (["train.channels_last=true"], "that layout"),
        (["train.optimizer=adafactor"], "whole weights"),
    ],
)
def test_what_cannot_be_sharded_is_refused(world: Path, words: list[str], reason: str) -> None:
    import torch

    from finepref.train.method import make_method
    from finepref.train.processes import World, check_sharding

    config = load_config(world / "run.yaml", [SHARDED, *words])
    with pytest.raises(ConfigError, match=reason):
        check_sharding(config, make_method(config), World(rank=0, size=2, device=torch.device("cpu")))
