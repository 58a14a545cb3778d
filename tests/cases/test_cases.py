"""Small inputs as people have them, each with the outcomes that are right (`case.json`), through the command line."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from finepref.cli import main as command_line

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/case.json"))


def run(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of the command, run in the folder as from a shell."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["finepref", *words])
    try:
        command_line.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def width(ratings: dict[str, Any], model: str) -> float:
    row = next(row for row in ratings["models"] if row["name"] == model)
    return float(row["high"] - row["low"])


def is_right(outcome: dict[str, Any], ratings: dict[str, Any], other: dict[str, Any] | None) -> bool:
    """Whether a written ratings.json is what an outcome asks for."""
    sums = {row["name"]: [row["wins"], row["losses"], row["ties"]] for row in ratings["models"]}
    voted = {name: row for name, row in sums.items() if sum(row)}
    wanted = outcome.get("models")
    if wanted is not None and (
        voted.keys() != wanted.keys() or any(voted[n] != pytest.approx(wanted[n]) for n in wanted)
    ):
        return False
    if "warns" in outcome and not any(word in " ".join(ratings["warnings"]) for word in outcome["warns"]):
        return False
    if "voters" in outcome and ratings["voters"] != outcome["voters"]:
        return False
    if "left_out" in outcome and sum(ratings["votes"]["left_out"].values()) != outcome["left_out"]:
        return False
    if "width_like" in outcome:
        model, _, low, high = outcome["width_like"]
        assert other is not None
        return bool(low <= width(ratings, model) / width(other, model) <= high)
    return True


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    told = json.loads((case / "case.json").read_text(encoding="utf-8"))
    folder = shutil.copytree(case, tmp_path / "in")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status = run([*told["command"], "--out", str(tmp_path / "out")], folder, monkeypatch)
    said = capfd.readouterr().err
    assert "Traceback" not in said, said
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    fitting = [outcome for outcome in told["right"] if outcome["rc"] == status]
    assert fitting, f"exit {status}: {said}"
    if status:
        assert len(said.strip().split("\n")) <= 3
        assert any(word in said for outcome in fitting for word in outcome["says"]), said
        assert not os.path.lexists(tmp_path / "out")
        return
    ratings = json.loads((tmp_path / "out" / "ratings.json").read_text(encoding="utf-8"))
    likes = [outcome["width_like"][1] for outcome in fitting if "width_like" in outcome]
    other = None
    if likes:
        assert run(["arena", likes[0], "--out", str(tmp_path / "like")], folder, monkeypatch) == 0
        other = json.loads((tmp_path / "like" / "ratings.json").read_text(encoding="utf-8"))
    assert any(is_right(outcome, ratings, other) for outcome in fitting), ratings
