"""Rounds on the lab, whose true quality is known: five of 840 votes against one of 4,200, with equal steps.

    python benchmarks/rounds_lab.py --work DIR --workers 1 [--first 3] [--kinds five,one,hacked]
    python benchmarks/rounds_lab.py --work DIR --report

One JSON file a run in `benchmarks/results/rounds`; what is there is not run again. five, one: simulated people vote on
pictures of the current models, and of the model `early`; every round trains STEPS steps, the single one five times as
many, without early stop, so that all pay the same. hacked: nobody learns from votes alone, a reward that can be
exploited counts too; when do the rounds end?
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from row_files import missing, run_all

ROWS = Path(__file__).parent / "results" / "rounds"
SEEDS, VOTES, STEPS = range(10), 4200, 48
PROMPTS = 126  # of those that are voted on, and of those that are judged
SHARED = ("--held-out", "lab-eval", "--prompts", "lab-train", "--judge", "lab-true", "--by", "lab", "--steps", "10")


@dataclass(frozen=True)
class Job:
    """A folder of rounds. kind: five, one or hacked."""

    kind: str
    seed: int

    @property
    def rounds(self) -> int:
        """How many at most."""
        return 1 if self.kind == "one" else 5

    @property
    def words(self) -> tuple[str, ...]:
        """What is asked for beside `SHARED`."""
        sets = ("--rounds", str(self.rounds), "--sets", str(VOTES // self.rounds), "--seed", str(self.seed))
        image_level = ("--method", "arenapo", "--signal", "image")
        scorers = ("--scorer", "lab-reward") if self.kind == "hacked" else image_level
        return (
            *SHARED,
            *sets,
            "--guidance",
            "2",
            "--images",
            "2",
            *scorers,
            "--limit",
            str(PROMPTS),
            f"train.max_steps={5 * STEPS // self.rounds}",
            "train.stop=null",
            "data.validation_share=0",
        )


def jobs(kinds: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    """Seed by seed, so that those which are there can be compared."""
    for seed in seeds:
        for kind in kinds:
            yield Job(kind, seed)


def finepref(*words: str) -> None:
    """Call a command; one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "finepref", *words], check=True, env=environment, stdout=subprocess.DEVNULL)


def run(job: Job, work: Path) -> dict[str, Any]:
    """Play the rounds; what they gained and cost."""
    from finepref.formats.rounds import read_rounds

    early, out = work / "early", work / f"{job.kind}-{job.seed}"
    finepref("rounds", "--base", "lab", "--also", f"early={early}", "--out", str(out), *job.words)
    record = read_rounds(out)
    shutil.rmtree(out)
    return {"job": asdict(job), "record": asdict(record)}


def gain(row: dict[str, Any]) -> float:
    """True quality of the result less that of the base."""
    best = row["record"]["best"]
    return 0.0 if best == 0 else float(row["record"]["rounds"][best - 1]["gains"][0]["base"])


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The table: gains, their difference by seed with a 95 % interval, and how the rounds ended."""
    from scipy import stats

    by_seed = {(row["job"]["kind"], row["job"]["seed"]): row for row in rows}
    lines = []
    for kind in ("five", "one", "hacked"):
        held = [row for (name, _), row in by_seed.items() if name == kind]
        if held:
            seconds = [sum(each["processor_seconds"] for each in row["record"]["rounds"]) for row in held]
            played = [len(row["record"]["rounds"]) for row in held]
            shown = f"gain {np.mean([gain(row) for row in held]):+.3f}, rounds {played}, {np.mean(seconds):.0f} CPU-s"
            lines.append(f"{kind}, {len(held)} seeds: {shown}")
    both = [seed for seed in SEEDS if ("five", seed) in by_seed and ("one", seed) in by_seed]
    if len(both) > 1:
        difference = np.array([gain(by_seed["five", seed]) - gain(by_seed["one", seed]) for seed in both])
        half = float(stats.t.ppf(0.975, len(both) - 1)) * difference.std(ddof=1) / np.sqrt(len(both))
        mean = difference.mean()
        lines.append(f"five less one, {len(both)} seeds: {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or show what is there."""
    import json

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first", type=int, help="only the first seeds")
    parser.add_argument("--kinds", default="five,one,hacked")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    wanted = {f"{job.kind}-{job.seed}": job for job in jobs(asked.kinds.split(","), list(SEEDS)[: asked.first])}
    if asked.report:
        there = [ROWS / f"{name}.json" for name in wanted if (ROWS / f"{name}.json").is_file()]
        print(report([json.loads(path.read_text()) for path in there]))
        return
    if not (asked.work / "early").is_dir():
        asked.work.mkdir(parents=True, exist_ok=True)
        finepref("lab", "model", "--variant", "early", "--out", str(asked.work / "early"))
    for name, row in run_all(ROWS, missing(ROWS, wanted), run, asked.work, workers=asked.workers):
        print(f"{name}: {gain(row):+.3f}, {row['record']['ended']}", flush=True)


if __name__ == "__main__":
    main()
