"""A round that is killed at random points and called again: does it end as one that nobody killed?

    python benchmarks/rounds_kills.py [--kills 10] [--out FILE.json]

`finepref rounds` on the lab, two small rounds, in a process group of its own, whose stages are processes. Every play is
killed (SIGKILL to the whole group; every third time to the parent alone, so that its stage goes on) at random moments,
up to five times, and called again until it ends. Weights, steps, board, votes and pictures are compared bit for bit.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator
from finepref.formats.rounds import read_rounds

KILLS_A_PLAY = 5
WORDS = (
    "rounds", "--base", "lab", "--prompts", "lab-train", "--held-out", "lab-eval", "--judge", "lab-true", "--by", "lab",
    "--sets", "16", "--limit", "10", "--steps", "2", "--guidance", "2", "--people", "3", "--images", "2",
    "--rounds", "2",
    "train.max_steps=6", "train.pairs_per_step=4", "train.micro_batch=4", "train.lr_warmup_steps=0", "train.stop=null",
    "train.checkpoint_every=2", "validation.draws=1",
)  # fmt: skip


def begin(out: Path) -> subprocess.Popen[str]:
    """The command, in a process group of its own; what it says goes to a file beside the folder."""
    told = out.with_suffix(".txt").open("a")
    words = [sys.executable, "-m", "finepref", *WORDS, "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(words, stdout=told, stderr=told, env=environment, start_new_session=True, text=True)


def stage_of(out: Path) -> str:
    """The stage that began last."""
    stages = re.findall(r"\[(round \d+)\] finepref ([\w-]+)", out.with_suffix(".txt").read_text())
    return " ".join(stages[-1]) if stages else "before the first stage"


def finish(out: Path) -> None:
    """Call until it ends; a stage whose parent was killed may still hold its folder."""
    for _ in range(60):
        if begin(out).wait() == 0:
            return
        time.sleep(5.0)
    raise RuntimeError(out.with_suffix(".txt").read_text()[-2000:])


def result(out: Path) -> dict[str, Any]:
    """What the rounds left, without times and places."""
    found: dict[str, Any] = {}
    for folder in sorted(out.glob("round-*")):
        for path in sorted((folder / "run").rglob("*.safetensors")):
            if "checkpoints" not in path.parts:
                found |= {f"{path.relative_to(out)} {name}": value for name, value in load_file(path).items()}
        found |= {str(path.relative_to(out)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}
        found[f"{folder.name} metrics"] = (folder / "run" / "metrics.jsonl").read_bytes()
    record = read_rounds(out)
    found["rounds"] = [(each.number, each.sets, each.kept, each.gains) for each in record.rounds]
    return found


def equal(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What differs."""

    def same(name: str) -> bool:
        one, other = ours.get(name), theirs.get(name)
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
            return np.array_equal(one, other)
        return bool(one == other)

    return [name for name in sorted(ours.keys() | theirs.keys()) if not same(name)]


def main() -> None:
    """Kill, go on, compare and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    chance = numpy_generator(0, "rounds kills")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        started = time.monotonic()
        finish(work / "whole")
        took, whole = time.monotonic() - started, result(work / "whole")
        print(f"whole: {took:.0f} s, {len(whole)} parts", flush=True)
        killed: list[dict[str, Any]] = []
        while len(killed) < asked.kills:
            out = work / f"killed-{len(killed)}"
            here: list[dict[str, Any]] = []
            for _ in range(min(KILLS_A_PLAY, asked.kills - len(killed))):
                running, alone = begin(out), (len(killed) + len(here)) % 3 == 2
                try:
                    if running.wait(float(chance.uniform(2.0, 0.5 * took))) == 0:
                        break
                except subprocess.TimeoutExpired:
                    os.kill(running.pid, signal.SIGKILL) if alone else os.killpg(running.pid, signal.SIGKILL)
                    running.wait()
                    here.append({"stage": stage_of(out), "parent alone": alone})
                    print(here[-1], flush=True)
            finish(out)
            other = equal(result(out), whole)
            killed += [{**each, "other": other} for each in here]
            print(f"{len(here)} kills: {other or 'equal'}", flush=True)
    if asked.out is not None:
        command = " ".join(["python benchmarks/rounds_kills.py", *sys.argv[1:]])
        write_json(asked.out, {"command": command, "versions": versions(), "kills": killed, "parts": len(whole)})


if __name__ == "__main__":
    main()
