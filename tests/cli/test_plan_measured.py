"""What `finepref plan` says of data, disk and memory, against what the commands then take, on the lab's model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import own_pairs

WORDS = (
    *("-c", "lab/dpo", "data.format=auto", "signal.file=null", "cache.folder=cache", "train.max_steps=2"),
    *("train.pairs_per_step=2", "train.micro_batch=2"),
)
HERE = (*WORDS, "data.paths=[data]")
COMMANDS = {
    "cache": HERE,
    "train": (*HERE, "--out", "run"),
    "generate": ("--model", "a=run", "--prompts", "lab-eval", "--limit", "2", "--steps", "2", "--out", "pictures"),
}
# A process of its own between: the system counts what started a process as held by it.
MEASURED = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
print(used.ru_maxrss)
sys.exit(process.returncode)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs of twelve pictures and four prompts."""
    folder = tmp_path_factory.mktemp("measured")
    own_pairs.make_folder(folder / "data", pairs=6)
    return folder


def test_numbers_are_guessed_then_counted(finepref, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number that hangs on data that is not here is called a guess; none is when it is."""
    monkeypatch.chdir(folder)
    code, before, err = finepref("plan", *WORDS, "data.paths=[nobody/pairs]", "train.reference_cache=errors")
    assert code == 0, err
    guesses = [line for line in before.splitlines() if "guessed" in line]
    assert "8 (guessed) images" in before
    assert "4 (guessed) prompts" in before
    for number in (
        "latent cache before it: ",
        "latent cache ",
        "reference errors ",
        "cache (guessed)",
        "how many pairs",
    ):
        assert any(number in line for line in guesses), number
    code, after, err = finepref("plan", *HERE, "train.reference_cache=errors")
    assert code == 0, err
    assert "guessed" not in after
    assert "12 images" in after
    assert "5 prompts" in after  # with the empty one


def test_memory_of_the_commands(finepref, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 10 % of the peaks of their processes, before and after the data is here; the cache as it was counted."""
    monkeypatch.chdir(folder)

    def planned(*words: str) -> dict:
        code, out, err = finepref("plan", *words, "--gpu", "cpu", "--json")
        assert code == 0, err
        return json.loads(out)

    before, after = planned(*WORDS, "data.paths=[nobody/pairs]"), planned(*HERE)
    for stage, words in COMMANDS.items():
        asked = [sys.executable, "-c", MEASURED, sys.executable, "-m", "finepref", stage, *words]
        done = subprocess.run(asked, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        peak = int(done.stdout.split()[-1]) * 1024 / 1e9
        for plan in (before, after):
            assert plan["host"][stage]["cpu_gb"] == pytest.approx(peak, rel=0.1), stage
    kept = planned(*HERE)["cache"]
    assert (kept["images"], kept["prompts"], kept["by"]) == (12, 5, "cache")
    assert {**kept, "by": "data"} == after["cache"]
    shards = sum(path.stat().st_size for path in (folder / "cache").rglob("*.safetensors"))
    assert shards == pytest.approx(kept["total_bytes"], rel=0.05)  # 16 latents and prompts of the lab have headers
