"""The demo, with few votes, steps and prompts: every stage as its own command, every promised file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    command = [sys.executable, "-m", "finepref", "demo", "--quick", "--workers", "1", "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FINEPREF_HOME": str(folder.parent / "home")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "report: file://" in result.stdout
    return folder


@pytest.mark.slow
def test_every_promised_file_is_there(demo: Path) -> None:
    for name in (
        "votes.parquet",
        "arena/ratings.json",
        "arena/leaderboard.csv",
        "arena/gaps.parquet",
        "arena/arena.html",
        "rewards.parquet",
        "signals.parquet",
        "cache/cache.json",
        "runs/dpo/unet/diffusion_pytorch_model.safetensors",
        "runs/posterior/run.json",
        "runs/posterior/config.yaml",
        "runs/posterior/metrics.jsonl",
        "eval/scores.parquet",
        "eval/comparison.json",
        "report.html",
        "report.md",
        "summary.json",
    ):
        assert (demo / name).is_file(), name


@pytest.mark.slow
def test_summary_and_runs(demo: Path) -> None:
    """The summary's shape; both runs on the same budget, the posterior alone with weights."""
    summary = json.loads((demo / "summary.json").read_text())
    assert set(summary["win_rate"]) == {"posterior_vs_base", "dpo_vs_base", "posterior_vs_dpo"}
    for rate in summary["win_rate"].values():
        assert rate["low"] <= rate["mean"] <= rate["high"]
        assert rate["n"] == 12
    assert set(summary["true_quality"]) == {"base", "dpo", "posterior"}
    assert summary["peak_memory_mb"] < 3000
    assert summary["seconds"]["total"] > 0
    runs = {name: json.loads((demo / "runs" / name / "run.json").read_text()) for name in ("dpo", "posterior")}
    assert runs["dpo"]["network_calls"] == runs["posterior"]["network_calls"]
    assert [runs[name]["axes"]["signal"] for name in ("dpo", "posterior")] == ["binary", "posterior"]


@pytest.mark.slow
def test_no_stage_before_the_evaluation_reads_the_true_quality(demo: Path) -> None:
    """The votes carry no quality, and no signal, cache or run was made with lab-true."""
    assert not {"quality", "true_quality", "score"} & set(pq.read_schema(demo / "votes.parquet").names)
    for name in ("signals.parquet", "rewards.parquet"):
        assert b"lab-true" not in (demo / name).read_bytes()
    for path in [*(demo / "runs").rglob("*.json"), *(demo / "runs").rglob("*.yaml"), *(demo / "cache").glob("*.json")]:
        assert "lab-true" not in path.read_text(), path
