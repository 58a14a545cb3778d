"""The whole `finepref arena` command on many models: CPU seconds, peak memory and the size of the page.

    OMP_NUM_THREADS=1 python benchmarks/many_models.py [--models 3000] [--votes 60000] [--out FILE.json]

Votes are made up (seeded): models with ratings around 25 meet at random, one vote in ten is a tie. The command runs in
a process of its own, whose use the operating system counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from finepref.arena.ratings import BETA
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator

BARS = {"cpu_seconds": 60.0, "peak_mb": 1000.0, "page_mb": 5.0}  # for 3,000 models and 60,000 votes


def write_votes(path: Path, models: int, votes: int) -> None:
    """A csv of votes: left, right, winner."""
    rng = numpy_generator(0, "many models")
    mu = rng.normal(25.0, 4.0, models)
    left = rng.integers(0, models, votes)
    right = (left + rng.integers(1, models, votes)) % models
    lead = mu[left] - mu[right] + np.sqrt(2.0) * BETA * rng.normal(size=votes)
    word = np.where(np.abs(lead) < 0.75, "tie", np.where(lead > 0, "left", "right"))
    rows = (f"model {a},model {b},{w}\n" for a, b, w in zip(left.tolist(), right.tolist(), word.tolist(), strict=True))
    path.write_text("left,right,winner\n" + "".join(rows), encoding="utf-8")


def measure(models: int, votes: int) -> dict[str, float]:
    """What one run of the command uses, and how large its files are."""
    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder) / "votes.csv", Path(folder) / "arena"
        write_votes(table, models, votes)
        command = [sys.executable, "-m", "finepref", "arena", str(table), "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        sizes = {f"{file.name} MB": file.stat().st_size / 1e6 for file in sorted(out.iterdir())}
        return {
            "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024,
            "page_mb": sizes["arena.html MB"], **sizes,
        }  # fmt: skip


def main() -> int:
    """Run; exit 1 if a bar fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=3000)
    parser.add_argument("--votes", type=int, default=60_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(options.models, options.votes)
    print("| what | measured | bar |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.3f} | {BARS.get(name, '')} |")
    if options.out is not None:
        command = " ".join(["python benchmarks/many_models.py", *sys.argv[1:]])
        write_json(options.out, {"command": command, "versions": versions(), "bars": BARS, "measured": found})
    return int(any(found[name] > bar for name, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main())
