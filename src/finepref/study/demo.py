"""The demo: `finepref align` on votes of the embedded world, beside Diffusion-DPO. Each stage is a command on files."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finepref.align.alignment import Alignment, plan_alignment
from finepref.align.starter import Starter
from finepref.align.timed import Stage, Timing, run_stage
from finepref.core import provenance
from finepref.core.files import write_json
from finepref.core.outfolders import own_folder
from finepref.core.progress import say
from finepref.formats.comparison import read_comparison
from finepref.formats.folders import DEMO
from finepref.formats.reading import AS_IT_IS
from finepref.formats.run import is_the_base

SEEDS = "0,1,2"
BEST, PLAIN = "posterior", "dpo"  # what `align` chooses for these votes, and what it is held against
PAIRS = ((BEST, "base"), (PLAIN, "base"), (BEST, PLAIN))
TRUTH, REWARD = "lab-true", "lab-reward"
SAMPLING = ("--steps", "10", "--guidance", "3", "--batch-size", "64")


def run_demo(out: Path, *, seed: int = 0, workers: int = 0, quick: bool = False) -> list[str]:
    """Run every stage, write `summary.json`, and return the lines to print.

    Raises:
        InputError: something else stands at `out`.
        FineprefError: a stage failed.
    """
    side_by_side = workers or min(2, os.cpu_count() or 1)
    with own_folder(out, DEMO), Starter() as starter:
        timings = [run_stage(_votes(out, seed=seed, quick=quick), starter, workers=1, number="1")]
        planned = _planned(out, seed=seed, quick=quick)
        for why in planned.why:
            say(why)
        plan = _stages(out, planned, quick=quick)
        for number, stage in enumerate(plan, start=2):
            timings.append(run_stage(stage, starter, workers=side_by_side, number=f"{number}/{len(plan) + 1}"))
        summary = summarise(out, timings, seed=seed)
        write_json(out / "summary.json", summary)
    for timing in timings:
        say(f"{timing.name:>9} {timing.seconds:6.1f} s   {timing.peak_memory_mb:6.0f} MB")
    return lines(out, summary)


def _votes(out: Path, *, seed: int, quick: bool) -> Stage:
    fewer = ("--count", "120", "--prompts", "12") if quick else ()
    return Stage("votes", (("lab", "votes", "--out", str(out / "votes.parquet"), "--seed", str(seed), *fewer),))


def _planned(out: Path, *, seed: int, quick: bool) -> Alignment:
    """What `finepref align --base lab --data votes.parquet` decides."""
    return plan_alignment(
        "lab", [str(out / "votes.parquet")], out, reading=AS_IT_IS, words=(), card=None, method="auto", signal=(),
        scorers=None, judges=(TRUTH, REWARD), prompts="lab-eval", seed=seed, run=out / "runs" / BEST,
        overrides=("train.max_steps=4", "train.lr_warmup_steps=0") if quick else (),
    )  # fmt: skip


def _stages(out: Path, planned: Alignment, *, quick: bool) -> list[Stage]:
    """The stages of `align` up to its run, its baseline beside that, and the pictures of both and of the base."""
    *before, best = (tuple(words) for words in planned.before)
    asked, evaluation, runs = planned.asked, str(out / "eval"), out / "runs"
    layers = [PLAIN if layer == planned.choice.method else layer for layer in asked.layers]
    words = [*(word for layer in layers for word in ("-c", layer)), *asked.own, "signal.file=null"]
    plain = ("train", *words, "--out", str(runs / PLAIN), "--resume", "auto")
    models = ["base=lab", *(f"{name}={runs / name}" for name in (PLAIN, BEST))]
    named = [word for model in models for word in ("--model", model)]
    limit = ["--limit", "4"] if quick else []
    made = ["--prompts", str(asked.prompts), "--seeds", SEEDS, *SAMPLING, *limit, "--out", evaluation]
    judges = [word for name in asked.judges for word in ("--scorer", name)]
    after = (
        ("generate", *named, *made), ("score", evaluation, *judges), ("compare", evaluation, "--baseline", "base"),
        ("report", str(out), "--out", str(out / "report.html")),
    )  # fmt: skip
    return [
        *(Stage("rewards" if each[0] == "score" else each[0], (each,)) for each in before),
        Stage("train", (plain, best)),
        *(Stage(each[0], (each,)) for each in after),
    ]


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
    text += [f"  {name} left the base as it was" for name in (BEST, PLAIN) if is_the_base(out / "runs" / name)]
    total, memory = summary["seconds"]["total"], summary["peak_memory_mb"]
    text += ["", f"{total:.0f} s, at most {memory} MB", f"report: {(out / 'report.html').resolve().as_uri()}"]
    return text
