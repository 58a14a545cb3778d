"""Early stopping: when a run ends, which step it leaves, and that a killed run decides as one that was not killed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from finepref.core.errors import ConfigError, InputError
from finepref.core.interval import Interval
from finepref.formats.heldout import HeldOutMetrics, read_heldout
from finepref.formats.metrics import HELDOUT
from finepref.formats.run import read_run
from finepref.train import stopping
from finepref.train.callbacks import Callback, Progress
from finepref.train.checkpoint import checkpoints
from finepref.train.config import load_config
from finepref.train.run import train_run
from finepref.train.stop_options import StopOptions

WORDS = ("data.validation_share=0.4", "validation.every=2", "validation.draws=2", "train.stop={patience: 2}")
WORDS += ("train.max_steps=12", "train.lr_scheduler=constant", "train.learning_rate=1e-3", "train.checkpoint_every=0")
WORDS += ("train.checkpoints_keep=1",)
KINDS = {"full": (), "lora": ("lora={rank: 4}",), "average": ("train.ema_decay=0.5",)}


def train(world: Path, out: Path, *words: str, **how: Any) -> Path:
    return train_run(load_config(world / "run.yaml", [*WORDS, *words]), out, **how)


def like(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let looks up to a step be sound, and held-out pairs speak for the run."""
    patch.setattr(stopping, "sound", lambda lines, far: [line for line in lines if line.step <= step])
    patch.setattr(stopping, "speaks", lambda lines: True)


def left(run: Path, kind: str) -> dict[str, torch.Tensor]:
    return load_file(
        run / ("pytorch_lora_weights.safetensors" if kind == "lora" else "unet/diffusion_pytorch_model.safetensors")
    )


def line(step: int, lead: float, gain: float = 0.0) -> HeldOutMetrics:
    some = Interval(lead, 0.0, 1.0)
    return HeldOutMetrics(
        step=step, pairs=4, prompts=2, accuracy=some, lead=some, gain_w=some, gain_l=some, gain_far=gain, fit=None,
        length=1.0, by_t=(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("best", [0, 4])
def test_it_leaves_the_best_step(world: Path, tmp_path: Path, monkeypatch, kind: str, best: int) -> None:
    """It ends two looks after the best one, and leaves the weights of that step, or of the start, bit for bit."""
    like(monkeypatch, best)
    run = train(world, tmp_path / "run", *KINDS[kind])
    record = read_run(run)
    assert (record.steps, record.kept) == (best + 4, best)
    assert [each.step for each in read_heldout(run)] == list(range(0, best + 5, 2))
    if best:
        whole = train(world, tmp_path / "short", *KINDS[kind], "train.stop=null", f"train.max_steps={best}")
    else:
        whole = train(
            world, tmp_path / "short", *KINDS[kind], "train.stop=null", "train.max_steps=1", "train.learning_rate=0"
        )
    wanted, found = left(whole, kind), left(run, kind)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    steps = [int(folder.name[5:]) for folder in checkpoints(run)]
    assert steps == ([best] if best else []) + [best + 4]


def test_a_second_call_is_done(world: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that ended early is finished, with and without resume; another patience is another run."""
    like(monkeypatch, 2)
    run = train(world, tmp_path / "run")
    for how in ({}, {"resume": True}, {"resume": "auto"}):
        train(world, run, **how)
        assert "finished already" in capsys.readouterr().err
    with pytest.raises(InputError, match="another config"):
        train(world, run, "train.stop={patience: 3}")


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 6, 7])
def test_interrupted_it_decides_the_same(world: Path, tmp_path: Path, monkeypatch, stop: int) -> None:
    """Stopped after any step and resumed: the same lines, the same end, the same weights."""
    like(monkeypatch, 4)
    run = train(world, tmp_path / "run")

    class Stops(Callback):
        def on_step(self, state: Progress, metrics: object) -> bool:
            return state.step == stop

    part = train(world, tmp_path / "part", callbacks=[Stops()])
    assert not (part / "run.json").exists()
    train(world, part, resume=True)
    wanted, found = left(run, "full"), left(part, "full")
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert read_run(part).kept == 4
    own = [text for text in (part / HELDOUT).read_text().splitlines() if text in (run / HELDOUT).read_text()]
    assert own == (run / HELDOUT).read_text().splitlines()


def test_what_it_goes_by(world: Path, tmp_path: Path) -> None:
    """Without held-out pairs, or with no look at them, it is refused."""
    for words in (("data.validation_share=0",), ("validation.every=0",)):
        with pytest.raises(ConfigError, match="it goes by held-out pairs"):
            train(world, tmp_path / "run", *words)


def told(*looks: tuple[int, float, float], error: float = 0.1, pairs: int = 50) -> list[HeldOutMetrics]:
    """Looks: step, lead and what winners lost at high noise in units of the start's error there."""
    return [
        replace(
            line(step, lead, -lost * FAR), lead=Interval(lead, lead - 1.96 * error, lead + 1.96 * error), prompts=pairs
        )
        for step, lead, lost in looks
    ]  # fmt: skip


FAR = 0.02


def steps(lines: list[HeldOutMetrics]) -> list[int]:
    return [each.step for each in lines]


def test_what_is_sound() -> None:
    """Winners kept most of what they had at high noise, and the lead is the best one's within a standard error."""
    start = (0, 0.0, 0.0)
    assert steps(stopping.sound(told(start, (2, 0.5, 0.2), (4, 0.45, 1.4), (6, 0.9, 1.6)), FAR)) == [0, 2, 4]
    assert steps(stopping.sound(told(start, (2, 0.5, 0.2), (4, 0.39, 0.2), (6, 0.41, 0.2)), FAR)) == [0, 2, 6]
    assert steps(stopping.sound(told(start, (2, 0.5, 9.0)), FAR)) == [0]
    begun = replace(told(start)[0], lead=Interval(0.0, 0.0, 0.0))  # as the start's lead is known to be
    assert steps(stopping.sound([begun, *told((2, -0.09, 0.1), (4, -0.11, 0.1))], FAR)) == [0, 2]
    assert steps(stopping.sound(told(start, (2, math.nan, 0.1)), FAR)) == [0]
    gone = replace(told((2, 0.5, 0.1))[0], lead=Interval(0.5, math.nan, math.nan))  # of one prompt
    assert steps(stopping.sound([*told(start), gone], FAR)) == [0, 2]


def test_what_is_kept() -> None:
    """The last sound look; the start where held-out pairs do not speak for the run: 2.4 standard errors, 50 prompts."""
    lines = told((0, 0.0, 0.0), (2, 0.5, 0.2), (4, 0.45, 1.4), (6, 0.9, 1.6))
    assert stopping.kept_of(lines, FAR) == lines[2]
    assert stopping.kept_of(told((0, 0.0, 0.0), (2, 0.23, 0.1), (4, 0.24, 0.1)), FAR).step == 0
    assert stopping.kept_of(told((0, 0.0, 0.0), (2, 0.24, 0.1), (4, 0.25, 0.1)), FAR).step == 4
    assert stopping.kept_of(lines[:1], FAR) == lines[0]
    assert stopping.kept_of([], FAR) is None


def test_when_it_ends() -> None:
    """When so many looks in a row are not sound; a sound one begins the count anew."""
    harmed = told((0, 0.0, 0.0), (2, 0.5, 0.1), (4, 0.5, 2.0), (6, 0.5, 2.0))
    assert stopping.ends(harmed, FAR, StopOptions(patience=2))
    assert not stopping.ends(harmed, FAR, StopOptions(patience=3))
    assert not stopping.ends([*harmed[:3], *told((6, 0.5, 0.1))], FAR, StopOptions(patience=1))
    assert not stopping.ends(harmed[:1], FAR, StopOptions(patience=1))


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 3)), min_size=1, max_size=12), st.integers(1, 12)
)  # fmt: skip
def test_the_last_sound_step_never_goes_back(looks: list[tuple[float, float]], cut: int) -> None:
    """What a checkpoint was kept for is still the last sound one, or a later one is: no look makes it earlier."""
    lines = told((0, 0.0, 0.0), *((2 * n + 2, lead, lost) for n, (lead, lost) in enumerate(looks)))
    assert stopping.sound(lines[:cut], FAR)[-1].step <= stopping.sound(lines, FAR)[-1].step


def test_a_run_of_another_rule(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version before kept checkpoints by another rule: what it finished is finished, what it began goes on."""
    with monkeypatch.context() as patch:
        like(patch, 2)
        run = train(world, tmp_path / "run")
    assert read_run(run).steps == 6
    train(world, run, resume="auto")  # the rule of now would not have ended it there
    assert read_run(run).steps == 6

    class Stops(Callback):
        def on_step(self, state: Progress, metrics: object) -> bool:
            return state.step == 5

    with monkeypatch.context() as patch:
        like(patch, 0)  # no checkpoint of step 2 or 4 is kept
        part = train(world, tmp_path / "part", "train.stop={patience: 9}", callbacks=[Stops()])
    like(monkeypatch, 4)
    train(world, part, "train.stop={patience: 9}", resume=True)
    assert read_run(part).kept == 0


def test_pairs_of_one_prompt_do_not_speak() -> None:
    """Nothing is known of a spread over prompts, so nothing but the start is left."""
    lines = told((0, 0.0, 0.0), (2, 0.5, 0.2), (4, 0.6, 0.2), pairs=1)
    alone = [replace(each, lead=Interval(each.lead.value, math.nan, math.nan)) for each in lines]
    assert stopping.kept_of(alone, FAR) == alone[0]


def test_all_looks_speak(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the start is left goes by every look, also by those whose checkpoints are gone."""
    seen: list[list[int]] = []
    like(monkeypatch, 99)
    monkeypatch.setattr(stopping, "speaks", lambda lines: seen.append(steps(lines)) or True)
    run = train(world, tmp_path / "run")
    assert len(checkpoints(run)) < 3
    assert seen[-1] == [0, 2, 4, 6, 8, 10, 12]
