"""Training in float16: the loss scaler is torch's and part of a checkpoint, and an overflow is no fault of a step."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

import tiny
from finepref.core.errors import CheckFailed, InputError
from finepref.train import loop
from finepref.train.batches import micro_batches
from finepref.train.callbacks import Callback
from finepref.train.checkpoint import read_state
from finepref.train.config import load_config
from finepref.train.frozen import ERRORS
from finepref.train.identity import prepare
from finepref.train.opened import about_base, open_latents
from finepref.train.processes import World
from finepref.train.run import fill_run, make_run, train_run
from finepref.train.step import pair_loss

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
WORDS = ["train.mixed_precision=fp16", "train.max_steps=20", "train.checkpoint_every=0", "objective.beta=100"]
WORDS += ["train.pairs_per_step=2", "train.micro_batch=1", "train.lr_scheduler=constant"]
GROWTH = 3


@pytest.fixture(autouse=True)
def grows_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale grows after three steps without overflow, so that a short run grows it until it overflows again."""
    original = loop.make_scaler

    def make_scaler(*given: Any) -> torch.amp.GradScaler:
        scaler = original(*given)
        scaler.set_growth_interval(GROWTH)
        return scaler

    monkeypatch.setattr(loop, "make_scaler", make_scaler)


@pytest.fixture(scope="module", name="world")
def smaller(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with an eighth of its network: float16 is slow on a CPU."""
    folder = tmp_path_factory.mktemp("smaller")
    shutil.copytree(world / "model", folder / "model")
    about = UNet2DConditionModel.load_config(world / "model" / "unet")
    about.update(block_out_channels=(8, 16), norm_num_groups=4)
    tiny.seeded(5, lambda: UNet2DConditionModel.from_config(about)).save_pretrained(folder / "model" / "unet")
    run = yaml.safe_load((world / "run.yaml").read_text())
    run["model"]["base"], run["cache"]["folder"] = str(folder / "model"), str(folder / "cache")
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder


def train(world: Path, out: Path, *words: str, **keywords: Any) -> Path:
    return train_run(load_config(world / "run.yaml", [*WORDS, *words]), out, **keywords)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        grows_soon.__wrapped__(patch)
        return train(world, tmp_path_factory.mktemp("fp16") / "whole")


def test_scale_counters_and_weights_are_those_of_a_plain_loop_with_gradscaler(
    world: Path, whole: Path, tmp_path: Path
) -> None:
    """torch.amp.GradScaler as torch's notes show it: scale, backward, unscale, clip, step, update. Bit for bit."""
    config = load_config(world / "run.yaml", WORDS)
    here = World(rank=0, size=1, device=torch.device("cpu"))
    prepared = prepare(config, cache=open_latents(config, tmp_path, world=here), base=about_base(config))
    run = make_run(prepared, tmp_path, world=here)
    parameters = [parameter for _, parameter in run.adapter.trainable()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-2, fused=True)
    scaler = torch.amp.GradScaler("cpu", growth_interval=GROWTH)
    run.adapter.train_mode(True)
    scales, overflows = [], []
    for step in range(20):
        optimizer.zero_grad()
        order = run.source.order(step=step, per_step=2)
        for _, batch in micro_batches(run.source, order, range(2), size=1):
            calls = dict.fromkeys(loop.CALLS, 0)
            out, _ = pair_loss(batch, adapter=run.adapter, method=run.method, seed=0, calls=calls)
            scaler.scale(out.loss.sum() / 2).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        scales.append(scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
        overflows.append(scaler.get_scale() < scales[-1])
    lines = metrics(whole)
    assert [line["loss_scale"] for line in lines] == scales
    assert [line["overflow"] for line in lines] == overflows
    grown = next(step for step in range(1, 20) if scales[step] > scales[step - 1])
    assert any(overflows[:grown])
    assert any(overflows[grown:])
    expected = scaler.state_dict()
    state = read_state(whole / "checkpoints" / "step-000020")
    assert state.scaler is not None
    assert (state.scaler.scale, state.scaler.growth_tracker) == (expected["scale"], expected["_growth_tracker"])
    assert (state.counters.overflows, state.counters.skipped) == (sum(overflows), 0)
    ours = load_file(whole / WEIGHTS)
    theirs = run.adapter.policy_module().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    start = load_file(world / "model" / WEIGHTS)
    assert any(not torch.equal(ours[name], start[name]) for name in ours)


def test_the_reference_in_float16_is_the_policy_at_the_start(whole: Path) -> None:
    """Stored in half as autocast casts it: u is 0, exactly."""
    assert metrics(whole)[0]["u"] == 0.0


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, state: Any, metrics: Any) -> bool:
        return bool(state.step == self.step)


def test_a_resumed_run_is_bitwise_the_same(world: Path, whole: Path, tmp_path: Path) -> None:
    """Stopped where the scale has been halved and its growth has begun to count."""
    stop = next(n for n, line in enumerate(metrics(whole), start=1) if n > 8 and not line["overflow"])
    train(world, tmp_path / "run", callbacks=[StopAt(stop)])
    held = read_state(tmp_path / "run" / "checkpoints" / f"step-{stop:06d}").scaler
    assert held is not None
    assert held.scale < 2**16
    train(world, tmp_path / "run", resume=True)
    for file in (Path("metrics.jsonl"), WEIGHTS, Path("checkpoints/step-000020/state.json")):
        assert (tmp_path / "run" / file).read_bytes() == (whole / file).read_bytes()


def test_gradients_that_no_scale_can_hold_stop_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to a scale of 1 an overflow is the scale's; below it the step is at fault, with its pairs."""
    patched = loop.make_scaler

    def at_two(*given: Any) -> torch.amp.GradScaler:
        scaler = patched(*given)
        scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0})
        return scaler

    monkeypatch.setattr(loop, "make_scaler", at_two)
    with pytest.raises(CheckFailed, match="1 steps were skipped"):
        train(world, tmp_path / "run", "objective.beta=1e30", "train.max_skipped=0")
    lines = metrics(tmp_path / "run")
    assert [(line["loss_scale"], line["overflow"]) for line in lines] == [(2.0, True), (1.0, True), (0.5, False)]
    assert [len(line.get("skipped_pairs", ())) for line in lines] == [0, 0, 2]


def test_a_run_whose_scale_never_settled_says_so(world: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"not one .* more steps"):
        train(world, tmp_path / "run", "objective.beta=1e6", "train.max_steps=2")


def test_a_loss_that_is_not_finite_is_the_pairs_fault(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No loss scale makes a loss infinite: the step counts as skipped, though torch halves the scale for it too."""
    original = loop.pair_loss

    def poisoned(batch: Any, **keywords: Any) -> Any:
        out, t = original(batch, **keywords)
        return dataclasses.replace(out, loss=out.loss * torch.nan), t

    monkeypatch.setattr(loop, "pair_loss", poisoned)
    with pytest.raises(CheckFailed, match="2 steps were skipped"):
        train(world, tmp_path / "run", "train.max_skipped=1", "train.max_steps=3")
    lines = metrics(tmp_path / "run")
    assert [(line["loss_scale"], line["overflow"]) for line in lines] == [(65536.0, False), (32768.0, False)]


def test_a_checkpoint_that_lost_its_scaler_is_refused(world: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    place = tmp_path / "run" / "checkpoints" / "step-000020" / "state.json"
    state = json.loads(place.read_text())
    del state["scaler"]
    place.write_text(json.dumps({key: value for key, value in state.items() if key != "finepref_sha256"}))
    (place.parent / "finepref.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match="loss scaler is missing"):
        train(world, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "words",
    [
        ["lora={rank: 2}", "train.gradient_checkpointing=selective"],
        ["trajectory={name: renoise, steps: 2}", "validation={prompts: [a dog], every: 1, steps: 1}"],
    ],
    ids=["lora", "inversion"],
)
def test_its_neighbours_begin_at_zero_too(world: Path, tmp_path: Path, words: list[str]) -> None:
    """A reference that is the policy without adapters, recomputed blocks, inverted points, images on the way."""
    run = train(world, tmp_path / "run", "train.max_steps=1", "objective.beta=0.1", *words)
    (line,) = metrics(run)
    assert (line["u"], line["overflow"]) == (0.0, False)
    assert 0 < line["grad_norm"] < 1e3


def test_the_references_errors_from_a_file_are_those_of_the_step(world: Path, tmp_path: Path) -> None:
    words = ["train.max_steps=2", "objective.beta=0.1", "train.place_batch=1"]
    cached = [*words, f"train.reference_cache={tmp_path / 'errors'}"]
    fill_run(load_config(world / "run.yaml", [*WORDS, *cached]), ERRORS)
    first, second = train(world, tmp_path / "step", *words), train(world, tmp_path / "file", *cached)
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()
