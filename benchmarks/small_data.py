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
PAGE = ROWS.parents[2] / "docs" / "small-data.md"
HEAD = """# Few pairs

What 50 to 1,500 votes are worth on the **[lab](index.md#words-that-recur)**, by learning rate and by what is trained.
Written by `python benchmarks/small_data.py --report` from its rows, `benchmarks/results/small-data`, one file a run.

<!-- not run: hours -->
```sh
python benchmarks/small_data.py --work small-data-work --workers 2
```

Every run is DPO on the votes alone; a fifth of them is **[held out](index.md#words-that-recur)**. It goes to its last
step: 50 steps of 8 pairs for 50 votes, 56 of 16 for 150, 188 of 16 for 500, 281 of 16 for 1,500. The gain is the true
quality of a picture of each of 60 prompts that no pair has, less that of the **[base](index.md#words-that-recur)** from
equal noise; higher is better.

*Kept* is what early stopping leaves: the step that the held-out pairs choose, or the base where they do not show
that anything was learned ([align.md](align.md#when-it-ends)). That rule costs gains where few pairs are held out: with
ten or thirty of them a real gain and chance look the same. `train.stop=null` keeps the last step.

"""
TABLE = """

Intervals are 95 %, over seeds; of one seed there is none, and no two rates can be ranked by it. The recipes
(`pairs_50` to `pairs_100000`) have not been changed after these rows.

| votes | trained | rate | seeds | last step | worst | kept | worst |
|---|---|---|---|---|---|---|---|
"""
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


def shown(gain: float) -> str:
    """With its sign; nothing gained has none."""
    return f"{gain:+.2f}" if abs(gain) >= 0.005 else "0.00"


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/small-data.md."""
    from finepref.evaluate.stats import bootstrap_means

    def gains(pairs: int, trained: str, rate: float) -> np.ndarray:
        """[n, 2] of the last step and of what is kept."""
        key = ("pairs", pairs), ("trained", trained), ("rate", rate)
        own = [row for row in rows if all(row["job"][name] == value for name, value in key)]
        base = [np.mean(row["quality"]["0"]) for row in own]
        ends = [[np.mean(row["quality"][str(row[step])]) for step in ("last", "kept")] for row in own]
        return np.array(ends).reshape(-1, 2) - np.array(base).reshape(-1, 1)

    cells = {(n, how, rate): gains(n, how, rate) for n in PLANS for how, rates in RATES.items() for rate in rates}
    found, lines = [], []
    for pairs in PLANS:
        there = {key: values for key, values in cells.items() if key[0] == pairs and len(values)}
        if not there:
            found.append(f"- {pairs:,} votes: not measured.")
            continue
        every = np.concatenate(list(there.values()))
        best = max(there, key=lambda key: there[key][:, 0].mean())
        below, kept = (every < 0).sum(axis=0), (every[:, 1] == 0).sum()
        found += [
            f"- {pairs:,} votes, {len(every)} runs: the last step is below the base in {below[0]},",
            f"  what is kept in {below[1]}; the base itself was kept in {kept}.",
            f"  The highest mean of the last step is {shown(there[best][:, 0].mean())}, {best[1]} at {best[2]:g}.",
        ]
    for (pairs, trained, rate), values in cells.items():
        if len(values):
            means = [shown(value) for value in values.mean(axis=0)]
            if len(values) > 1:
                both = bootstrap_means(values, np.arange(len(values)))
                means = [f"{shown(each.value)} [{shown(each.low)}, {shown(each.high)}]" for each in both]
            worst = [shown(value) for value in values.min(axis=0)]
            cells_of = (f"{pairs:,}", trained, f"{rate:g}", str(len(values)), means[0], worst[0], means[1], worst[1])
            lines.append(f"| {' | '.join(cells_of)} |")
    return HEAD + "\n".join(found) + TABLE + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("small-data-work"))
    parser.add_argument("--first", type=int, default=SEEDS, help="only the first seeds")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    if asked.report:
        PAGE.write_text(page(read_all(ROWS)), encoding="utf-8")
        return
    todo = missing(ROWS, {job.name: job for job in jobs(range(asked.first))})
    for pairs, seed in sorted({(job.pairs, job.seed) for job in todo.values()}):  # one process makes what is shared
        ground(pairs, seed, asked.work)
    for name, row in run_all(ROWS, todo, run, asked.work, workers=asked.workers):
        print(f"{name}: kept {row['kept']} of {row['last']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
