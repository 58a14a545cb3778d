"""Who may read what finepref writes: whoever may read any other file that the person makes (umask)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import own_pairs

STAGES = """
import sys
import torch
from safetensors.torch import save_file
from finepref.core.files import atomic_file
with atomic_file(sys.argv[1] + "/alone.safetensors") as temporary:
    save_file({"a": torch.ones(2)}, temporary)
"""
WORDS = ("-c", "lab/dpo", "data.format=auto", "data.paths=[data]", "signal.file=null", "cache.folder=cache")
STEPS = ("train.max_steps=2", "train.pairs_per_step=2", "train.micro_batch=2", "train.checkpoint_every=1")


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_a_file_of_a_library_has_the_rights_of_any_file(mask: int, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", STAGES, str(tmp_path)], umask=mask, check=True)
    assert stat.S_IMODE((tmp_path / "alone.safetensors").stat().st_mode) == 0o666 & ~mask


def test_colleagues_may_read_caches_runs_and_exports(finepref, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own_pairs.make_folder(tmp_path / "data", pairs=4)
    mine = tmp_path / "data" / "mine.safetensors"
    mine.write_bytes(b"")
    mine.chmod(0o600)
    for words in (
        ("cache", *WORDS, *STEPS),
        ("train", *WORDS, *STEPS, "--out", "run"),
        ("train", *WORDS, *STEPS, "lora={rank: 2}", "--out", "lora"),
        ("export", "run", "--format", "diffusers", "--out", "exported"),
        ("export", "lora", "--format", "kohya", "--out", "lora.safetensors"),
    ):
        code, _, err = finepref(*words)
        assert code == 0, err
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "data" not in path.parts]
    assert len([path for path in files if path.suffix == ".safetensors"]) >= 7
    usual = 0o666 & ~_mask()
    assert {path.name for path in files if stat.S_IMODE(path.stat().st_mode) != usual} == set()
    assert stat.S_IMODE(mine.stat().st_mode) == 0o600


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
