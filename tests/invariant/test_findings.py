"""Whether a run learned, as its user reads it: on the command line, in the report, from the files of the run."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import finepref
import own_pairs
from finepref.core.errors import InputError
from finepref.data.latents import LatentCache
from finepref.formats.heldout import looks_of, read_heldout, read_signal_share, read_start, start_far
from finepref.formats.metrics import HELDOUT
from finepref.formats.run import read_run
from finepref.formats.signals import from_columns, write_signals
from finepref.report.page import report
from finepref.train import look, stopping
from finepref.train.config import load_config
from finepref.train.diagnose import diagnose
from finepref.train.run import train_run
from finepref.train.unseen import held_out_ids

HELD = ("data.validation_share=0.4", "validation.every=1", "validation.draws=4", "train.max_steps=2")


def train(world: Path, out: Path, *words: str) -> Path:
    return train_run(load_config(world / "run.yaml", [*HELD, *words]), out)


def signals(path: Path, *words: str, wrong: int, world: Path) -> tuple[Path, int]:
    """A signal that says of the first `wrong` training pairs what people did not; and how many pairs are trained on.

    The chosen picture of a pair of the world is its first one.
    """
    config = load_config(world / "run.yaml", [*HELD, *words])
    pairs = LatentCache(str(config.cache.folder)).pairs
    trained = [each for each in pairs if each not in held_out_ids(config, pairs)]
    turned = {*trained[:wrong]}
    winner = np.array([int(each in turned) for each in pairs], dtype=np.int8)
    write_signals(path, from_columns(list(pairs), {"winner": winner}, {"kinds": ["binary"]}), provenance={})
    return path, len(trained)


@pytest.mark.parametrize("swap", [False, True])
def test_how_far_the_signal_says_what_people_did(world: Path, tmp_path: Path, swap: bool) -> None:
    train(world, tmp_path / "votes")
    assert read_signal_share(tmp_path / "votes") is None  # the votes are the signal
    path, count = signals(tmp_path / "signals.parquet", wrong=3, world=world)
    words = (f"signal.file={path}", *(["signal.swap=true"] if swap else []))
    share = read_signal_share(train(world, tmp_path / "run", *words))
    assert share is not None
    assert share.value == pytest.approx(1 - 3 / count)
    assert share.low < share.value < share.high


def test_a_wrong_signal_is_named(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the training, on the page and in its twin; with few prompts nobody is accused."""
    few, _ = signals(tmp_path / "few.parquet", wrong=99, world=world)
    assert "misled" not in [each.kind for each in diagnose(train(world, tmp_path / "few", f"signal.file={few}"))]
    monkeypatch.setattr(own_pairs, "PROMPTS", tuple(f"a thing of number {n}" for n in range(24)))
    data = own_pairs.make_folder(tmp_path / "data", pairs=24)
    words = (f"data.paths=[{data}]", f"cache.folder={tmp_path / 'cache'}")
    assert read_signal_share(train(world, tmp_path / "votes", *words)) is None
    path, _ = signals(tmp_path / "signals.parquet", *words, wrong=99, world=world)
    capsys.readouterr()
    run = train(world, tmp_path / "run", *words, f"signal.file={path}")
    assert "Its signal is not what people chose" in capsys.readouterr().err
    assert "misled" in [each.kind for each in diagnose(run)]
    page = report(run, tmp_path / "report.html")
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "Did it learn, and what?" in text
        assert "Check the scorer, or train on the votes" in text


def test_without_held_out_pairs(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(world, tmp_path / "run", "data.validation_share=0")
    assert [each.kind for each in diagnose(run)] == ["unknown", "untried"]
    assert "Set data.validation_share to 0.1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_few_pairs_are_said_in_run_report_and_card(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Pairs held out count too; an objective on single images counts two of them as a pair."""
    config, words = load_config(world / "run.yaml", []), [f"objective={{name: {method}}}"]
    count = len(LatentCache(str(config.cache.folder)).pairs)
    if method == "kto":
        made = finepref.make_signals(finepref.read_preferences(*config.data.paths), kind="kto")
        write_signals(tmp_path / "kto.parquet", made, provenance={})
        words.append(f"signal.file={tmp_path / 'kto.parquet'}")
    capsys.readouterr()
    run = train(world, tmp_path / "run", *words)
    said = f"It had {count} pairs, and runs with fewer than 50 were never measured"
    assert said in capsys.readouterr().err
    page = report(run, tmp_path / "report.html")
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert said in text
    monkeypatch.setattr("finepref.train.diagnose.FEWEST", count)
    assert "untried" not in [each.kind for each in diagnose(run)]


def test_the_error_far_out(world: Path, tmp_path: Path) -> None:
    """That of the start in the noisier half of the draws, as `gain_far` is."""
    run = train(world, tmp_path / "run", "train.learning_rate=1e-2", "train.lr_scheduler=constant")
    config = load_config(world / "run.yaml", list(HELD))
    pairs = LatentCache(config.cache.folder).pairs
    ids = [each for each in pairs if each in held_out_ids(config, pairs)]
    start = read_start(run, ids, 4)
    assert start_far(run) == pytest.approx(start[:, 2:, 0].mean())
    assert abs(read_heldout(run)[-1].gain_far) > 0


@pytest.mark.parametrize("kind", ["stopped", "ran"])
def test_a_run_with_early_stopping_is_made_longer(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One that ran to its end goes on with more steps, as the note "train longer" asks; one that was ended is done."""
    patience = 9 if kind == "ran" else 1
    words = (f"train.stop={{patience: {patience}}}", "train.lr_scheduler=constant", "validation.every=1")
    last = 9 if kind == "ran" else 0
    monkeypatch.setattr(stopping, "sound", lambda lines, far: [line for line in lines if line.step <= last])
    monkeypatch.setattr(stopping, "speaks", lambda lines: True)
    run = train(world, tmp_path / "run", *words, "train.max_steps=2")
    assert read_run(run).steps == (2 if kind == "ran" else 1)
    longer = load_config(world / "run.yaml", [*HELD, *words, "train.max_steps=4"])
    train_run(longer, run, resume=True)
    assert read_run(run).steps == (4 if kind == "ran" else 1)


def test_predictions_that_overflow(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end no run; the line holds null, the last sound step is better, and the run says so."""
    real = look.evaluate

    def broken(run: Any, state: Any) -> np.ndarray:
        found = real(run, state)
        return found * (np.nan if state.step == 2 else 1.0)

    monkeypatch.setattr(look, "evaluate", broken)
    run = train(world, tmp_path / "run", "train.stop={patience: 9}")
    assert read_run(run).kept in (0, 1)
    assert math.isnan(read_heldout(run)[-1].lead.value)
    assert diagnose(run)[0].kind in ("overflow", "start")


def test_other_draws_are_refused_at_once(world: Path, tmp_path: Path) -> None:
    words = ("train.max_steps=4", "train.lr_scheduler=constant", "train.checkpoint_every=2")
    run = train(world, tmp_path / "run", *words)
    (run / "run.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-000004")
    before = (run / HELDOUT).read_text()
    with pytest.raises(InputError, match=r"validation.draws; set them as they were"):
        train_run(load_config(world / "run.yaml", [*HELD, *words, "validation.draws=2"]), run, resume=True)
    assert (run / HELDOUT).read_text() == before


def test_what_is_left_of_a_run(world: Path, tmp_path: Path) -> None:
    """A checkpoint is judged by the looks up to its step; a run without heldout.parquet still has a page."""
    run = train(world, tmp_path / "run", "train.checkpoint_every=1", "train.max_steps=3")
    checkpoint = run / "checkpoints" / "step-000002"
    assert [line.step for line in looks_of(checkpoint)] == [0, 1, 2]
    assert diagnose(checkpoint)[0].kind == "few"
    (run / "heldout.parquet").unlink()
    assert diagnose(run)[0].kind == "few"
    assert "Did it learn" in report(run, tmp_path / "report.html").read_text()
