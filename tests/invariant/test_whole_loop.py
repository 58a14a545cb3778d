"""A whole run with the official schedule moves the weights as the published loop does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import tiny_pipeline
import whole_loop

import own_pairs
import tiny
from double import networks_in_double


def test_a_run_moves_the_weights_as_the_published_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """6 steps with a warm-up of 3, networks in float64; a warm-up one step ahead is seen.

    The rates of the steps sum up to 0 + 1/3 + 2/3 + 3 = 4 full ones, and to 5 where the first has 1/3.
    """
    monkeypatch.setattr(tiny_pipeline, "STEP", 2)
    monkeypatch.setattr(tiny_pipeline, "LATENT", (4, 8, 8))
    monkeypatch.setitem(tiny_pipeline.RESOLUTION, "tiny", 32)
    networks_in_double(monkeypatch)
    tiny.sd15(tmp_path / "model")
    own_pairs.make_folder(tmp_path / "data", pairs=6)
    found = whole_loop.compare(tmp_path, steps=6, warmup=3)
    assert found["official"] < whole_loop.BAR
    assert found["one_step_ahead"] > 0.1
    assert found["movement"] > 0
