"""Signals of many votes: CPU time and peak memory of `finepref signals`, each kind in a process of its own.

    python benchmarks/signals_scale.py [--votes 1000000] [--kinds binary,uniform,paper,truncated,image,kto] [--work DIR]

Votes are made here as Pick-a-Pic's are: an id, a prompt of 60,000, two of ten models, names of two pictures of 600,000,
and who won, 12 % ties; no pixels. One thread each. `--out FILE.json` keeps the rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator

PROMPTS, PICTURES, MODELS = 60_000, 10, 10
NEEDS_ARENA = ("paper", "truncated", "image")
MEASURED = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    "u = resource.getrusage(resource.RUSAGE_CHILDREN); print(u.ru_utime + u.ru_stime, u.ru_maxrss / 1024)"
)


def make_votes(path: Path, votes: int) -> None:
    """Write the votes."""
    rng = numpy_generator(0, "signals scale")
    prompt = rng.integers(0, PROMPTS, votes)
    a, shift = rng.integers(0, PICTURES, votes), rng.integers(1, PICTURES, votes)
    b = (a + shift) % PICTURES
    strength = rng.normal(0, 1, MODELS)
    quality = strength[None] + rng.normal(0, 1, (PROMPTS, PICTURES))  # picture k of a prompt is by model k
    won = quality[prompt, a] - quality[prompt, b] + rng.logistic(size=votes) > 0
    label = np.where(rng.random(votes) < 0.12, 0.5, won.astype(float))
    pool = np.array([f"a picture of thing {n} in the style of painter {n % 97}, oil on canvas" for n in range(PROMPTS)])
    names = np.array([f"{n:08x}-1111-4222-8333-{n:012x}" for n in range(PROMPTS * PICTURES)])
    models = np.array([f"model-{n}" for n in range(MODELS)])
    table = {
        "ranking_id": np.arange(votes), "caption": pool[prompt], "model_0": models[a], "model_1": models[b],
        "image_0_uid": names[prompt * PICTURES + a], "image_1_uid": names[prompt * PICTURES + b],
        "label_0": label, "label_1": 1 - label, "has_label": np.ones(votes, bool),
        "pair_id": np.array([f"p{n:07d}" for n in range(votes)]),
    }  # fmt: skip
    pq.write_table(pa.table(table), path)


def measured(*words: str) -> tuple[float, float]:
    """(CPU seconds, peak MB) of a command in a process of its own."""
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "finepref", *words]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    cpu, peak = map(float, told.stdout.split()[-2:])
    return round(cpu, 2), round(peak, 1)


def main() -> None:
    """Make, measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--kinds", default="binary,uniform,paper,truncated,image,kto")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        votes = (asked.work or Path(temporary)) / f"votes-{asked.votes}.parquet"
        if not votes.is_file():
            make_votes(votes, asked.votes)
        arena = votes.with_suffix(".arena")
        if not arena.is_dir():
            measured("arena", str(votes), "--out", str(arena), "--no-gaps")
        for kind in asked.kinds.split(","):
            words = ["signals", str(votes), "--kind", kind, "--out", f"{temporary}/{kind}.parquet"]
            words += ["--arena", str(arena)] if kind in NEEDS_ARENA else []
            cpu, peak = measured(*words)
            rows[kind] = {"cpu_s": cpu, "peak_mb": peak}
            print(kind, rows[kind], flush=True)
    if asked.out is not None:
        command = " ".join(["python benchmarks/signals_scale.py", *sys.argv[1:]])
        write_json(asked.out, {"command": command, "versions": versions(), "rows": rows})


if __name__ == "__main__":
    main()
