"""Online encoding trains as the cache does: nothing is stored, and the numbers are the same up to rounding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finepref.core.errors import ConfigError
from finepref.train.config import load_config
from finepref.train.run import train_run

# Adam with a large epsilon follows the gradient, not its sign, and beta 500 would multiply the rounding of an error
# (1e-7) to 5e-5: neither may blow up what the encoders round differently in batches of other sizes.
SAME = (
    "cache.posterior=mode",
    "train.adam_epsilon=1e-2",
    "train.learning_rate=1e-3",
    "objective={name: dpo, beta: 50}",
)


def losses(world: Path, out: Path, *overrides: str, resume: bool = False) -> list[tuple[float, float]]:
    """(loss, gradient norm) of every step of a run."""
    train_run(load_config(world / "run.yaml", overrides), out, resume=resume, overwrite=False)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines]


def test_online_run_is_the_run_on_a_float32_cache(world: Path, tmp_path: Path) -> None:
    cached = losses(world, tmp_path / "cached", *SAME, f"cache.folder={tmp_path / 'cache'}")
    online = losses(world, tmp_path / "online", *SAME, "cache.folder=null", "cache.online=true")
    assert len(cached) == 8
    assert cached[-1][0] != pytest.approx(cached[0][0], abs=1e-3)  # something was learned
    for a, b in zip(cached, online, strict=True):
        assert a[0] == pytest.approx(b[0], abs=1e-5)
        assert a[1] == pytest.approx(b[1], rel=1e-3)
    record = json.loads((tmp_path / "online" / "run.json").read_text())
    assert record["network_calls"]["vae"] is None
    assert not list((tmp_path / "online").rglob("*.parquet"))
    held = json.loads((tmp_path / "cached" / "run.json").read_text())["network_calls"]
    assert (held["vae"], held["text"]) == (2 * 24, 5)  # 24 images and their mirrors; 4 prompts and the empty one


def test_online_run_refuses_a_folder(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cache\.folder: online encoding keeps nothing"):
        losses(world, tmp_path / "run", "cache.online=true")
    assert not (tmp_path / "run").exists()
