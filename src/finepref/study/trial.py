"""One trial: an arm with a seed, trained through the front door, sampled on held-out prompts, and judged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from finepref.core.errors import CheckFailed
from finepref.core.files import parquet_meta
from finepref.core.outfolders import MARKER, own_files, remove_files
from finepref.core.progress import say
from finepref.data.prompt_sets import load_prompt_set
from finepref.diffusion.path import scaled_linear
from finepref.diffusion.programme import mean_calls
from finepref.diffusion.trajectory_options import InversionOptions
from finepref.evaluate.named_models import as_source
from finepref.evaluate.sampling import Sampling, prepare
from finepref.evaluate.scorers.scorer_rows import make
from finepref.formats.folders import RUN
from finepref.formats.run import read_run
from finepref.models.load import open_pipeline
from finepref.study.design import Arm, HeldOut, Study, strength_option
from finepref.study.ground import make_ground, signal_file
from finepref.train.config import RunConfig, load_config
from finepref.train.method import Method, images_of_draw, make_method
from finepref.train.run import train_run

FORWARDS = {"policy": 3, "reference": 1, "inversion": 1, "anchor": 1}
"""What a network call costs: a forward with its backward counts as three, one without gradient as one."""


@dataclass(frozen=True, slots=True)
class Point:
    """Tuned values: learning rate, and factor of the method's strength in its lab config."""

    learning_rate: float
    strength: float


@dataclass(frozen=True, slots=True)
class Trial:
    """An arm (None: the base model), a seed, values, and which prompts judge it (`evaluation` or `validation`)."""

    arm: Arm | None
    seed: int
    point: Point | None
    prompts: str = "evaluation"


def ground_folder(work: Path, seed: int) -> Path:
    """Where the votes of a seed are."""
    return work / f"seed-{seed}"


def prepare_seed(study: Study, work: Path, seed: int) -> dict[str, Any]:
    """Votes, cache and rewards of a seed."""
    began = time.process_time()
    make_ground(ground_folder(work, seed), seed=seed, data=study.data)
    return {"cpu_seconds": round(time.process_time() - began, 1)}


def run_trial(study: Study, work: Path, trial: Trial) -> dict[str, Any]:
    """Train and judge; `{"failed": reason}` where the training broke off."""
    if trial.arm is None:
        return judge("lab", None, study.evaluation, trial)
    config, extra = trial_config(study, work, trial)
    out = work / "runs" / f"{trial.arm.name}-{trial.seed}-{trial.prompts}"
    began = time.process_time()
    try:
        train_run(config, out, overwrite=True)
    except CheckFailed as error:
        say(str(error))
        return {"failed": str(error)}
    trained = time.process_time() - began
    record = read_run(out)
    away = config.signal.swap
    counts = {name: record.network_calls[name] or 0 for name in FORWARDS}
    found = {
        "steps": record.steps,
        "rows": record.pairs,
        "calls": counts,
        "cost": spent(counts),
        "beta": config.objective.options(),
        **extra,
        "train_seconds": round(trained, 1),
        **judge("lab" if away else str(out), str(out) if away else None, study.evaluation, trial),
    }
    remove_files(out, [*own_files(out, RUN.own), MARKER])
    return found


def trial_config(study: Study, work: Path, trial: Trial) -> tuple[RunConfig, dict[str, Any]]:
    """The run config of a trial, and what its signal file says of itself."""
    arm, point, training = trial.arm, trial.point, study.training
    assert arm is not None
    assert point is not None
    folder = ground_folder(work, trial.seed)
    signals = signal_file(folder, arm, seed=trial.seed, reward_steps=study.data.reward_steps)
    own = [f"{key}={value}" for key, value in arm.set.items()]
    fixed = [
        "data.paths=[]", f"cache.folder={folder / 'cache'}", f"signal.file={signals}", f"train.seed={trial.seed}",
        f"train.pairs_per_step={training.pairs_per_step}", f"train.micro_batch={training.micro_batch}",
        f"train.learning_rate={point.learning_rate}", "train.checkpoint_every=0",
    ]  # fmt: skip
    option = strength_option(arm.method)
    name = f"lab/{arm.method}"
    config = load_config(name, [*fixed, *own])
    method = make_method(config)
    images = images_of_draw(config, method.objective.needs)
    steps = steps_for(training.cost, method, per_step=training.pairs_per_step, images=images)
    fixed += [f"train.max_steps={steps}", f"train.lr_warmup_steps={max(1, round(training.warmup * steps))}"]
    if option is not None:
        value = method.options[option] * point.strength * arm.strength
        fixed.append(f"objective.{option}={value}")
    about = parquet_meta(signals)
    return load_config(name, [*fixed, *own]), {"agreement": about["provenance"]["agreement"], "pairs": about["pairs"]}


def spent(calls: Mapping[str, int]) -> int:
    """Cost of the network calls that a run has counted (images per network)."""
    return sum(FORWARDS[name] * count for name, count in calls.items())


def per_row(method: Method, *, images: int | None = None) -> float:
    """Expected cost of one draw, over uniform t. images: of a draw; None for a pair's two, or one without loser.

    images * (3 policy + 1 reference) + 2 * (mean number of inversion calls) * (2 with guidance, else 1) / share
    """
    needs = method.objective.needs
    images = images or (2 if needs.paired and needs.loser else 1)
    cost = images * (FORWARDS["policy"] + (FORWARDS["reference"] if method.reference != "none" else 0))
    options = method.inversion
    if options is None:
        return float(cost)
    return cost + 2 * options.passes * FORWARDS["inversion"] * inversion_calls(options) / options.share


def steps_for(budget: int, method: Method, *, per_step: int, images: int | None = None) -> int:
    """Optimiser steps that the budget pays for, at least one."""
    return max(1, round(budget / (per_step * per_row(method, images=images))))


@lru_cache(maxsize=64)
def inversion_calls(options: InversionOptions) -> float:
    """Mean number of calls of one image's trajectory over the levels that are drawn, on the lab's path."""
    return mean_calls(options, scaled_linear())


def judged_prompts(evaluation: HeldOut, which: str) -> Sequence[str]:
    """The first held-out prompts for evaluation, the last ones for validation."""
    held_out = load_prompt_set("lab-eval").prompts
    return held_out[-evaluation.validation_prompts :] if which == "validation" else held_out[: evaluation.prompts]


def judge(model: str, negative: str | None, evaluation: HeldOut, trial: Trial) -> dict[str, Any]:
    """Sample one image a prompt and score it: true quality and the shipped reward, a list in prompt order.

    negative: a run trained on losers, which the model is guided away from.
    """
    began = time.process_time()
    prompts = judged_prompts(evaluation, trial.prompts)
    away = None if negative is None else as_source(negative)
    sampling = Sampling(steps=evaluation.steps, guidance=evaluation.guidance, negative=away)
    sampler = prepare(open_pipeline(model), sampling)
    images: list[Any] = []
    for start in range(0, len(prompts), evaluation.batch):
        rows = range(start, min(start + evaluation.batch, len(prompts)))
        images += sampler.sample([prompts[row] for row in rows], [(row, trial.seed) for row in rows])
    scores = {
        name: [round(float(value), 4) for value in np.asarray(make(scorer).score(images, prompts))]
        for name, scorer in (("quality", "lab-true"), ("reward", "lab-reward"))
    }
    return {**scores, "judge_seconds": round(time.process_time() - began, 1)}
