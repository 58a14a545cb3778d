"""`finepref cache` on a user's own folder of pairs, with a tiny real pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import own_pairs
import tiny
from finepref.build import make_cache
from finepref.errors import InputError
from finepref.train.config import load_config


def test_cache_then_refusal_of_another_resolution(tmp_path: Path) -> None:
    tiny.sd15(tmp_path / "model")
    own_pairs.make_folder(tmp_path / "data", pairs=5)
    next((tmp_path / "data").glob("chosen-003.*")).write_bytes(b"broken")
    config = {
        "model": {"base": str(tmp_path / "model")},
        "data": {"paths": [str(tmp_path / "data")], "resolution": 32, "flip": True},
        "cache": {"folder": str(tmp_path / "cache"), "shard_size": 4, "batch_size": 2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))

    command = [sys.executable, "-m", "finepref", "cache", "-c", str(tmp_path / "run.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["pairs"], summary["quarantined"], summary["encoded_images"]) == (4, 1, 9)
    assert "1 pairs dropped" in done.stderr
    other = load_config(tmp_path / "run.yaml", ["data.resolution=64"])
    with pytest.raises(InputError, match=r"another resolution \(32, now 64\); use another folder, or --overwrite"):
        make_cache(other, tmp_path / "cache", device="cpu")
