"""A tiny pipeline, a user's own pairs and their cache, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model/, data/ and run.yaml; training in it makes cache/."""
    folder = tmp_path_factory.mktemp("world")
    tiny.sd15(folder / "model")
    own_pairs.make_folder(folder / "data")
    config = {
        "model": {"base": str(folder / "model")},
        "data": {"paths": [str(folder / "data")], "resolution": 32, "flip": True},
        "cache": {"folder": str(folder / "cache"), "dtype": "float32"},
        "objective": {"name": "dpo", "beta": 500},
        "train": {
            "max_steps": 8,
            "pairs_per_step": 8,
            "micro_batch": 4,
            "learning_rate": 1e-4,
            "lr_scheduler": "cosine",
            "lr_warmup_steps": 2,
            "lr_warmup_from_zero": False,  # so that one step moves the weights
            "checkpoint_every": 2,
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder
