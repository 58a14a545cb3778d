"""Held-out pairs: which they are, what is said of them by another way of computing it, resumed, and in processes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import own_pairs
from finepref.core import rng
from finepref.core.errors import ConfigError, InputError
from finepref.data.latents import LatentCache
from finepref.formats.cachetables import Pairs
from finepref.formats.heldout import HeldOutMetrics, read_agreement, read_heldout, read_start
from finepref.formats.metrics import HELDOUT
from finepref.models.load import load_adapter
from finepref.train.batches import Draw, Drawing, PairSource
from finepref.train.callbacks import Callback, Progress
from finepref.train.config import load_config
from finepref.train.run import train_run
from finepref.train.unseen import held_out_ids, hold_out, voters_agree
from torchrun import FINEPREF, launched

HELD = ("data.validation_share=0.4", "validation.every=2", "validation.draws=4")
STEPS = ("train.max_steps=4", "train.lr_scheduler=constant", "train.learning_rate=1e-3", "train.checkpoints_keep=9")
KINDS = {
    "full": (),
    "lora": ("lora={rank: 4, dropout: 0.3}",),
    "sft": ("objective={name: sft}", "signal.file=null"),
    "average": ("train.ema_decay=0.5",),
    "window": ("train.levels={low: 0.3, high: 0.7}",),
}


def train(world: Path, out: Path, *words: str, **how: Any) -> Path:
    return train_run(load_config(world / "run.yaml", [*STEPS, *HELD, *words]), out, **how)


def by_hand(world: Path, run: Path, step: int, words: tuple[str, ...]) -> np.ndarray:
    """A_w and A_l [P,D,2] of a checkpoint: every image alone, noised and predicted here."""
    config = load_config(world / "run.yaml", [*STEPS, *HELD, *words])
    cache = LatentCache(config.cache.folder)
    held = hold_out(config, cache)
    assert held is not None
    policy = load_adapter(config.model.base, init_from=f"{run}@{step}", reference=False)
    start = load_adapter(config.model.base, reference=False)
    drawing = Drawing(cache=cache, adapter=policy, prompt_dropout=0.0, flip=False, seed=0)
    source = PairSource(drawing=drawing, table=held.table, guidance=False)
    found = []
    for row, pair in enumerate(held.table.pair_id):
        for visit in range(4):
            u = (visit + rng.uniform(0, "t", pair, visit)) / 4
            if not config.train.levels.whole:
                u = 0.3 + 0.4 * u
            t = policy.path.draw_t(torch.tensor([u]))
            batch = source.batch([Draw(row, visit)])
            errors = []
            for network in (policy, start):
                noise = rng.normals(0, "noise", [pair], [visit], batch.x0_w.shape[1:])
                sides = []
                for x0, cond in ((batch.x0_w, batch.cond_w), (batch.x0_l, batch.cond_l)):
                    with torch.no_grad():
                        said = network.policy(network.path.add_noise(x0, noise, t), t, cond)
                    sides.append((said - network.path.target(x0, noise, t)).square().mean().item())
                errors.append(sides)
            (of_w, of_l), (start_w, start_l) = errors
            found.append([start_w - of_w, start_l - of_l])
    return np.array(found).reshape(-1, 4, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_says_is_what_the_networks_do(world: Path, tmp_path: Path, kind: str) -> None:
    """The start is one half with no gain; a step's line is that of its checkpoint, each side computed alone."""
    words = KINDS[kind]
    run = train(world, tmp_path / "run", *words)
    lines = read_heldout(run)
    assert [line.step for line in lines] == [0, 2, 4]
    first, last = lines[0], lines[-1]
    assert (first.accuracy.value, first.lead.value, first.gain_w.value, first.length) == (0.5, 0.0, 0.0, 1.0)
    assert first.fit is None if kind == "sft" else first.fit == pytest.approx(math.log(2), abs=1e-12)
    for line in lines[1:]:
        gains = by_hand(world, run, line.step, words)
        lead = gains[..., 0] - gains[..., 1]
        assert line.gain_w.value == pytest.approx(gains[..., 0].mean(), rel=2e-3, abs=2e-6)
        assert line.gain_l.value == pytest.approx(gains[..., 1].mean(), rel=2e-3, abs=2e-6)
        assert line.gain_far == pytest.approx(gains[:, 2:, 0].mean(), rel=2e-3, abs=2e-6)
        assert line.lead.value == pytest.approx(lead.mean(), rel=2e-3, abs=2e-6)
        assert line.pairs == len(lead)
        sure = np.abs(lead.mean(1)) > 1e-5
        assert abs(line.accuracy.value - (lead.mean(1) > 0).mean()) <= 1 - sure.mean()
    assert last.lead.value != 0.0
    assert last.lead.low <= last.lead.value <= last.lead.high


def test_pairs_are_held_out_by_prompt(world: Path, tmp_path: Path) -> None:
    """No held-out prompt is trained on; which they are does not depend on the order or on what else there is."""
    run = train(world, tmp_path / "run")
    config = load_config(world / "run.yaml", [*STEPS, *HELD])
    pairs = LatentCache(config.cache.folder).pairs
    held = held_out_ids(config, pairs)
    prompts = {pairs[each].prompt for each in held}
    assert held == {each for each, pair in pairs.items() if pair.prompt in prompts}
    assert 0 < len(held) < len(pairs)
    record = json.loads((run / "run.json").read_text())
    decided = sum(line.pairs for line in read_heldout(run)[:1])
    assert record["signals"]["pairs"] + decided <= len(pairs)
    ids = list(pairs)
    turned = Pairs(ids[::-1], *(list(column) for column in zip(*(pairs[each] for each in ids[::-1]), strict=True)))
    assert held_out_ids(config, turned) == held


def test_resumed_and_in_other_batches(world: Path, tmp_path: Path) -> None:
    """A resumed run writes the same bytes; another batch size the same numbers to 1e-6."""
    run = train(world, tmp_path / "run", "train.checkpoint_every=1")
    half = train(world, tmp_path / "half", "train.max_steps=3", "train.checkpoint_every=1")
    train(world, half, "train.checkpoint_every=1", resume=True)
    lines, again = ((each / HELDOUT).read_text().splitlines() for each in (run, half))
    assert [line for line in again if json.loads(line)["step"] != 3] == lines
    small = train(world, tmp_path / "small", "train.place_batch=1", "train.micro_batch=1")
    for one, other in zip(read_heldout(run), read_heldout(small), strict=True):
        assert other.lead.value == pytest.approx(one.lead.value, abs=1e-6)


@pytest.mark.slow
def test_two_processes_say_the_same(world: Path, tmp_path: Path) -> None:
    config = load_config(world / "run.yaml", [*STEPS, *HELD, "train.micro_batch=2"])
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    launched(*FINEPREF, "train", "-c", tmp_path / "run.yaml", "--out", tmp_path / "two")
    one = train(world, tmp_path / "one", "train.micro_batch=2")
    for ours, theirs in zip(read_heldout(tmp_path / "two"), read_heldout(one), strict=True):
        assert ours.lead.value == pytest.approx(theirs.lead.value, abs=1e-6)
        assert ours.step == theirs.step


def test_files_of_held_out_pairs(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`validation.pairs`: looked at and not trained on, also where the data holds the same two pictures."""
    own_pairs.make_folder(tmp_path / "more", pairs=3)
    words = ("data.validation_share=0", f"validation.pairs=[{tmp_path / 'more'}]", f"cache.folder={tmp_path / 'cache'}")
    run = train(world, tmp_path / "run", *words)
    assert read_heldout(run)[0].pairs == 6  # three of the files, and the same three of the data
    assert json.loads((run / "run.json").read_text())["signals"]["pairs"] == 9
    with pytest.raises(ConfigError, match=r"validation\.pairs says which pairs"):
        train(world, tmp_path / "both", *words, "data.validation_share=0.2")
    capsys.readouterr()


def test_a_callback_is_told(world: Path, tmp_path: Path) -> None:
    told: list[tuple[int, HeldOutMetrics]] = []

    class Listens(Callback):
        def on_heldout(self, state: Progress, metrics: HeldOutMetrics) -> None:
            told.append((state.step, metrics))

    run = train(world, tmp_path / "run", callbacks=[Listens()])
    assert [step for step, _ in told] == [0, 2, 4]
    assert tuple(metrics for _, metrics in told) == read_heldout(run)


def test_how_far_voters_agree() -> None:
    """By hand: A over B twice and B over A once agree in one of three pairs of votes; sides do not matter."""
    pairs = Pairs(
        ["1", "2", "3", "4", "5"], ["p"] * 5, ["a", "b", "a", "a", "c"], ["b", "a", "b", "c", "d"], ["8x8"] * 5
    )
    found = voters_agree(pairs, ["1", "2", "3", "4", "5"], np.array([1.0, 0.0, 0.0, 1.0, 0.5]))
    assert (found.pairs, found.share) == (1, pytest.approx(1 / 3))
    assert found.ceiling == 0.5
    alone = voters_agree(pairs, ["4"], np.array([1.0]))
    assert alone.pairs == 0
    assert math.isnan(alone.share)


def test_what_cannot_be_held_out(world: Path, tmp_path: Path) -> None:
    config = load_config(world / "run.yaml", list(HELD))
    with pytest.raises(ConfigError, match="all pairs have one prompt"):
        held_out_ids(config, Pairs(["1", "2"], ["p", "p"], ["a", "b"], ["c", "d"], ["8x8"] * 2))
    run = train(world, tmp_path / "run")
    assert math.isnan(read_agreement(run).share) or read_agreement(run).share >= 0
    with pytest.raises(InputError, match="of other held-out pairs"):
        read_start(run, ["nobody"], 4)
