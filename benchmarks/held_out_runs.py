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
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from row_files import missing, run_all

ROWS = Path(__file__).parent / "results" / "held-out"
RATE, STEPS, PROMPTS = 6e-5, 96, 60
FEW, MANY = (300, 0.2, 6, 8), (900, 0.33, 24, 4)
"""Votes, share of them held out, steps between looks, draws of a look: for early stopping, and for verdicts."""


@dataclass(frozen=True)
class Job:
    """A run. factor: of the rate. words: overrides. signal: how the sidecar is made. judged: all looks, or the ends.

    size: votes, share held out, steps between looks, draws of a look.
    """

    name: str
    seed: int
    method: str = "posterior"
    signal: str = "posterior"
    factor: float = 1.0
    judged: str = "ends"
    words: tuple[str, ...] = field(default=())
    size: tuple[int, float, int, int] = FEW


def early(seeds: Sequence[int]) -> Iterator[Job]:
    for seed in seeds:
        for method in ("dpo", "posterior"):
            for factor in (1.0, 3.0, 10.0):
                yield Job(f"early-{method}-{factor:g}", seed, method, method, factor, "looks")


def verdicts(seeds: Sequence[int]) -> Iterator[Job]:
    for seed in seeds:
        yield Job("healthy", seed, size=MANY)
        yield Job("rate-10", seed, factor=10.0, size=MANY)
        yield Job("lambda-3", seed, "arenapo", "paper", words=("signal.margin_scale=3",), size=MANY)
        yield Job("wrong-reward", seed, "reward_soft", "wrong", size=MANY)
        yield Job("permuted", seed, signal="permuted", method="dpo", size=MANY)


SETS = {"early": (early, range(10)), "verdicts": (verdicts, (*range(10), *range(100, 120)))}


def pictures_of(seed: int, work: Path) -> dict[str, Any]:
    """Maker -> pictures of the lab's prompts for training; drawn once a seed, and kept beside the runs."""
    from finepref.lab import makers, model, world

    kept = work / f"pictures-{seed}.npz"
    if not kept.is_file():
        pipelines = {variant: model.pipeline(variant) for variant in sorted({maker.variant for maker in makers.MAKERS})}
        np.savez(kept, **makers.make_images(pipelines, world.prompts("train"), seed=seed, makers=makers.MAKERS))
    with np.load(kept) as held:
        return {maker.name: held[maker.name] for maker in makers.MAKERS}


def ground(job: Job, work: Path) -> tuple[Path, Path | None]:
    """(votes, signals) of a seed."""
    import torch

    from finepref.core import rng
    from finepref.evaluate.scored_pairs import score_preferences
    from finepref.formats.preferences import read_preferences
    from finepref.formats.rewards import read_rewards
    from finepref.formats.signals import write_signals
    from finepref.lab import world
    from finepref.lab.ballots import vote_table as lab_votes
    from finepref.plan.methods import get
    from finepref.signals.make import signals_of, vote_table
    from finepref.train.config import load_config
    from finepref.train.opened import make_cache
    from finepref.train.processes import World

    permuted, count = job.signal == "permuted", job.size[0]
    folder = work / (f"seed-{job.seed}-{count}" + ("-permuted" if permuted else ""))
    votes, rewards = folder / "votes.parquet", folder / "rewards.parquet"
    if not votes.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        if permuted:
            plain, _ = ground(replace(job, signal="dpo"), work)
            shutil.copy2(plain, folder / "turned.parquet")
            _permute(folder / "turned.parquet", rng.numpy_generator(job.seed, "permuted winners"))
            (folder / "turned.parquet").rename(votes)
        else:
            images = pictures_of(job.seed, work)
            pq.write_table(lab_votes(images, world.prompts("train"), seed=job.seed, votes=count), votes)
    prefs = read_preferences([votes])
    if not rewards.is_file():
        score_preferences(prefs, ["lab-reward"], rewards, inputs=[votes])
    if not (folder / "cache").is_dir():
        config = load_config("lab/dpo", [f"data.paths=[{votes}]", f"cache.folder={folder / 'cache'}"])
        make_cache(config, folder / "cache", world=World(0, 1, torch.device("cpu")))
    if job.signal in ("dpo", "permuted"):
        return votes, None
    out = folder / f"signals-{job.signal}.parquet"
    if out.is_file():
        return votes, out
    table = vote_table(prefs, named_images=True)
    held = read_rewards(rewards, table.pair_id)
    chance = rng.numpy_generator(job.seed, "held-out runs")
    if job.signal == "posterior":
        made = signals_of(table, ["posterior"], ratings=_ratings(table, "batch"), rewards=held)
    elif job.signal == "paper":
        made = signals_of(table, ["paper"], ratings=_ratings(table, "online"))
    else:
        scores = chance.permutation(np.concatenate([held.score_0, held.score_1]))
        dealt = type(held)(scores[: len(table.label)], scores[len(table.label) :], "wrong reward", "w")
        made = signals_of(table, list(get("reward_soft").about.signal), rewards=dealt)
    write_signals(out, made, provenance={"made": "benchmarks/held_out_runs.py", "kind": job.signal})
    return votes, out


def _permute(votes: Path, chance: np.random.Generator) -> None:
    """Give every vote that decided the winner of a coin: the people's own votes say nothing."""
    table = pq.read_table(votes)
    labels = [table[name].to_numpy().copy() for name in ("label_0", "label_1")]
    turned = (chance.random(len(table)) < 0.5) & (labels[0] != labels[1])
    new = [np.where(turned, labels[1 - side], labels[side]) for side in (0, 1)]
    uid = [table[name].to_numpy(zero_copy_only=False) for name in ("image_0_uid", "image_1_uid")]
    best = table["best_image_uid"].to_numpy(zero_copy_only=False)
    other = np.where(best == uid[0], uid[1], uid[0])
    columns = {"label_0": new[0], "label_1": new[1], "best_image_uid": np.where(turned, other, best)}
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, votes)


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

    from finepref.formats.heldout import read_heldout, read_signal_share, start_far
    from finepref.train.config import load_config
    from finepref.train.run import train_run

    torch.set_num_threads(1)
    (votes, signals), (_, share, every, draws) = ground(job, work), job.size
    words = [
        f"data.paths=[{votes}]", f"cache.folder={votes.parent / 'cache'}", f"data.validation_share={share}",
        f"validation.every={every}", f"validation.draws={draws}", f"train.checkpoint_every={every}",
        "train.checkpoints_keep=99",
        f"train.max_steps={STEPS}", "train.pairs_per_step=16", "train.micro_batch=16", "train.lr_warmup_steps=5",
        f"train.learning_rate={RATE * job.factor}", f"train.seed={job.seed}",
        *([] if signals is None else [f"signal.file={signals}"]), *job.words,
    ]  # fmt: skip
    out = work / "runs" / f"{job.name}-{job.seed}"
    train_run(load_config(f"lab/{job.method}", words), out, overwrite=True)
    steps = range(every, STEPS + 1, every) if job.judged == "looks" else [STEPS]
    found = {0: quality("lab", job.seed)} | {step: quality(f"{out}@{step}", job.seed) for step in steps}
    looks = [asdict(line) for line in read_heldout(out)]
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "loss", "implicit_accuracy", "u", "sigmoid_minus_u", "A_w", "A_l", "grad_norm")
    signal, far = read_signal_share(out), start_far(out)
    shutil.rmtree(out)
    return {
        "job": asdict(job), "quality": found, "looks": looks,
        "signal": None if signal is None else asdict(signal), "start_far": far,
        "steps": [{name: line.get(name) for name in kept} for line in metrics],
    }  # fmt: skip


def report_early(rows: Sequence[Mapping[str, Any]]) -> str:
    """How far the kept step is below the best one, which is chosen on half of the prompts and judged on the other."""
    from finepref.formats.heldout import REMEDY, HeldOutMetrics
    from finepref.formats.records import as_record
    from finepref.train.stop_options import StopOptions
    from finepref.train.stopping import ends, kept_of

    table: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        lines = [as_record(HeldOutMetrics, line, where="row", remedy=REMEDY) for line in row["looks"]]
        over = next((n for n in range(1, len(lines)) if ends(lines[:n], row["start_far"], StopOptions())), len(lines))
        best = kept_of(lines[:over], row["start_far"])
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


RIGHT = {
    "healthy": "it learned, and nothing is wrong", "rate-10": "displaced", "lambda-3": "margins out of reach",
    "wrong-reward": "misled", "permuted": "no preference, or too few pairs to tell",
}  # fmt: skip


def report_verdicts(rows: Sequence[Mapping[str, Any]]) -> str:
    """How often the findings name what is known of the runs, and which findings there were."""
    lines = ["run, seeds: named right (what that is); all findings"]
    for name, right in RIGHT.items():
        kinds = [_kinds(row) for row in rows if row["job"]["name"] == name]
        named = sum(_is_right(name, each) for each in kinds)
        count = Counter(kind for each in kinds for kind in each)
        shown = ", ".join(f"{kind} {n}" for kind, n in count.most_common())
        lines.append(f"{name:14} {len(kinds):3}: {named:3} ({right}); {shown}")
    return "\n".join(lines)


def _kinds(row: Mapping[str, Any]) -> set[str]:
    from finepref.core.interval import Interval
    from finepref.formats.heldout import REMEDY, HeldOutMetrics
    from finepref.formats.metrics import StepMetrics
    from finepref.formats.records import as_record
    from finepref.train.diagnose import judge

    looks = [as_record(HeldOutMetrics, line, where="row", remedy=REMEDY) for line in row["looks"]]
    told = [{name: value for name, value in line.items() if value is not None} for line in row["steps"]]
    steps = [StepMetrics(step=line["step"], means=line, pairs=0, by_t=(), grad_norm=0, lr=0) for line in told]
    signal = None if row["signal"] is None else Interval(**row["signal"])
    return {found.kind for found in judge(looks, steps, kept=None, signal=signal, far=row["start_far"])}


def _is_right(name: str, kinds: set[str]) -> bool:
    sound = kinds <= {"learned", "learning"}
    found = {"rate-10": "displaced", "lambda-3": "overasked", "wrong-reward": "misled"}
    return sound if name == "healthy" else found[name] in kinds if name in found else bool(kinds & {"none", "few"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=[*SETS])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("held-out-work"))
    parser.add_argument("--first", type=int, help="only the first seeds")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    make, seeds = SETS[asked.which]
    jobs = {f"{job.name}-{job.seed}": job for job in make(list(seeds)[: asked.first])}
    if asked.report:
        there = [ROWS / f"{name}.json" for name in jobs if (ROWS / f"{name}.json").is_file()]
        rows = [json.loads(path.read_text()) for path in there]
        print(report_early(rows) if asked.which == "early" else report_verdicts(rows))
        return
    todo = missing(ROWS, jobs)
    for job in {(job.seed, job.signal): job for job in todo.values()}.values():  # one process makes what is shared
        ground(job, asked.work)
    for name, row in run_all(ROWS, todo, run, asked.work, workers=asked.workers):
        ends = [float(np.mean(row["quality"][step])) for step in (0, STEPS)]
        print(f"{name}: true quality {ends[0]:.3f} -> {ends[1]:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
