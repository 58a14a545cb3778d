"""Ranked lists: the likelihood against its definition, the ranking that a signal means, and runs on it."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finepref.core import rng
from finepref.core.errors import ConfigError, InputError
from finepref.core.tensors import ListPrediction, PairPrediction, PairSignal
from finepref.data.latents import LatentCache
from finepref.formats.signals import from_columns, write_signals
from finepref.objectives.core import mean_square
from finepref.objectives.dpo import dpo
from finepref.objectives.plackett_luce import plackett_luce
from finepref.train.config import load_config
from finepref.train.lists import list_table
from finepref.train.run import train_run

STEPS = ("train.max_steps=2", "train.lr_scheduler=constant", "train.learning_rate=1e-3", "train.checkpoint_every=1")
STEPS += ("train.adam_epsilon=1e-4", "train.pairs_per_step=4", "objective={name: plackett_luce, beta: 500}")


def prediction(size: int, lists: int = 3) -> ListPrediction:
    def normal(word: str) -> torch.Tensor:
        return torch.randn((size, lists, 2, 3, 3), generator=rng.torch_generator(9, word), dtype=torch.float64)

    target = normal("target")
    reference = target + 0.4 * normal("reference")
    known = torch.stack([mean_square(a, b) for a, b in zip(reference, target, strict=True)])
    return ListPrediction(policy=reference + 0.05 * normal("policy"), target=target, ref_error=known)


def reordered(pred: ListPrediction, order: Any) -> ListPrediction:
    rows = list(order)
    return ListPrediction(policy=pred.policy[rows], target=pred.target[rows], ref_error=pred.ref_error[rows])


def test_the_likelihoods_of_all_orders_add_up_to_one() -> None:
    """Four images, 24 orders; each is the product of its choices, written out in plain Python."""
    pred = prediction(4)
    losses = {
        order: plackett_luce(reordered(pred, order), beta=40.0).loss for order in itertools.permutations(range(4))
    }
    total = sum(torch.exp(-loss) for loss in losses.values())
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), rtol=1e-12, atol=0)
    error = (pred.policy - pred.target).square().flatten(2).mean(2)
    score = (20.0 * (pred.ref_error - error)).tolist()
    for order, loss in losses.items():
        for row in range(3):
            chance, left = 1.0, [score[k][row] for k in order]
            while left:
                chance *= math.exp(left[0]) / sum(map(math.exp, left))
                left = left[1:]
            assert loss[row].item() == pytest.approx(-math.log(chance), rel=1e-10)


def test_a_list_of_two_is_dpo() -> None:
    """Values, gradients and statistics; at policy == reference the loss of K images is log K!."""
    pred = prediction(2)
    policy = pred.policy.clone().requires_grad_()
    listed = plackett_luce(ListPrediction(policy=policy, target=pred.target, ref_error=pred.ref_error), beta=300.0)
    pair = PairPrediction(
        policy_w=policy[0], policy_l=policy[1], target_w=pred.target[0], target_l=pred.target[1],
        ref_error_w=pred.ref_error[0], ref_error_l=pred.ref_error[1],
    )  # fmt: skip
    plain = dpo(pair, PairSignal(margin=torch.zeros(3).double(), weight=torch.ones(3).double()), beta=300.0)
    torch.testing.assert_close(listed.loss, plain.loss, rtol=1e-12, atol=1e-14)
    ours, theirs = (torch.autograd.grad(out.loss.sum(), policy)[0] for out in (listed, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)
    for name in listed.stats:
        torch.testing.assert_close(listed.stats[name], plain.stats[name], rtol=1e-10, atol=1e-12)
    for size in (2, 3, 5):
        same = prediction(size)
        exact = torch.stack([mean_square(a, b) for a, b in zip(same.policy, same.target, strict=True)])
        loss = plackett_luce(ListPrediction(policy=same.policy, target=same.target, ref_error=exact), beta=5000.0).loss
        assert loss.tolist() == pytest.approx([math.log(math.factorial(size))] * 3, rel=1e-12)


def test_a_list_s_loss_is_its_own() -> None:
    """Split in lists, nothing changes, with a scale of the errors too; far scores stay finite."""
    pred = prediction(4)
    scale = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    whole = plackett_luce(ListPrediction(pred.policy, pred.target, pred.ref_error, scale), beta=300.0)
    for row in range(3):
        alone = ListPrediction(
            *(each[:, row : row + 1] for each in (pred.policy, pred.target, pred.ref_error)), scale[row : row + 1]
        )
        torch.testing.assert_close(plackett_luce(alone, beta=300.0).loss, whole.loss[row : row + 1], rtol=1e-12, atol=0)
    assert bool(plackett_luce(pred, beta=1e9).loss.isfinite().all())


@pytest.fixture(scope="module")
def ranked(world: Path) -> tuple[Path, LatentCache, dict[str, float]]:
    """The world's cache under a signal that scores its images at random: (signals, cache, image -> score)."""
    train_run(load_config(world / "run.yaml", ["train.max_steps=1"]), world / "made")  # makes the cache
    cache = LatentCache(world / "cache")
    images = sorted({image for pair in cache.pairs.values() for image in pair[1:]})
    draws = np.random.default_rng(3).permutation(len(images)).astype(float)
    score = dict(zip(images, draws, strict=True))
    path = world / "ranking.parquet"
    signal(path, cache, score)
    return path, cache, score


def signal(path: Path, cache: LatentCache, score: dict[str, float], *, spoilt: bool = False) -> None:
    ahead = np.array([score[pair.image_0] - score[pair.image_1] for pair in cache.pairs.values()])
    columns = {"winner": (ahead < 0).astype(np.int8), "margin_0": ahead, "margin_1": ahead if spoilt else -ahead}
    write_signals(path, from_columns(list(cache.pairs), columns, {"kinds": ["posterior"]}), provenance={})


def test_the_ranking_is_that_of_the_scores(ranked, tmp_path: Path) -> None:
    path, cache, score = ranked
    table = list_table(cache, signals=str(path), size=2)
    for images in table.images:
        values = [score[image] for image in images]
        assert values == sorted(values, reverse=True)
    prompts = {pair.prompt: {*()} for pair in cache.pairs.values()}
    for pair in cache.pairs.values():
        prompts[pair.prompt] |= {pair.image_0, pair.image_1}
    for prompt, images in zip(table.prompt, table.images, strict=True):
        assert {*images} <= prompts[prompt]
    assert len({*table.list_id}) == len(table.list_id)
    signal(tmp_path / "spoilt.parquet", cache, score, spoilt=True)
    with pytest.raises(InputError, match="are no differences of scores of images"):
        list_table(cache, signals=str(tmp_path / "spoilt.parquet"), size=2)
    with pytest.raises(InputError, match=r"the largest of .* sets of images that its pairs connect has"):
        list_table(cache, signals=str(path), size=99)


def train(world: Path, out: Path, path: Path, *words: str, resume: bool = False) -> Path:
    fixed = (*STEPS, f"signal.file={path}", "data.list_size=2")
    return train_run(load_config(world / "run.yaml", [*fixed, *words]), out, resume=resume)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "unet" / "diffusion_pytorch_model.safetensors")


def test_a_run_on_lists(world: Path, tmp_path: Path, ranked) -> None:
    """log K! first; resumed the same bits; in parts to rounding; levels, a moving reference and a LoRA with it."""
    path = ranked[0]
    whole = train(world, tmp_path / "whole", path)
    first = json.loads((whole / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert first["u"] == 0.0
    train(world, tmp_path / "half", path, "train.max_steps=1")
    train(world, tmp_path / "half", path, resume=True)
    assert all(torch.equal(weights(whole)[name], weights(tmp_path / "half")[name]) for name in weights(whole))
    slow = "train.learning_rate=1e-4"  # a thousandth of a step is rounding: 2^-24 of weights near 1
    large, small = (train(world, tmp_path / f"m{n}", path, slow, f"train.micro_batch={n}") for n in (4, 1))
    assert max((weights(large)[name] - weights(small)[name]).abs().max().item() for name in weights(whole)) < 1e-5
    more = ("train.reference={kind: ema, decay: 0.5}", "train.levels={low: 0.5, weights: [1, 2]}", "lora={rank: 4}")
    run = train(world, tmp_path / "more", path, *more, "lora.dropout=0.2")
    assert (run / "run.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("signal.file=null",), "needs a ranking of images"),
        (("data.desirable_share=0.5",), "objective plackett_luce takes lists"),
        (("signal.swap=true",), "objective plackett_luce takes lists"),
        (("objective={name: dpo}",), "objective dpo takes pairs"),
        (("data.list_size=1",), "greater than or equal to 2"),
        (("guard={name: sdpo}",), "a guard has no effect"),
        (("trajectory={name: renoise}",), "takes no pairs"),
        (("train.reference_cache=known",), "takes no pairs, which the cache holds"),
    ],
)
def test_what_makes_no_sense_is_refused(world: Path, tmp_path: Path, ranked, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(world, tmp_path / "run", ranked[0], *words)
    assert not (tmp_path / "run").exists()


def test_images_of_one_score_up_to_rounding_are_one() -> None:
    """Two ways round a graph in float32 give scores that differ by rounding; neither image is better than the other."""
    from finepref.train.lists import _distinct

    held = [(-0.14598539, "b"), (-0.14598542, "d"), (-0.6, "c"), (0.2, "a")]
    assert [image for _, image in _distinct(held)] == ["c", "b", "a"]
    assert [image for _, image in _distinct([(1.0, "z"), (1.0, "y")])] == ["y"]
