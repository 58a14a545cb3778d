"""Whether a run learned, as its user reads it: on the command line, in the report, from the files of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finepref.data.latents import LatentCache
from finepref.formats.heldout import read_heldout, read_signal_share, read_start, start_far
from finepref.formats.signals import from_columns, write_signals
from finepref.report.page import report
from finepref.train.config import load_config
from finepref.train.diagnose import diagnose
from finepref.train.run import train_run
from finepref.train.unseen import held_out_ids

HELD = ("data.validation_share=0.4", "validation.every=1", "validation.draws=4", "train.max_steps=2")


def train(world: Path, out: Path, *words: str) -> Path:
    return train_run(load_config(world / "run.yaml", [*HELD, *words]), out)


def signals(world: Path, path: Path, *, wrong: int) -> tuple[Path, int]:
    """A signal that says of the first `wrong` training pairs what people did not; and how many pairs are trained on.

    The chosen picture of a pair of the world is its first one.
    """
    config = load_config(world / "run.yaml", list(HELD))
    pairs = LatentCache(config.cache.folder).pairs
    trained = [each for each in pairs if each not in held_out_ids(config, pairs)]
    turned = {*trained[:wrong]}
    winner = np.array([int(each in turned) for each in pairs], dtype=np.int8)
    write_signals(path, from_columns(list(pairs), {"winner": winner}, {"kinds": ["binary"]}), provenance={})
    return path, len(trained)


@pytest.mark.parametrize("swap", [False, True])
def test_how_far_the_signal_says_what_people_did(world: Path, tmp_path: Path, swap: bool) -> None:
    train(world, tmp_path / "votes")
    assert read_signal_share(tmp_path / "votes") is None  # the votes are the signal
    path, count = signals(world, tmp_path / "signals.parquet", wrong=3)
    words = (f"signal.file={path}", *(["signal.swap=true"] if swap else []))
    share = read_signal_share(train(world, tmp_path / "run", *words))
    assert share is not None
    assert share.value == pytest.approx(1 - 3 / count)
    assert share.low < share.value < share.high


def test_a_wrong_signal_is_named(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the end of the training, on the page and in its twin."""
    path, count = signals(world, tmp_path / "signals.parquet", wrong=5)
    assert count < 10
    run = train(world, tmp_path / "run", f"signal.file={path}")
    assert "Its signal is not what people chose" in capsys.readouterr().err
    found = diagnose(run)
    assert [each.kind for each in found][:2] == ["few", "misled"]
    page = report(run, tmp_path / "report.html")
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "Did it learn, and what?" in text
        assert "Check the scorer, or train on the votes" in text


def test_without_held_out_pairs(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(world, tmp_path / "run", "data.validation_share=0")
    assert [each.kind for each in diagnose(run)] == ["unknown"]
    assert "Set data.validation_share to 0.1 or more" in capsys.readouterr().err


def test_the_error_far_out(world: Path, tmp_path: Path) -> None:
    """That of the start in the noisier half of the draws, as `gain_far` is."""
    run = train(world, tmp_path / "run", "train.learning_rate=1e-2", "train.lr_scheduler=constant")
    config = load_config(world / "run.yaml", list(HELD))
    pairs = LatentCache(config.cache.folder).pairs
    ids = [each for each in pairs if each in held_out_ids(config, pairs)]
    start = read_start(run, ids, 4)
    assert start_far(run) == pytest.approx(start[:, 2:, 0].mean())
    assert abs(read_heldout(run)[-1].gain_far) > 0
