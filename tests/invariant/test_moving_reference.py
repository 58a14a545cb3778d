"""A reference that moves, and a window of levels with weights: by hand, resumed, in other micro-batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from finepref.core.errors import ConfigError, InputError
from finepref.diffusion.path import FLOW, scaled_linear
from finepref.train.config import load_config
from finepref.train.levels import LevelOptions, level_weights, windowed
from finepref.train.method import check_path, make_method
from finepref.train.placement import draw_levels
from finepref.train.run import train_run

STEPS = ("train.max_steps=4", "train.lr_scheduler=constant", "train.learning_rate=1e-3", "train.checkpoints_keep=9")
STEPS += ("train.checkpoint_every=1", "train.adam_epsilon=1e-4")
EMA, REFRESH = "train.reference={kind: ema, decay: 0.6}", "train.reference={kind: refresh, every: 2}"
KINDS = {"full": (), "lora": ("lora={rank: 4}",), "text encoder": ("lora={rank: 4, text_encoder: true}",)}


def train(world: Path, out: Path, *words: str, resume: bool = False) -> Path:
    return train_run(load_config(world / "run.yaml", [*STEPS, *words]), out, resume=resume)


def held(run: Path, step: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(policy, reference) of a checkpoint, the policy's tensors by the reference's names."""
    folder = run / "checkpoints" / f"step-{step:06d}"
    reference = load_file(folder / "reference.safetensors")
    file = folder / "trainable.safetensors"
    policy = load_file(file if file.is_file() else folder / "unet" / "diffusion_pytorch_model.safetensors")
    return {name: policy[name] for name in reference}, reference


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_an_average_is_that_of_its_definition(world: Path, tmp_path: Path, kind: str) -> None:
    """By hand from the checkpoints; at the first step it is the policy, and u is 0; resumed, the same bits."""
    run = train(world, tmp_path / "run", EMA, *KINDS[kind])
    assert lines(run)[0]["u"] == 0.0
    assert lines(run)[1]["u"] != 0.0
    for step in (2, 3, 4):
        (policy, reference), (_, before) = held(run, step), held(run, step - 1)
        for name, value in reference.items():
            wanted = 0.6 * before[name].double() + 0.4 * policy[name].double()
            torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=1e-7)
    train(world, tmp_path / "half", EMA, *KINDS[kind], "train.max_steps=2")
    train(world, tmp_path / "half", EMA, *KINDS[kind], resume=True)
    for ours, theirs in zip(held(tmp_path / "half", 4), held(run, 4), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    small = train(world, tmp_path / "small", EMA, *KINDS[kind], "train.micro_batch=1")
    for ours, theirs in zip(held(small, 4), held(run, 4), strict=True):
        assert max((ours[name] - theirs[name]).abs().max().item() for name in theirs) < 1e-5


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_refreshed_reference_is_the_policy_of_that_step(world: Path, tmp_path: Path, kind: str) -> None:
    run = train(world, tmp_path / "run", REFRESH, *KINDS[kind])
    for step, source in ((2, 2), (3, 2), (4, 4)):
        reference, policy = held(run, step)[1], held(run, source)[0]
        assert all(torch.equal(reference[name], policy[name]) for name in reference)
    assert [line["u"] == 0.0 for line in lines(run)] == [True, False, True, False]
    every = train(world, tmp_path / "every", "train.reference={kind: refresh, every: 1}", *KINDS[kind])
    assert all(line["u"] == 0.0 for line in lines(every))
    assert all(line["loss"] == pytest.approx(np.log(2), abs=1e-7) for line in lines(every))


def test_a_step_that_was_not_applied_moves_no_average(world: Path, tmp_path: Path, monkeypatch) -> None:
    """Gradients that are not finite at the third step: reference and policy stay."""
    clip = torch.nn.utils.clip_grad_norm_
    seen: list[int] = []

    def norm(parameters, limit):
        seen.append(1)
        found = clip(parameters, limit)
        return found * float("nan") if len(seen) == 3 else found

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", norm)
    run = train(world, tmp_path / "run", EMA)
    for one, other in zip(held(run, 3), held(run, 2), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert lines(run)[2]["skipped_pairs"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((EMA, "train.reference_cache=known"), "it holds what the start says, and the reference is another one"),
        ((EMA, "objective={name: sft}"), "objective sft is compared with no reference"),
        ((EMA, "train.distributed=fsdp2"), "a sharded reference is not moved here"),
        (("train.reference={kind: ema}",), "kind ema needs decay"),
        (("train.reference={kind: refresh}",), "kind refresh needs every"),
        (("train.reference={decay: 0.9}",), "decay has an effect on kind ema alone"),
        (("train.reference={kind: ema, decay: 0.9, every: 2}",), "every has an effect on kind refresh alone"),
        (("train.reference={kind: emaa, decay: 0.9}",), "Input should be 'frozen', 'base', 'ema' or 'refresh'"),
        (("train.levels={low: 0.6, high: 0.5}",), "low must lie below high"),
        (("train.levels={weights: [0, 0]}",), "weights must not be negative, and not all zero"),
        (("train.levels={weights: [-1, 1]}",), "weights must not be negative, and not all zero"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(world: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_method(load_config(world / "run.yaml", words))


def test_another_decay_is_another_run(world: Path, tmp_path: Path) -> None:
    train(world, tmp_path / "run", EMA)
    for other in ("train.reference={kind: ema, decay: 0.7}", "train.reference={kind: frozen}", REFRESH):
        with pytest.raises(InputError, match=r"train\.reference"):
            train(world, tmp_path / "run", other, resume=True)


@pytest.mark.parametrize("path", [scaled_linear(), FLOW], ids=["discrete", "flow"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.3, 0.7), (0.5, 1.0), (0.0, 0.1)])
def test_a_window_keeps_the_density_inside_it(path, low: float, high: float) -> None:
    """Kolmogorov's distance to the path's own density, cut to the window by scipy."""
    options = LevelOptions(low=low, high=high)
    u = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)
    t = path.draw_t(windowed(u, options, path))
    share = t.double().numpy() if path.alpha_bar is None else (t.double().numpy() + 0.5) / 1000
    assert low - 1e-3 <= share.min() <= share.max() <= high + 1e-3
    if path.alpha_bar is None:
        inside = stats.norm.cdf(np.log(share / (1 - share)))
        ends = stats.norm.cdf([-np.inf if x == 0 else np.inf if x == 1 else np.log(x / (1 - x)) for x in (low, high)])
    else:
        inside, ends = share, np.array([low, high])
    uniform = (inside - ends[0]) / (ends[1] - ends[0])
    assert np.abs(np.sort(uniform) - u.numpy()).max() < 0.02


def test_weights_by_hand() -> None:
    options = LevelOptions(low=0.2, high=0.6, weights=[1.0, 4.0])
    t = torch.tensor([200, 399, 400, 599])
    assert level_weights(t, options, scaled_linear()).tolist() == [1.0, 1.0, 4.0, 4.0]
    assert level_weights(torch.tensor([0.2, 0.39, 0.41, 0.6]), options, FLOW).tolist() == [1.0, 1.0, 4.0, 4.0]


def test_levels_of_a_run(world: Path, tmp_path: Path) -> None:
    """Weights of 1 are no weights, bit for bit; of 2 they double the gradient; the levels are those of the window."""
    free = ("train.max_grad_norm=null", "train.max_steps=1")
    plain, one, two = (
        train(world, tmp_path / name, *free, *words)
        for name, words in (
            ("plain", ()),
            ("one", ("train.levels={weights: [1.0]}",)),
            ("two", ("train.levels={weights: [2.0, 2.0]}",)),
        )
    )
    files = [load_file(run / "unet" / "diffusion_pytorch_model.safetensors") for run in (plain, one)]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    assert lines(two)[0]["grad_norm"] == pytest.approx(2 * lines(plain)[0]["grad_norm"], rel=1e-5)
    assert lines(two)[0]["loss"] == pytest.approx(2 * np.log(2), rel=1e-6)
    late = train(world, tmp_path / "late", *free, "train.levels={low: 0.75}", "train.stratified_t=true")
    assert [bucket["pairs"] for bucket in lines(late)[0]["by_t"]] == [0, 0, 0, 8]
    method = make_method(load_config(world / "run.yaml", ["train.levels={low: 0.75}"]))
    found = draw_levels(["a", "b", "c"], [0, 0, 1], path=scaled_linear(), method=method, seed=0)
    assert bool((found >= 750).all())


def test_losers_as_winners_are_the_mirror(world: Path, tmp_path: Path) -> None:
    """u of the first step under a moved policy changes its sign; L_w and L_l change places."""
    words = ("train.max_steps=1", "objective={name: mapo}", "data.flip=false", "cache.posterior=mode")
    words += (f"cache.folder={tmp_path / 'cache'}",)  # neither flips nor posterior samples, which each side draws
    plain, swapped = (
        lines(train(world, tmp_path / name, *words, *more))[0]
        for name, more in (("plain", ()), ("swapped", ("signal.swap=true",)))
    )
    assert plain["L_w"] == pytest.approx(swapped["L_l"], rel=1e-5)
    assert plain["L_l"] == pytest.approx(swapped["L_w"], rel=1e-5)
    assert plain["L_w"] != pytest.approx(plain["L_l"], rel=1e-4)


def test_a_penalty_reaches_the_weights(world: Path, tmp_path: Path) -> None:
    """With a rate that lengthens predictions, a heavy guard leaves shorter ones; the loss holds the penalty."""
    words = ("train.learning_rate=1e-2",)
    found = {}
    for name, guard in (("light", 1e-6), ("heavy", 1e4)):
        run = train(world, tmp_path / name, *words, f"guard={{name: norm, weight: {guard}}}")
        found[name] = lines(run)
    assert found["light"][0]["guard_length"] == found["heavy"][0]["guard_length"] == pytest.approx(1.0, abs=1e-6)
    assert found["light"][0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    longest = {name: max(line["guard_length"] for line in each) for name, each in found.items()}
    assert longest["light"] > 1.0
    assert found["heavy"][1]["loss"] != pytest.approx(found["light"][1]["loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "there"), [(0.5004, 0.5006, False), (0.9999, 0.99995, False), (0.5, 0.501, True)]
)
def test_a_window_holds_a_level(low: float, high: float, there: bool) -> None:
    """Between two levels of a path of 1,000 there is nothing to train on; a flow has levels everywhere."""
    method = make_method(load_config("lab/dpo", [f"train.levels={{low: {low}, high: {high}}}"]))
    check_path(method, FLOW)
    if there:
        check_path(method, scaled_linear())
        return
    with pytest.raises(ConfigError, match="none of the path's 1000 levels lies between"):
        check_path(method, scaled_linear())
