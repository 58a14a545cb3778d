"""Draws, learning rates, config, tallies, reference cache."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finepref.core import rng
from finepref.core.errors import ConfigError
from finepref.core.tensors import ObjectiveOutput, PairBatch, PairSignal, Placed
from finepref.diffusion.path import FLOW, scaled_linear
from finepref.formats.metrics import StepMetrics
from finepref.train.batches import image_order, pair_order
from finepref.train.config import load_config, parse_config
from finepref.train.log import Tally
from finepref.train.method import make_method
from finepref.train.optim import learning_rate
from finepref.train.placement import stratify
from finepref.train.processes import World
from finepref.train.step import pair_loss
from finepref.train.train_section import TrainSection


def test_every_epoch_is_a_permutation() -> None:
    """10 rows, 4 a step: five steps are two epochs, each row once per epoch and visit = epoch."""
    seen = [draw for step in range(5) for draw in pair_order(3, count=10, step=step, per_step=4)]
    for epoch in (0, 1):
        part = seen[10 * epoch : 10 * epoch + 10]
        assert sorted(draw.index for draw in part) == list(range(10))
        assert {draw.visit for draw in part} == {epoch}
    assert [d.index for d in seen[:10]] != [d.index for d in seen[10:]]


def test_image_order_follows_the_ratio() -> None:
    """0.8 of the draws are desirable, within four binomial standard deviations; ratio 0 and 1 are exact."""
    desirable = np.array([True] * 5 + [False] * 50)
    drawn = image_order(1, desirable=desirable, ratio=0.8, step=0, per_step=4000)
    share = np.mean([desirable[d.index] for d in drawn])
    assert abs(share - 0.8) < 4 * math.sqrt(0.16 / 4000)
    for ratio in (0.0, 1.0):
        drawn = image_order(1, desirable=desirable, ratio=ratio, step=0, per_step=100)
        assert {bool(desirable[d.index]) for d in drawn} == {bool(ratio)}


def test_times_and_noise_do_not_depend_on_the_batch() -> None:
    ids, visits = ["a", "b", "c"], [0, 1, 0]
    whole = rng.normals(5, "noise", ids, visits, (2, 3))
    alone = torch.cat([rng.normals(5, "noise", [i], [v], (2, 3)) for i, v in zip(ids, visits, strict=True)])
    assert torch.equal(whole, alone)
    assert not torch.equal(whole[0], rng.normals(5, "noise", ["a"], [1], (2, 3))[0])


def test_levels_cover_their_range() -> None:
    """u = 0 is the lowest level and u -> 1 the highest; with lowest 1, level 0 never comes."""
    path = scaled_linear()
    u = np.array([0.0, 0.5, 1 - 1e-12])
    assert path.draw_t(torch.from_numpy(u), lowest=0).tolist() == [0, 500, 999]
    assert path.draw_t(torch.from_numpy(u), lowest=1).tolist() == [1, 500, 999]
    flow = FLOW.draw_t(torch.from_numpy(u), lowest=0)
    assert flow[1].item() == pytest.approx(0.5)
    assert 0 < flow[0] < flow[2] < 1


def test_strata_put_one_draw_into_each_range() -> None:
    """Eight positions of two ranks: one value in each eighth."""
    u = rng.uniforms(0, "t", [str(i) for i in range(8)], [0] * 8)
    parts = [
        stratify(u[positions], seed=0, step=2, per_step=8, positions=positions)
        for positions in ([0, 2, 4, 6], [1, 3, 5, 7])
    ]
    assert sorted((np.concatenate(parts) * 8).astype(int).tolist()) == list(range(8))


def test_ranks_get_equal_levels() -> None:
    """Strata dealt to 8 processes: their mean levels differ by less than one stratum in a hundred; not so without."""
    u = np.random.default_rng(0).random(1024)
    strata = stratify(u, seed=3, step=1, per_step=1024, positions=range(1024))
    assert sorted((strata * 1024).astype(int).tolist()) == list(range(1024))

    def spread(levels: np.ndarray) -> float:
        means = [levels[rank::8].mean() for rank in range(8)]
        return max(means) / np.mean(means) - 1

    assert spread(strata) < 0.01
    assert spread(u) > 0.02
    ragged = stratify(np.zeros(100), seed=3, step=1, per_step=100, positions=range(100))
    assert sorted((ragged * 100).round().astype(int).tolist()) == list(range(100))


def test_learning_rates_by_hand() -> None:
    """Warm-up 2 of 10 steps at base 1: 0, 0.5, 1, or 0.5, 1, then the scheduler's own course."""

    def rates(name: str, **more: object) -> list[float]:
        options = TrainSection(learning_rate=1.0, lr_scheduler=name, lr_warmup_steps=2, max_steps=10, **more)
        return [learning_rate(options, step) for step in range(10)]

    assert rates("constant") == [1.0] * 10
    assert rates("constant_with_warmup") == [0.0, 0.5] + [1.0] * 8
    assert rates("constant_with_warmup", lr_warmup_from_zero=False) == [0.5] + [1.0] * 9
    assert rates("linear")[2:5] == pytest.approx([1.0, 0.875, 0.75])
    assert rates("cosine")[6] == pytest.approx(0.5)
    assert rates("constant", scale_lr=True, pairs_per_step=2048)[0] == 2048.0


@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 7, 30])
def test_learning_rates_are_those_of_the_official_scheduler(name: str, warmup: int) -> None:
    """Every step of a run, against torch's LambdaLR as diffusers' get_scheduler makes it for the official scripts."""
    from diffusers.optimization import get_scheduler

    options = TrainSection(learning_rate=3e-4, lr_scheduler=name, lr_warmup_steps=warmup, max_steps=30)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=30)
    for step in range(30):
        assert learning_rate(options, step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-20)
        optimizer.step()
        scheduler.step()


def test_zero_is_a_value() -> None:
    """No numeric option is mistaken for missing when it is 0."""
    config = parse_config(
        {
            "model": {"base": "lab"},
            "data": {"prompt_dropout": 0},
            "signal": {"margin_scale": 0},
            "train": {"learning_rate": 0, "lr_warmup_steps": 0, "checkpoint_every": 0, "seed": 0, "ema_decay": 0},
            "validation": {"every": 0, "guidance": 0},
        }
    )
    assert (config.data.prompt_dropout, config.signal.margin_scale, config.train.ema_decay) == (0, 0, 0)
    assert learning_rate(config.train, 0) == 0


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "model is missing"),
        ({"model": {"base": "lab"}, "trian": {}}, "unknown key 'trian'; did you mean 'train'"),
        ({"model": {"base": "lab"}, "train": {"max_steps": 0}}, "train.max_steps = 0 is not possible"),
        ({"model": {"base": "lab"}, "train": {"optimizer": "sgd"}}, "train.optimizer = 'sgd' is not possible"),
        ({"model": {"base": "lab"}, "lora": {"rang": 4}}, "unknown key 'lora.rang'; did you mean 'rank'"),
    ],
)
def test_config_errors_name_key_and_remedy(data: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_config(data)


def test_overrides(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text("model: {base: lab}\n")
    config = load_config(tmp_path / "run.yaml", ["train.learning_rate=1e-5", "lora.rank=4", "objective.beta=0.5"])
    assert (config.train.learning_rate, config.lora.rank, config.objective.options()) == (1e-5, 4, {"beta": 0.5})
    for override in ("train.learning_rate", "model.base.x=1"):
        with pytest.raises(ConfigError):
            load_config(tmp_path / "run.yaml", [override])
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "other.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="not a mapping"):
        load_config(tmp_path / "list.yaml")


def test_tally_means_and_buckets() -> None:
    """Three pairs in two of three buckets, by hand."""
    world = World(rank=0, size=1, device=torch.device("cpu"))
    tally = Tally(buckets=3, highest=3.0, device=world.device)
    half = {"x": torch.tensor([10.0, 30.0])}
    first = ObjectiveOutput(loss=torch.tensor([1.0, 2.0]), stats=half, applies={"x": torch.tensor([0.0, 1.0])})
    second = ObjectiveOutput(
        loss=torch.tensor([6.0]), stats={"x": torch.tensor([20.0])}, applies={"x": torch.tensor([1.0])}
    )
    tally.add(first, torch.tensor([0, 2]))
    tally.add(second, torch.tensor([2]))
    means, by_t, calls = tally.finish(world, {"policy": 6, "inversion": 0})
    assert calls == {"policy": 6, "inversion": 0}
    assert means == {"x": 25.0, "loss": 3.0}, "a mean over the rows to which the statistic applies"
    assert math.isnan(by_t[0].means["x"])
    assert [bucket.pairs for bucket in by_t] == [1, 0, 2]
    assert by_t[2].means["loss"] == 4.0
    assert math.isnan(by_t[1].means["loss"])
    record = StepMetrics(step=1, means=means, pairs=3, by_t=by_t, grad_norm=1.0, lr=0.1)
    assert record.numbers()["x/t2"] == 25.0


def test_a_wrong_value_of_a_choice_names_its_key() -> None:
    """Not the member of a union, and every way in which it could be right."""
    data = {"model": {"base": "lab"}, "train": {"gradient_checkpointing": "selectiv"}}
    with pytest.raises(ConfigError) as error:
        parse_config(data)
    assert "train.gradient_checkpointing = 'selectiv' is not possible" in str(error.value)
    assert "'selective'" in str(error.value)
    with pytest.raises(ConfigError, match=r"train\.adam_beta1 = 1\.0 is not possible"):
        parse_config({"model": {"base": "lab"}, "train": {"adam_beta1": 1.0}})
    with pytest.raises(ConfigError, match=r"lora\.rank = 0 is not possible"):
        parse_config({"model": {"base": "lab"}, "lora": {"rank": 0}})


def test_a_full_disk_and_a_full_gpu_are_one_sentence() -> None:
    from finepref.cli.main import _exhausted

    assert "--resume" in str(_exhausted(OSError(28, "No space left on device")))
    assert "micro_batch" in str(_exhausted(torch.OutOfMemoryError("CUDA out of memory")))
    assert _exhausted(RuntimeError("a fault of ours")) is None


def test_a_step_gives_each_side_its_own_condition() -> None:
    """Networks that say nothing but the condition: the errors are those of winner and loser, policy and reference."""
    zero = torch.zeros(2, 1, 4, 4)

    def says(factor: float):
        return lambda x, t, cond: (factor * cond["side"]).view(-1, 1, 1, 1).expand_as(x)

    batch = PairBatch(
        pair_id=("a", "b"), visit=(0, 0), x0_w=zero, x0_l=zero,
        cond_w={"side": torch.tensor([1.0, 2.0])}, cond_l={"side": torch.tensor([3.0, 4.0])},
        signal=PairSignal(margin=torch.zeros(2), weight=torch.ones(2)),
    )  # fmt: skip
    placed = Placed(xt_w=zero, xt_l=zero, t=torch.tensor([5, 6]), target_w=zero, target_l=zero)
    adapter = SimpleNamespace(path=scaled_linear(), policy=says(1.0), reference=says(2.0), drawn=None)
    method = make_method(parse_config({"model": {"base": "lab"}, "objective": {"name": "dpo", "beta": 1}}))
    calls = {"policy": 0, "reference": 0}
    out, t = pair_loss(batch, adapter=adapter, method=method, seed=0, calls=calls, placed=placed)
    assert t.tolist() == [5, 6]
    assert calls == {"policy": 4, "reference": 4}
    assert out.stats["L_w"].tolist() == [1.0, 4.0]
    assert out.stats["L_l"].tolist() == [9.0, 16.0]
    assert out.stats["A_w"].tolist() == [3.0, 12.0]
