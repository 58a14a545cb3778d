"""`finepref lab study`: a study of minutes shrunk to seconds, stopped, resumed, and read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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


def finepref(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finepref", "lab", "study", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_study_stops_resumes_and_reports(tmp_path: Path) -> None:
    """No time: exit 1 and nothing lost; then everything; then nothing to do; then the page."""
    (tmp_path / "study.yaml").write_text(STUDY)
    words = ("-c", tmp_path / "study.yaml", "--out", tmp_path / "rows", "--work", tmp_path / "work", "--workers", 1)
    stopped = finepref(*words, "--minutes", 0)
    assert stopped.returncode == 1
    assert "go on with the same command" in stopped.stderr
    done = finepref(*words)
    assert done.returncode == 0, done.stderr[-2000:]
    dpo, smpo = (json.loads((tmp_path / "rows" / f"{name}.json").read_text()) for name in ("dpo", "noise_3_smpo"))
    assert len(dpo["seeds"]["0"]["quality"]) == 3
    assert dpo["seeds"]["0"]["steps"] == 8
    assert dpo["seeds"]["0"]["calls"] == {"policy": 64, "reference": 64, "inversion": 0}
    assert dpo["seeds"]["0"]["cost"] == 256
    assert smpo["seeds"]["0"]["steps"] == 3
    assert smpo["seeds"]["0"]["calls"]["inversion"] > 0
    assert smpo["seeds"]["0"]["agreement"] < dpo["seeds"]["0"]["agreement"]
    again = finepref(*words)
    assert again.returncode == 0
    assert "0 of 7 jobs are to do" in again.stderr
    page = finepref(*words[:6], "--report", tmp_path / "study.md")
    assert page.returncode == 0, page.stderr
    assert "SmPO beats DPO (a paper)" in (tmp_path / "study.md").read_text()
