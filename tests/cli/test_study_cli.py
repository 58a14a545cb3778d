"""`finepref lab study`: a study of minutes shrunk to seconds, stopped, resumed, and read."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from finepref.cli.lab import study
from finepref.core.errors import CheckFailed, InputError

REPOSITORY = Path(__file__).parents[2]
STUDY = """
seeds: [0]
data: {votes: 40, prompts: 3, reward_steps: 3}
training: {cost: 260, pairs_per_step: 4, micro_batch: 4}
evaluation: {prompts: 3, validation_prompts: 2, steps: 2}
tuning: {seed: 7, learning_rate: [1.0e-4], strength: [1.0]}
groups:
  - name: methods
    title: Methods
    arms:
      - {name: dpo, method: dpo}
      - {name: noise_3_smpo, method: smpo, noise: 3.0, reward: own}
claims:
  - {text: SmPO beats DPO, source: a paper, better: noise_3_smpo, than: dpo}
"""


def test_study_stops_resumes_and_reports(tmp_path: Path) -> None:
    """No time: nothing runs and that is said; then everything; then nothing is left to do; then the page."""
    (tmp_path / "study.yaml").write_text(STUDY)
    rows = tmp_path / "rows"
    run = functools.partial(study, config=tmp_path / "study.yaml", out=rows, work=tmp_path / "work", workers=1)
    rest = {"minutes": None, "report": None, "overwrite": False}
    with pytest.raises(CheckFailed, match="go on with the same command"):
        run(**{**rest, "minutes": 0.0})
    assert not list(rows.glob("*.json"))
    run(**rest)
    dpo, smpo = (json.loads((rows / f"{name}.json").read_text()) for name in ("dpo", "noise_3_smpo"))
    assert len(dpo["seeds"]["0"]["quality"]) == 3
    assert dpo["seeds"]["0"]["steps"] == 8
    assert dpo["seeds"]["0"]["calls"] == {"policy": 64, "reference": 64, "inversion": 0, "anchor": 0}
    assert dpo["seeds"]["0"]["cost"] == 256
    assert smpo["seeds"]["0"]["steps"] == 3
    assert smpo["seeds"]["0"]["calls"]["inversion"] > 0
    assert smpo["seeds"]["0"]["agreement"] < dpo["seeds"]["0"]["agreement"]
    run(**{**rest, "minutes": 0.0})
    run(**{**rest, "report": tmp_path / "study.md"})
    assert "SmPO beats DPO (a paper)" in (tmp_path / "study.md").read_text()
    with pytest.raises(InputError, match="no effect with --report"):
        run(**{**rest, "report": tmp_path / "study.md", "minutes": 1.0})


def test_the_published_page_is_that_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows in the repository are read, wherever the package keeps its modules, and give the page to the letter."""
    (tmp_path / "benchmarks").symlink_to(REPOSITORY / "benchmarks", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    page = Path("docs/study.md")
    study(config=None, out=Path("benchmarks/results/study"), report=page, minutes=None, overwrite=False)
    assert page.read_text(encoding="utf-8") == (REPOSITORY / page).read_text(encoding="utf-8")
