"""The one-file examples give the library's loss series, from the same votes."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from double import networks_in_double
from finepref.arena.settings import RatingOptions
from finepref.arena.whole import ArenaRequest, run_arena
from finepref.cli.signals import command as signals
from finepref.evaluate.scored_pairs import score_preferences
from finepref.evaluate.scorers.scorer_rows import make
from finepref.formats.preferences import read_preferences
from finepref.lab.ballots import make_votes
from finepref.lab.world import prompts
from finepref.train.config import load_config
from finepref.train.run import train_run
from tolerance import DOUBLE, rounding

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STEPS, PAIRS, SEED = 3, 8, 5


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 votes on 5 prompts."""
    file = tmp_path_factory.mktemp("votes") / "votes.parquet"
    make_votes(file, seed=3, votes=60, prompts=prompts("train")[:5])
    return file


def by_library(config: str, votes: Path, folder: Path, *overrides: str) -> list[float]:
    words = [
        f"data.paths=[{votes}]", f"cache.folder={votes.parent / 'cache'}", f"train.max_steps={STEPS}",
        f"train.pairs_per_step={PAIRS}", f"train.seed={SEED}", "train.lr_warmup_steps=2", "train.learning_rate=1e-4",
    ]  # fmt: skip
    run = train_run(load_config(config, [*words, *overrides]), folder / "run")
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def by_example(name: str, votes: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *extra: str) -> list[float]:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    out = folder / "losses.json"
    words = ["--steps", STEPS, "--per-step", PAIRS, "--seed", SEED, "--warmup", 2, "--rate", 1e-4, "--out", out, *extra]
    monkeypatch.setattr(sys, "argv", [name, str(votes), *map(str, words)])
    module.main()
    losses: list[float] = json.loads(out.read_text())
    return losses


def arenapo(votes: Path, folder: Path) -> tuple[str, ...]:
    run_arena([votes], folder / "arena", ArenaRequest(rating=RatingOptions(engine="online")))
    signals([votes], folder / "signals.parquet", ["paper"], arena=folder / "arena")
    return (f"signal.file={folder / 'signals.parquet'}",)


def smpo(votes: Path, folder: Path) -> tuple[str, ...]:
    rewards = folder / "rewards.parquet"
    score_preferences(read_preferences([votes]), [make("lab-reward")], rewards, inputs=[votes])
    signals([votes], folder / "signals.parquet", ["smoothed"], rewards=rewards)
    return (f"signal.file={folder / 'signals.parquet'}",)


@pytest.mark.parametrize(("method", "prepare"), [("arenapo", arenapo), ("smpo", smpo)])
def test_one_file_equals_the_library(
    method: str,
    prepare: Callable[[Path, Path], tuple[str, ...]],
    votes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same votes, same seed: every loss agrees, and they do move.

    An inversion keeps x_t in float32 on both sides: 9 steps and a ReNoise of 4 operations, seen by beta / 2 times the
    mean over 2 x 256 numbers of a pair, over 8 pairs.
    """
    networks_in_double(monkeypatch)
    config = load_config(f"lab/{method}")
    expected = by_library(f"lab/{method}", votes, tmp_path, *prepare(votes, tmp_path))
    beta = config.objective.options()["beta"]
    found = by_example(
        f"one_file_{method}", votes, tmp_path, monkeypatch, "--beta", beta, "--dropout", config.data.prompt_dropout
    )
    assert len(found) == STEPS
    inverted = rounding(40, size=beta / 2 / math.sqrt(PAIRS * 2 * 256))
    assert found == pytest.approx(expected, abs=DOUBLE + (inverted if method == "smpo" else 0.0), rel=0)
    assert abs(found[-1] - found[0]) > 1e-4


@pytest.mark.parametrize("name", ["one_file_arenapo", "one_file_smpo"])
def test_one_file_is_one_short_file(name: str) -> None:
    """At most 250 lines, nothing of finepref but the lab; its defaults are those of the lab config."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert text.count("\n") <= 250
    for line in text.splitlines():
        if line.startswith(("import finepref", "from finepref")):
            assert line.startswith("from finepref.lab."), line
    config = load_config(f"lab/{name.removeprefix('one_file_')}")
    defaults = {
        "--per-step": config.train.pairs_per_step,
        "--beta": config.objective.options()["beta"],
        "--rate": config.train.learning_rate,
        "--warmup": config.train.lr_warmup_steps,
        "--dropout": config.data.prompt_dropout,
    }
    for option, value in defaults.items():
        written = next(line for line in text.splitlines() if f'"{option}"' in line)
        assert float(written.split("default=")[1].split(",")[0].rstrip(")")) == value, option
