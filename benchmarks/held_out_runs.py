"""What held-out pairs say of runs on the lab whose true quality is known: rows for early stopping and for verdicts.

    python benchmarks/held_out_runs.py early --workers 2       # rates 1, 3, 10; every look is judged
    python benchmarks/held_out_runs.py verdicts --workers 2    # healthy runs, and runs with known faults
    python benchmarks/held_out_runs.py early --report          # the table, from the rows that are there

One JSON file a run in `benchmarks/results/held-out`; what is there is not run again. A run is trained through the front
door (`train_run`), one thread each. True quality is that of 60 held-out prompts of the lab, from equal noise.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROWS = Path(__file__).parent / "results" / "held-out"
RATE, STEPS, EVERY, PAIRS = 6e-5, 96, 6, 300
PROMPTS = 60


@dataclass(frozen=True)
class Job:
    """A run. factor: of the rate. words: overrides. signal: how the sidecar is made. judged: all looks, or the ends."""

    name: str
    seed: int
    method: str = "posterior"
    signal: str = "posterior"
    factor: float = 1.0
    judged: str = "ends"
    words: tuple[str, ...] = field(default=())


def early(seeds: Sequence[int]) -> Iterator[Job]:
    for seed in seeds:
        for method in ("dpo", "posterior"):
            for factor in (1.0, 3.0, 10.0):
                yield Job(f"early-{method}-{factor:g}", seed, method, method, factor, "looks")


def verdicts(seeds: Sequence[int]) -> Iterator[Job]:
    for seed in seeds:
        yield Job("healthy", seed)
        yield Job("rate-10", seed, factor=10.0)
        yield Job("lambda-3", seed, "arenapo", "paper", words=("signal.margin_scale=3",))
        yield Job("wrong-reward", seed, "reward_soft", "wrong")
        yield Job("permuted", seed, "dpo", "permuted")


SETS = {"early": (early, range(10)), "verdicts": (verdicts, (*range(10), *range(100, 120)))}


def ground(job: Job, work: Path) -> tuple[Path, Path | None]:
    """(votes, signals) of a seed."""
    from finepref.core import rng
    from finepref.evaluate.scored_pairs import score_preferences
    from finepref.formats.preferences import read_preferences
    from finepref.formats.rewards import read_rewards
    from finepref.formats.signals import write_signals
    from finepref.lab import world
    from finepref.lab.ballots import make_votes
    from finepref.plan.methods import get
    from finepref.signals.make import signals_of, vote_table

    folder = work / f"seed-{job.seed}"
    votes, rewards = folder / "votes.parquet", folder / "rewards.parquet"
    if not votes.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        make_votes(votes, seed=job.seed, votes=PAIRS, prompts=world.prompts("train"))
    prefs = read_preferences([votes])
    if not rewards.is_file():
        score_preferences(prefs, ["lab-reward"], rewards, inputs=[votes])
    if job.signal == "dpo":
        return votes, None
    out = folder / f"signals-{job.signal}.parquet"
    table = vote_table(prefs, named_images=True)
    held = read_rewards(rewards, table.pair_id)
    chance = rng.numpy_generator(job.seed, "held-out runs")
    if job.signal == "posterior":
        made = signals_of(table, ["posterior"], ratings=_ratings(table, "batch"), rewards=held)
    elif job.signal == "paper":
        made = signals_of(table, ["paper"], ratings=_ratings(table, "online"))
    elif job.signal == "wrong":
        scores = chance.permutation(np.concatenate([held.score_0, held.score_1]))
        dealt = type(held)(scores[: len(table.label)], scores[len(table.label) :], "wrong reward", "w")
        made = signals_of(table, list(get("reward_soft").about.signal), rewards=dealt)
    else:
        made = signals_of(table, ["binary"])
        made = type(made)(**{**_columns(made), "winner": chance.integers(0, 2, len(made)).astype(np.int8)})
    write_signals(out, made, provenance={"made": "benchmarks/held_out_runs.py", "kind": job.signal})
    return votes, out


def _columns(signals: Any) -> dict[str, Any]:
    return {name: getattr(signals, name) for name in signals.__slots__}


def _ratings(table: Any, engine: str) -> Any:
    from finepref.arena.engines import rate
    from finepref.formats.votes import Votes

    votes = Votes.from_columns(
        left=list(table.model_0), right=list(table.model_1), outcome=table.label,
        left_image=list(table.image_0), right_image=list(table.image_1),
    )  # fmt: skip
    return rate(votes, engine=engine)


def quality(model: str, seed: int) -> list[float]:
    """True quality of a picture of every prompt."""
    from finepref.data.prompt_sets import load_prompt_set
    from finepref.evaluate.sampling import Sampling, prepare
    from finepref.evaluate.scorers.scorer_rows import make
    from finepref.models.load import open_pipeline

    prompts = list(load_prompt_set("lab-eval").prompts)[:PROMPTS]
    sampler = prepare(open_pipeline(model), Sampling(steps=10, guidance=2.0))
    images = sampler.sample(prompts, [(row, seed) for row in range(len(prompts))])
    return [round(float(value), 4) for value in np.asarray(make("lab-true").score(images, prompts))]


def run(job: Job, work: Path) -> dict[str, Any]:
    """Train and judge."""
    import torch

    from finepref.formats.heldout import read_heldout
    from finepref.train.config import load_config
    from finepref.train.run import train_run

    torch.set_num_threads(1)
    votes, signals = ground(job, work)
    words = [
        f"data.paths=[{votes}]", f"cache.folder={votes.parent / 'cache'}", "data.validation_share=0.2",
        f"validation.every={EVERY}", f"train.checkpoint_every={EVERY}", "train.checkpoints_keep=99",
        f"train.max_steps={STEPS}", "train.pairs_per_step=16", "train.micro_batch=16", "train.lr_warmup_steps=5",
        f"train.learning_rate={RATE * job.factor}", f"train.seed={job.seed}",
        *([] if signals is None else [f"signal.file={signals}"]), *job.words,
    ]  # fmt: skip
    out = work / "runs" / f"{job.name}-{job.seed}"
    train_run(load_config(f"lab/{job.method}", words), out, overwrite=True)
    steps = range(EVERY, STEPS + 1, EVERY) if job.judged == "looks" else [STEPS]
    found = {0: quality("lab", job.seed)} | {step: quality(f"{out}@{step}", job.seed) for step in steps}
    looks = [asdict(line) for line in read_heldout(out)]
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "loss", "implicit_accuracy", "u", "A_w", "A_l", "grad_norm")
    shutil.rmtree(out)
    return {
        "job": asdict(job), "quality": found, "looks": looks,
        "steps": [{name: line.get(name) for name in kept} for line in metrics],
    }  # fmt: skip


def report_early(rows: Sequence[Mapping[str, Any]]) -> str:
    """How far the kept step is below the best one, which is chosen on half of the prompts and judged on the other."""
    from finepref.formats.heldout import REMEDY, HeldOutMetrics
    from finepref.formats.records import as_record
    from finepref.train.stopping import best_of

    table: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        lines = [as_record(HeldOutMetrics, line, where="row", remedy=REMEDY) for line in row["looks"]]
        best = best_of(lines)
        assert best is not None
        held = {int(step): np.array(values) for step, values in row["quality"].items()}
        for half in (0, 1):
            chosen, judged = ({s: v[side::2].mean() for s, v in held.items()} for side in (half, 1 - half))
            top = judged[max(chosen, key=lambda step: chosen[step])]
            table.setdefault(row["job"]["name"], []).append((top - judged[best.step], top - judged[max(judged)]))
    lines = ["run, seeds: best step less kept step, best step less last step"]
    for name, values in sorted(table.items()):
        kept, last = np.array(values).T
        error = kept.reshape(-1, 2).mean(1).std(ddof=1) / np.sqrt(len(kept) / 2) if len(kept) > 2 else float("nan")
        shown = f"{kept.mean():+.3f} (standard error {error:.3f}), {last.mean():+.3f}"
        lines.append(f"{name:22} {len(values) // 2:3}: {shown}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=[*SETS])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("held-out-work"))
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    make, seeds = SETS[asked.which]
    jobs = {f"{job.name}-{job.seed}": job for job in make(list(seeds))}
    ROWS.mkdir(parents=True, exist_ok=True)
    if asked.report:
        print(
            report_early(
                [json.loads((ROWS / f"{name}.json").read_text()) for name in jobs if (ROWS / f"{name}.json").is_file()]
            )
        )
        return
    todo = {name: job for name, job in jobs.items() if not (ROWS / f"{name}.json").is_file()}
    print(f"{len(todo)} of {len(jobs)} runs are to do", flush=True)
    for seed in sorted({job.seed for job in todo.values()}):  # votes, rewards and caches are made by one process
        ground(next(job for job in todo.values() if job.seed == seed), asked.work)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.workers, mp_context=context) as pool:
        running = {pool.submit(run, job, asked.work): name for name, job in todo.items()}
        for done in as_completed(running):
            name, row = running[done], done.result()
            (ROWS / f"{name}.json").write_text(json.dumps(row) + "\n", encoding="utf-8")
            ends = [float(np.mean(row["quality"][step])) for step in (0, STEPS)]
            print(f"{name}: true quality {ends[0]:.3f} -> {ends[1]:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
