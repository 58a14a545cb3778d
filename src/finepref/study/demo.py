"""The demo: the main job on the embedded world, stage by stage, each a command on files. There is no private path."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finepref.align.timed import Stage, Timing, run_stage
from finepref.core import provenance
from finepref.core.files import write_json
from finepref.core.outfolders import own_folder
from finepref.core.progress import say
from finepref.formats.comparison import read_comparison
from finepref.formats.folders import DEMO

SEEDS = "0,1,2"
BEST = "posterior"  # the best signal of the study (docs/study.md)
PAIRS = ((BEST, "base"), ("dpo", "base"), (BEST, "dpo"))
TRUTH, REWARD = "lab-true", "lab-reward"
SAMPLING = ("--steps", "10", "--guidance", "3", "--batch-size", "64")


def stages(out: Path, *, seed: int, quick: bool) -> list[Stage]:
    """The commands of the demo, in order."""
    votes, signals, evaluation = out / "votes.parquet", out / "signals.parquet", out / "eval"
    shared = [f"data.paths=[{votes}]", f"cache.folder={out / 'cache'}", f"train.seed={seed}"]
    shared += ["train.max_steps=4", "train.lr_warmup_steps=0"] if quick else []
    best = ("-c", f"lab/{BEST}", f"signal.file={signals}", *shared)
    dpo = ("-c", "lab/dpo", *shared)
    models = ["base=lab", *(f"{name}={out / 'runs' / name}" for name in ("dpo", BEST))]
    scored = ("--arena", out / "arena", "--rewards", out / "rewards.parquet")
    fewer, limit = (["--count", "120", "--prompts", "12"], ["--limit", "4"]) if quick else ([], [])

    def one(name: str, *words: object) -> Stage:
        return Stage(name, (tuple(str(word) for word in words),))

    train = tuple(
        ("train", "--resume", "auto", *words, "--out", str(out / "runs" / name))
        for name, words in (("dpo", dpo), (BEST, best))
    )
    made = ("--prompts", "lab-eval", "--seeds", SEEDS, *SAMPLING, *limit, "--out", evaluation)
    return [
        one("votes", "lab", "votes", "--out", votes, "--seed", seed, *fewer),
        one("arena", "arena", votes, "--out", out / "arena"),
        one("rewards", "score", votes, "--scorer", REWARD, "--out", out / "rewards.parquet"),
        one("signals", "signals", votes, "--kind", BEST, *scored, "--out", signals),
        one("cache", "cache", *best),
        Stage("train", train),
        one("generate", "generate", *(word for model in models for word in ("--model", model)), *made),
        one("score", "score", evaluation, "--scorer", TRUTH, "--scorer", REWARD),
        one("compare", "compare", evaluation, "--baseline", "base"),
        one("report", "report", out, "--out", out / "report.html"),
    ]


def run_demo(out: Path, *, seed: int = 0, workers: int = 0, quick: bool = False) -> list[str]:
    """Run every stage, write `summary.json`, and return the lines to print.

    Raises:
        InputError: something else stands at `out`.
        FineprefError: a stage failed.
    """
    with own_folder(out, DEMO):
        plan = stages(out, seed=seed, quick=quick)
        side_by_side = workers or min(2, os.cpu_count() or 1)
        timings = [run_stage(stage, workers=side_by_side, number=f"{i}/{len(plan)}") for i, stage in enumerate(plan, 1)]
        summary = summarise(out, timings, seed=seed)
        write_json(out / "summary.json", summary)
    for timing in timings:
        say(f"{timing.name:>9} {timing.seconds:6.1f} s   {timing.peak_memory_mb:6.0f} MB")
    return lines(out, summary)


def summarise(out: Path, timings: list[Timing], *, seed: int) -> dict[str, Any]:
    """Win rates on true quality, true quality of every model, seconds and memory, from the files of the stages."""
    comparison = read_comparison(out / "eval")
    rates = {}
    for model, against in PAIRS:
        row = comparison.pair(model, against, TRUTH)
        interval = {"mean": row.win_rate, "low": row.win_low, "high": row.win_high}
        rates[f"{model}_vs_{against}"] = {**interval, "n": row.n, "prompts": row.prompts}
    seconds = {timing.name: round(timing.seconds, 2) for timing in timings}
    return {
        "win_rate": rates,
        "true_quality": {row.model: row.mean for row in comparison.models if row.metric == TRUTH},
        "seconds": {**seconds, "total": round(sum(seconds.values()), 2)},
        "peak_memory_mb": round(max(timing.peak_memory_mb for timing in timings)),
        "stages": [asdict(timing) for timing in timings],
        "provenance": provenance.provenance(seed=seed),
    }


def lines(out: Path, summary: dict[str, Any]) -> list[str]:
    """What the demo prints at its end."""
    text = ["", "win rate on true quality, held-out prompts (95 % interval, clustered by prompt)"]
    for name, rate in summary["win_rate"].items():
        interval = f"[{rate['low']:.1%}, {rate['high']:.1%}]"
        text.append(f"  {name.replace('_vs_', ' vs '):<18} {rate['mean']:.1%}  {interval}  n = {rate['n']}")
    total, memory = summary["seconds"]["total"], summary["peak_memory_mb"]
    text += ["", f"{total:.0f} s, at most {memory} MB", f"report: {(out / 'report.html').resolve().as_uri()}"]
    return text
