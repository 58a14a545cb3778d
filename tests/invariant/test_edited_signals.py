"""A signal file that was edited by hand, and a run in which no step could be applied, as a user meets them."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finepref.cli.main import main

EDITS = {
    "winner": {"winner 2": 2, "winner -1": -1},
    "weight": {"weight nan": float("nan"), "weight inf": float("inf"), "weight -1": -1.0},
    "label_0": {"label 7": 7},
    "margin_0": {"margin nan": float("nan")},
}
CASES = {name: (column, value) for column, values in EDITS.items() for name, value in values.items()}


def finepref(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["finepref", *words])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def signals(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound signal file of the world's pairs."""
    file = tmp_path_factory.mktemp("sound") / "signals.parquet"
    with pytest.MonkeyPatch.context() as patch:
        words = ("signals", str(world / "data"), "--kind", "uniform", "--margin", "1", "--out", str(file))
        assert finepref(patch, *words) == 0
    return file


def train(monkeypatch: pytest.MonkeyPatch, world: Path, out: Path, *words: str) -> int:
    return finepref(monkeypatch, "train", "-c", str(world / "run.yaml"), "--out", str(out), "train.max_steps=1", *words)


@pytest.mark.parametrize("name", [*CASES, "an id twice"])
def test_edited_signals_are_refused(
    world: Path,
    signals: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """One sentence with the file and the remedy, exit 2, and no run folder."""
    table = pq.read_table(signals)
    rows = table.to_pylist()
    if name == "an id twice":
        rows.append(dict(rows[0]))
    else:
        column, value = CASES[name]
        rows[0] = {**rows[0], column: value, **({"winner": 0} if column == "margin_0" else {})}
    edited = tmp_path / "signals.parquet"
    pq.write_table(pa.Table.from_pylist(rows, table.schema), edited)
    assert train(monkeypatch, world, tmp_path / "run", f"signal.file={edited}") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finepref: ")]
    assert len(lines) == 1
    assert str(edited) in lines[0]
    assert "write the signals again with `finepref signals`" in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_run_without_one_step_fails(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every step skipped: exit 1, said in one sentence, and no finished run is left."""
    from finepref.train import loop

    original = loop.pair_loss

    def poisoned(batch, **keywords):
        out, t = original(batch, **keywords)
        return type(out)(loss=out.loss * float("nan"), stats=out.stats), t

    monkeypatch.setattr(loop, "pair_loss", poisoned)
    assert train(monkeypatch, world, tmp_path / "run", "train.max_steps=2", "train.max_skipped=10") == 1
    assert (
        "2 steps were skipped because their gradients were not finite; not one was applied" in capsys.readouterr().err
    )
    assert not (tmp_path / "run" / "run.json").exists()
