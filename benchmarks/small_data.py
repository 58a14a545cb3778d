"""Which recipe is safe with few pairs: the lab with 50 to 1,500 votes, rates, LoRA ranks, early stop on and off.

    python benchmarks/small_data.py --workers 2 --work DIR [--first 2]
    python benchmarks/small_data.py --report

One JSON file a run in `benchmarks/results/small-data`; what is there is not run again. DPO on the votes alone, a fifth
held out. Every run goes to its last step; what early stopping would have kept is read off its looks, and both steps are
judged: true quality of a picture of each of 60 prompts that no pair has, from equal noise.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from row_files import missing, read_all, run_all

ROWS = Path(__file__).parent / "results" / "small-data"
SEEDS = 5
PLANS = {50: (50, 8, 4), 150: (56, 16, 4), 500: (188, 16, 12), 1500: (281, 16, 18)}
"""Votes: steps, pairs of a step, steps between looks."""
RATES = {"full": (2e-5, 6e-5, 1.8e-4), "rank 4": (2e-4, 6e-4, 1.8e-3), "rank 16": (2e-4, 6e-4, 1.8e-3)}
LORA = {"full": None, "rank 4": 4, "rank 16": 16}


@dataclass(frozen=True)
class Job:
    """A run."""

    pairs: int
    trained: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.pairs}-{self.trained.replace(' ', '')}-{self.rate:g}-{self.seed}"


def jobs(seeds: Sequence[int]) -> Iterator[Job]:
    for seed in seeds:
        for pairs in PLANS:
            for trained, rates in RATES.items():
                for rate in rates:
                    yield Job(pairs, trained, rate, seed)


def ground(pairs: int, seed: int, work: Path) -> Path:
    """The votes of a seed, with their cache beside them."""
    import pyarrow.parquet as pq
    import torch
    from held_out_runs import pictures_of

    from finepref.lab import world
    from finepref.lab.ballots import vote_table
    from finepref.train.config import load_config
    from finepref.train.opened import make_cache
    from finepref.train.processes import World

    folder = work / f"votes-{pairs}-{seed}"
    votes = folder / "votes.parquet"
    if not (folder / "done").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        prompts = world.prompts("train")
        pq.write_table(vote_table(pictures_of(seed, work), prompts, seed=seed, votes=pairs), votes)
        config = load_config("lab/dpo", [f"data.paths=[{votes}]", f"cache.folder={folder / 'cache'}"])
        make_cache(config, folder / "cache", world=World(0, 1, torch.device("cpu")))
        (folder / "done").touch()
    return votes


def run(job: Job, work: Path) -> dict[str, Any]:
    """Train, and judge the last step and the one that early stopping would have kept."""
    import torch
    from held_out_runs import quality

    from finepref.formats.heldout import read_heldout, start_far
    from finepref.train.config import load_config
    from finepref.train.run import train_run
    from finepref.train.stop_options import StopOptions
    from finepref.train.stopping import ends, kept_of

    torch.set_num_threads(1)
    votes, (steps, batch, every) = ground(job.pairs, job.seed, work), PLANS[job.pairs]
    words = [
        f"data.paths=[{votes}]", f"cache.folder={votes.parent / 'cache'}", "data.validation_share=0.2",
        f"validation.every={every}", f"train.checkpoint_every={every}", "train.checkpoints_keep=999",
        f"train.max_steps={steps}", f"train.pairs_per_step={batch}", f"train.micro_batch={batch}",
        "train.lr_warmup_steps=5", f"train.learning_rate={job.rate}", f"train.seed={job.seed}",
        *([] if LORA[job.trained] is None else [f"lora={{rank: {LORA[job.trained]}}}"]),
    ]  # fmt: skip
    out = work / "runs" / job.name
    train_run(load_config("lab/dpo", words), out, overwrite=True)
    looks, far = read_heldout(out), start_far(out)
    over = next((n for n in range(1, len(looks)) if ends(looks[:n], far, StopOptions())), len(looks))
    kept = kept_of(looks[:over], far)
    assert kept is not None
    judged = {0: quality("lab", job.seed)}
    judged |= {step: quality(f"{out}@{step}", job.seed) for step in {kept.step, steps} - {0}}
    row = {"job": asdict(job), "kept": kept.step, "ended": looks[over - 1].step, "last": steps, "quality": judged}
    shutil.rmtree(out)
    return row


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page: per size and way of training, gains of the last and of the kept step by rate."""
    from finepref.evaluate.stats import bootstrap_means

    def gain(row: Mapping[str, Any], step: int) -> float:
        return float(np.mean(row["quality"][str(step)]) - np.mean(row["quality"]["0"]))

    lines = ["| pairs | trained | rate | seeds | last step | worst | with early stop | worst | ended at |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for pairs in PLANS:
        for trained, rates in RATES.items():
            for rate in rates:
                own = [row for row in rows if row["job"]["pairs"] == pairs and row["job"]["trained"] == trained]
                own = [row for row in own if row["job"]["rate"] == rate]
                if not own:
                    continue
                gains = np.array([[gain(row, row["last"]), gain(row, row["kept"])] for row in own])
                last, kept = bootstrap_means(gains, np.arange(len(own)))
                shown = [f"{each.value:+.2f} [{each.low:+.2f}, {each.high:+.2f}]" for each in (last, kept)]
                worst = gains.min(axis=0)
                share = np.mean([row["ended"] / row["last"] for row in own])
                lines.append(
                    f"| {pairs:,} | {trained} | {rate:g} | {len(own)} | {shown[0]} | {worst[0]:+.2f} | {shown[1]} | "
                    f"{worst[1]:+.2f} | {share:.0%} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("small-data-work"))
    parser.add_argument("--first", type=int, default=SEEDS, help="only the first seeds")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    if asked.report:
        print(report(read_all(ROWS)))
        return
    todo = missing(ROWS, {job.name: job for job in jobs(range(asked.first))})
    for pairs, seed in sorted({(job.pairs, job.seed) for job in todo.values()}):  # one process makes what is shared
        ground(pairs, seed, asked.work)
    for name, row in run_all(ROWS, todo, run, asked.work, workers=asked.workers):
        print(f"{name}: kept {row['kept']} of {row['last']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
