"""ArenaPO on the lab, from votes on pictures chosen by information against votes on drawn ones, at equal numbers.

    python benchmarks/chosen_votes_lab.py --work DIR [--workers 1] [--first 5]
    python benchmarks/chosen_votes_lab.py --report

One JSON file a run in `benchmarks/results/chosen-votes`; what is there is not run again. VOTES votes on pictures of six
makers for 252 prompts, by the lab's voters. chosen: `finepref collect --purpose training` asks; few: fewest-first;
drawn: every pair of a prompt equally often. Gaps are of kind image. True quality is that of 60 prompts that no pair
has, from equal noise.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from held_out_runs import RATE, STEPS, pictures_of, quality
from row_files import missing, read_all, run_all

ROWS = Path(__file__).parent / "results" / "chosen-votes"
VOTES, VOTERS = 840, 40
CHOICES = {"chosen": ("training", "information"), "few": ("order", "fewest-first"), "drawn": None}


@dataclass(frozen=True)
class Job:
    """A run: how the votes were asked for."""

    rule: str
    seed: int


def ballots_of(job: Job, work: Path) -> Any:
    """The votes of a rule and seed. Each is cast before the next is asked for."""
    from finepref.collect.choices import chooser_of
    from finepref.core import rng
    from finepref.formats.answers import Answer, PictureRow, ShownSet
    from finepref.formats.collection import CollectionRecord, StudyQuestion
    from finepref.lab import crowd, world
    from finepref.lab.ballots import Ballots, cast

    images, prompts = pictures_of(job.seed, work), world.prompts("train")
    choice = CHOICES[job.rule]
    if choice is None:
        return cast(images, prompts, seed=job.seed, votes=VOTES)
    flat = np.stack(list(images.values()), axis=1).reshape(-1, world.SIZE, world.SIZE, 3)
    judged = world.judge(flat, [prompt for prompt in prompts for _ in images])
    people, names = crowd.crowd(job.seed), tuple(images)
    about = CollectionRecord(
        mode="pair", images=2, questions=(StudyQuestion("overall", "Which?"),), sources=(), seed=job.seed,
        models=names, prompts=tuple(prompts), purpose=choice[0], choice=choice[1],
    )  # fmt: skip
    cells = [(k % len(names), k // len(names)) for k in range(len(flat))]
    chooser = chooser_of([PictureRow(k, model, prompt, "", "", 8, 8) for k, (model, prompt) in enumerate(cells)], about)
    turned = rng.numpy_generator(job.seed, "sides of chosen votes").random(VOTES) < 0.5
    pairs, voters, shares = np.zeros((VOTES, 2), np.int64), np.zeros(VOTES, np.int64), np.zeros(VOTES)
    for k in range(VOTES):
        shown = chooser.choose(1 + k % VOTERS)
        assert shown is not None
        left, right = shown[::-1] if turned[k] else shown
        one = crowd.vote(people, judged, np.array([left]), np.array([right]), seed=job.seed * VOTES + k)
        pairs[k], voters[k], shares[k] = (left, right), one[0][0], one[1][0]
        word = {1.0: "left", 0.0: "right", 0.5: "tie"}[float(one[1][0])]
        answer = Answer(k, str(k), 0, json.dumps(word), 0, 0.0, 0, 0, "", "")
        chooser.answered(answer, ShownSet(str(k), 1 + k % VOTERS, (left, right), "plain", "", 0.0, k))
    return Ballots(flat, pairs[:, 0], pairs[:, 1], voters, shares)


def run(job: Job, work: Path) -> dict[str, Any]:
    """Ask, train, and judge."""
    import torch
    from held_out_runs import _ratings

    from finepref.formats.preferences import read_preferences
    from finepref.formats.signals import write_signals
    from finepref.lab import makers, world
    from finepref.lab.ballots import ballot_table
    from finepref.signals.make import signals_of, vote_table
    from finepref.train.config import load_config
    from finepref.train.opened import make_cache
    from finepref.train.processes import World
    from finepref.train.run import train_run

    torch.set_num_threads(1)
    folder = work / f"{job.rule}-{job.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    votes, signals = folder / "votes.parquet", folder / "signals.parquet"
    names = [maker.name for maker in makers.MAKERS]
    pq.write_table(ballot_table(ballots_of(job, work), names, world.prompts("train"), seed=job.seed), votes)
    table = vote_table(read_preferences([votes]), named_images=True)
    made = signals_of(table, ["image"], ratings=_ratings(table, "batch"))
    write_signals(signals, made, provenance={"made": "benchmarks/chosen_votes_lab.py", "kind": "image"})
    words = [f"data.paths=[{votes}]", f"cache.folder={folder / 'cache'}"]
    make_cache(load_config("lab/dpo", words), folder / "cache", world=World(0, 1, torch.device("cpu")))
    words += [
        f"train.max_steps={STEPS}", "train.pairs_per_step=16", "train.micro_batch=16", "train.lr_warmup_steps=5",
        f"train.learning_rate={RATE}", f"train.seed={job.seed}", f"signal.file={signals}",
    ]  # fmt: skip
    train_run(load_config("lab/arenapo", words), folder / "run")
    row = {"job": asdict(job), "before": quality("lab", job.seed), "after": quality(str(folder / "run"), job.seed)}
    shutil.rmtree(folder)
    return row


def report(rows: list[dict[str, Any]]) -> str:
    """Gains, and their differences by seed with a 95 % interval (Student's)."""
    from scipy import stats

    gains = {(row["job"]["rule"], row["job"]["seed"]): np.mean(row["after"]) - np.mean(row["before"]) for row in rows}
    lines = []
    for rule in CHOICES:
        own = [gain for (name, _), gain in gains.items() if name == rule]
        lines.append(f"{rule}: {np.mean(own):+.3f} over {len(own)} seeds" if own else f"{rule}: not measured")
    for rule in ("chosen", "few"):
        seeds = [seed for name, seed in gains if name == rule and ("drawn", seed) in gains]
        if len(seeds) > 1:
            less = np.array([gains[rule, seed] - gains["drawn", seed] for seed in seeds])
            half = float(stats.t.ppf(0.975, len(seeds) - 1)) * less.std(ddof=1) / np.sqrt(len(seeds))
            lines.append(
                f"{rule} less drawn: {less.mean():+.3f} [{less.mean() - half:+.3f}, {less.mean() + half:+.3f}]"
            )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or show what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("chosen-work"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first", type=int, default=5, help="only the first seeds")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    if asked.report:
        print(report(read_all(ROWS)))
        return
    jobs = {f"{rule}-{seed}": Job(rule, seed) for seed in range(asked.first) for rule in CHOICES}
    asked.work.mkdir(parents=True, exist_ok=True)
    for name, row in run_all(ROWS, missing(ROWS, jobs), run, asked.work, workers=asked.workers):
        print(f"{name}: {np.mean(row['after']) - np.mean(row['before']):+.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
