"""Draws, learning rates, config, tallies, reference cache."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from finepref.core.batches import ObjectiveOutput
from finepref.core.errors import ConfigError, InputError
from finepref.diffusion.path import FLOW, scaled_linear
from finepref.train import draws
from finepref.train.config import TrainSection, load_config, parse_config
from finepref.train.log import Tally, append, cut_after, read_lines, tracked
from finepref.train.optim import learning_rate
from finepref.train.processes import World
from finepref.train.reference import load_reference, save_reference
from finepref.train.step import both


def test_every_epoch_is_a_permutation() -> None:
    """10 rows, 4 a step: five steps are two epochs, each row once per epoch and visit = epoch."""
    seen = [draw for step in range(5) for draw in draws.pair_order(3, count=10, step=step, per_step=4)]
    for epoch in (0, 1):
        part = seen[10 * epoch : 10 * epoch + 10]
        assert sorted(draw.index for draw in part) == list(range(10))
        assert {draw.visit for draw in part} == {epoch}
    assert [d.index for d in seen[:10]] != [d.index for d in seen[10:]]


def test_processes_share_a_step_without_overlap() -> None:
    order = draws.pair_order(0, count=50, step=0, per_step=11)
    parts = [draws.share(order, rank=rank, world=3) for rank in range(3)]
    assert sorted(p for part in parts for p in part) == list(range(11))


def test_image_order_follows_the_ratio() -> None:
    """0.8 of the draws are desirable, within four binomial standard deviations; ratio 0 and 1 are exact."""
    desirable = np.array([True] * 5 + [False] * 50)
    drawn = draws.image_order(1, desirable=desirable, ratio=0.8, step=0, per_step=4000)
    share = np.mean([desirable[d.index] for d in drawn])
    assert abs(share - 0.8) < 4 * math.sqrt(0.16 / 4000)
    for ratio in (0.0, 1.0):
        drawn = draws.image_order(1, desirable=desirable, ratio=ratio, step=0, per_step=100)
        assert {bool(desirable[d.index]) for d in drawn} == {bool(ratio)}


def test_times_and_noise_do_not_depend_on_the_batch() -> None:
    ids, visits = ["a", "b", "c"], [0, 1, 0]
    whole = draws.normals(5, "noise", ids, visits, (2, 3))
    alone = torch.cat([draws.normals(5, "noise", [i], [v], (2, 3)) for i, v in zip(ids, visits, strict=True)])
    assert torch.equal(whole, alone)
    assert not torch.equal(whole[0], draws.normals(5, "noise", ["a"], [1], (2, 3))[0])


def test_levels_cover_their_range() -> None:
    """u = 0 is the lowest level and u -> 1 the highest; with lowest 1, level 0 never comes."""
    path = scaled_linear()
    u = np.array([0.0, 0.5, 1 - 1e-12])
    assert draws.times(path, u, lowest=0).tolist() == [0, 500, 999]
    assert draws.times(path, u, lowest=1).tolist() == [1, 500, 999]
    flow = draws.times(FLOW, u, lowest=0)
    assert flow[1].item() == pytest.approx(0.5)
    assert 0 < flow[0] < flow[2] < 1


def test_strata_put_one_draw_into_each_range() -> None:
    """Eight positions of two ranks: one value in each eighth."""
    u = draws.uniforms(0, "t", [str(i) for i in range(8)], [0] * 8)
    parts = [
        draws.strata(0, step=2, per_step=8, positions=positions, u=u[positions])
        for positions in ([0, 2, 4, 6], [1, 3, 5, 7])
    ]
    assert sorted((np.concatenate(parts) * 8).astype(int).tolist()) == list(range(8))


def test_ranks_get_equal_levels() -> None:
    """Strata dealt to 8 processes: their mean levels differ by less than one stratum in a hundred; not so without."""
    u = np.random.default_rng(0).random(1024)
    strata = draws.strata(3, step=1, per_step=1024, positions=range(1024), u=u)
    assert sorted((strata * 1024).astype(int).tolist()) == list(range(1024))

    def spread(levels: np.ndarray) -> float:
        means = [levels[draws.share(list(range(1024)), rank=rank, world=8)].mean() for rank in range(8)]
        return max(means) / np.mean(means) - 1

    assert spread(strata) < 0.01
    assert spread(u) > 0.02
    ragged = draws.strata(3, step=1, per_step=100, positions=range(100), u=np.zeros(100))
    assert sorted((ragged * 100).round().astype(int).tolist()) == list(range(100))


def test_learning_rates_by_hand() -> None:
    """Warm-up 2 of 10 steps at base 1: 0.5, 1, then the scheduler's own course."""

    def rates(name: str, **more: object) -> list[float]:
        options = TrainSection(learning_rate=1.0, lr_scheduler=name, lr_warmup_steps=2, max_steps=10, **more)
        return [learning_rate(options, step) for step in range(10)]

    assert rates("constant") == [1.0] * 10
    assert rates("constant_with_warmup") == [0.5] + [1.0] * 9
    assert rates("linear")[2:5] == pytest.approx([1.0, 0.875, 0.75])
    assert rates("cosine")[6] == pytest.approx(0.5)
    assert rates("constant", scale_lr=True, pairs_per_step=2048)[0] == 2048.0


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
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "other.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="not a mapping"):
        load_config(tmp_path / "list.yaml")


def test_tally_means_and_buckets() -> None:
    """Three pairs in two of three buckets, by hand."""
    world = World(rank=0, size=1, device=torch.device("cpu"))
    tally = Tally(buckets=3, device=world.device)
    half = {"x": torch.tensor([10.0, 30.0])}
    first = ObjectiveOutput(loss=torch.tensor([1.0, 2.0]), stats=half, applies={"x": torch.tensor([0.0, 1.0])})
    second = ObjectiveOutput(
        loss=torch.tensor([6.0]), stats={"x": torch.tensor([20.0])}, applies={"x": torch.tensor([1.0])}
    )
    tally.add(first, torch.tensor([0, 2]))
    tally.add(second, torch.tensor([2]))
    record, calls = tally.finish(world, {"policy": 6, "inversion": 0})
    assert calls == {"policy": 6, "inversion": 0}
    assert record["x"] == 25.0, "a mean over the rows to which the statistic applies"
    assert math.isnan(record["by_t"][0]["x"])
    assert tracked(record | {"skipped_pairs": ["a"]})["x/t2"] == 25.0
    assert (record["loss"], record["pairs"]) == (3.0, 3)
    assert [bucket["pairs"] for bucket in record["by_t"]] == [1, 0, 2]
    assert record["by_t"][2]["loss"] == 4.0
    assert math.isnan(record["by_t"][1]["loss"])


def test_log_lines_are_cut_after_a_step(tmp_path) -> None:
    """Lines beyond the checkpoint go, and a line that was cut short by a kill."""
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        append(path, {"step": step, "loss": math.nan})
    with path.open("a") as handle:
        handle.write('{"step": 4, "lo')
    cut_after(path, 2)
    assert read_lines(path) == [{"step": 1, "loss": None}, {"step": 2, "loss": None}]


def test_reference_cache_refuses_other_runs_and_unknown_draws(tmp_path) -> None:
    values = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    values[1, 1] = np.nan
    save_reference(tmp_path / "ref", values, identity="a", pair_id=["p", "q"], about={"device_seconds": 0.0})
    with pytest.raises(InputError, match="filled for another"):
        load_reference(tmp_path / "ref", identity="b", draws=2)
    with pytest.raises(InputError, match="it holds 1 of 2 draws of visit 1"):
        load_reference(tmp_path / "ref", identity="a", draws=4)
    cache = load_reference(tmp_path / "ref", identity="a", draws=3)
    assert cache.errors(["q", "p"], [0, 1]).tolist() == [[2.0, 3.0], [4.0, 5.0]]
    for pair, visit in (("q", 1), ("r", 0), ("p", 2)):
        with pytest.raises(InputError, match="is not in it"):
            cache.errors([pair], [visit])


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


def test_conditions_of_a_pair_are_one_batch() -> None:
    """Winners first, then losers, as their latents are."""
    w, l = ({"sizes": torch.full((2, 3), side), "prompt": torch.full((2, 1), side)} for side in (1.0, 2.0))  # noqa: E741
    joint = both(w, l)
    assert joint["sizes"][:, 0].tolist() == joint["prompt"][:, 0].tolist() == [1.0, 1.0, 2.0, 2.0]
