"""Run a study: trials in the order of importance, side by side, one thread each; every result is kept at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from finepref.core.progress import say
from finepref.study import arms as rows
from finepref.study import trial
from finepref.study.design import Study, grid
from finepref.study.trial import Point, Trial

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do: `key` names it, `needs` are keys that must be done before."""

    key: Key
    needs: frozenset[Key]


@dataclass(slots=True)
class Progress:
    """What is done, and what the tuning chose."""

    done: set[Key] = field(default_factory=set)
    points: dict[str, Point] = field(default_factory=dict)


def jobs(study: Study) -> list[Job]:
    """Everything to do, in order: a method is tuned just before the first arm that needs it."""
    found: list[Job] = []
    seeded: set[int] = set()
    tuned: set[str] = set()

    def seed_job(seed: int) -> Key:
        key = ("seed", seed)
        if seed not in seeded:
            seeded.add(seed)
            found.append(Job(key, frozenset()))
        return key

    for seed in study.seeds:
        found.append(Job(("arm", None, seed), frozenset()))
    for arm in study.arms():
        tuning = frozenset(("tune", arm.method, i) for i in range(len(grid(study.tuning, arm.method))))
        if arm.method not in tuned:
            tuned.add(arm.method)
            needs = frozenset({seed_job(study.tuning.seed)})
            found += [Job(key, needs) for key in sorted(tuning, key=str)]
        for seed in study.seeds:
            found.append(Job(("arm", arm.name, seed), tuning | {seed_job(seed)}))
    return found


def run_study(study: Study, *, out: Path, work: Path, workers: int, limit: float | None = None) -> bool:
    """Run what is not finished; True when everything is.

    Args:
        out: folder of the rows. work: votes, caches and runs; may be removed afterwards.
        workers: processes side by side, each with one thread.
        limit: seconds after which no further trial is started.

    Raises:
        InputError: a row of other settings or weights.
    """
    from finepref.models.source import locate
    from finepref.study.ground import lab_fingerprint

    world = lab_fingerprint()
    locate("lab")  # written once, before the workers ask for it
    state = Progress()
    every = jobs(study)
    todo = [job for job in every if not _finished(job, study, out, world, state)]
    needed = frozenset[Key]().union(*(job.needs for job in todo))
    todo = [job for job in todo if job.key[0] != "seed" or job.key in needed]
    say(f"{len(todo)} of {len(every)} jobs are to do, {workers} side by side")
    started, running = time.monotonic(), dict[Future[Any], Job]()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    (work / "log").mkdir(parents=True, exist_ok=True)
    total = len(todo)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(work / "log",)) as pool:
        try:
            while todo or running:
                if limit is not None and time.monotonic() - started > limit:
                    todo = []
                for job in [job for job in todo if job.needs <= state.done][: workers - len(running)]:
                    todo.remove(job)
                    running[pool.submit(_call(job, study, work, state))] = job
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    _keep(job, future.result(), study, out, world, state)
                    left = len(todo) + len(running)
                    say(f"[{time.monotonic() - started:6.0f} s, {total - left}/{total}] {_words(job, future.result())}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return all(job.key in state.done for job in every if job.key[0] != "seed")


def _start(log: Path) -> None:
    """Initialise a worker: one thread, its bars and lines into a file of its own."""
    import torch

    torch.set_num_threads(1)
    sys.stderr = open(log / f"worker-{os.getpid()}.txt", "a", encoding="utf-8", buffering=1)  # noqa: SIM115


def _call(job: Job, study: Study, work: Path, state: Progress) -> Callable[[], dict[str, Any]]:
    """What a worker does for a job."""
    if job.key[0] == "seed":
        return partial(trial.prepare_seed, study, work, job.key[1])
    return partial(trial.run_trial, study, work, _trial(job.key, study, state))


def _trial(key: Key, study: Study, state: Progress) -> Trial:
    if key[0] == "tune":
        _, method, number = key
        arm = next(arm for arm in study.arms() if arm.method == method)
        plain = arm.model_copy(update={"name": f"tune-{method}-{number}", **_PLAIN})
        return Trial(plain, study.tuning.seed, Point(*grid(study.tuning, method)[number]), "validation")
    _, name, seed = key
    if name is None:
        return Trial(None, seed, None)
    arm = next(arm for arm in study.arms() if arm.name == name)
    return Trial(arm, seed, state.points[arm.method])


_PLAIN: dict[str, Any] = {"signal": None, "options": {}, "set": {}, "strength": 1.0, "noise": 1.0, "reward": "shipped"}


def _keep(job: Job, result: dict[str, Any], study: Study, out: Path, world: str, state: Progress) -> None:
    """Write a result into its row."""
    kind, *rest = job.key
    state.done.add(job.key)
    if kind == "seed":
        return
    if kind == "tune":
        method, number = rest
        file = rows.tuning_file(out, method)
        row = rows.read_row(file, rows.tuning_identity(study, method, world))
        quality = result.get("quality")
        short = {k: v for k, v in result.items() if k not in ("quality", "reward")}
        short |= {} if quality is None else {"mean": round(sum(quality) / len(quality), 4)}
        rate, strength = grid(study.tuning, method)[number]
        entry = {"learning_rate": rate, "strength": strength, **short}
        row |= {"method": method, "grid": {**row.get("grid", {}), str(number): entry}}
        rows.write_row(file, row)
        chosen = rows.best_point(row, grid(study.tuning, method))
        if chosen is not None:
            state.points[method] = chosen
        return
    made = _trial(job.key, study, state)
    file = rows.arm_file(out, made.arm)
    row = rows.read_row(file, rows.arm_identity(study, made.arm, made.point, world))
    if made.arm is not None and made.point is not None:
        row |= {"arm": made.arm.model_dump(mode="json"), "learning_rate": made.point.learning_rate,
                "strength": made.point.strength}  # fmt: skip
    seeds = {**row.get("seeds", {}), str(made.seed): result}
    row["seeds"] = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
    rows.write_row(file, row)


def _finished(job: Job, study: Study, out: Path, world: str, state: Progress) -> bool:
    """Whether a row holds the result of a job already; fills `state`."""
    kind, *rest = job.key
    if kind == "seed":
        return job.key in state.done
    if kind == "tune":
        row = rows.read_row(rows.tuning_file(out, rest[0]), rows.tuning_identity(study, rest[0], world))
        done = str(rest[1]) in row.get("grid", {})
        chosen = rows.best_point(row, grid(study.tuning, rest[0]))
        if chosen is not None:
            state.points[rest[0]] = chosen
    else:
        name, seed = rest
        arm = next((arm for arm in study.arms() if arm.name == name), None)
        if arm is not None and arm.method not in state.points:
            return False
        point = None if arm is None else state.points[arm.method]
        row = rows.read_row(rows.arm_file(out, arm), rows.arm_identity(study, arm, point, world))
        done = str(seed) in row.get("seeds", {})
    if done:
        state.done.add(job.key)
    return done


def _words(job: Job, result: dict[str, Any]) -> str:
    """One line of log about a finished job."""
    name = " ".join(str(part) for part in job.key if part is not None)
    if "failed" in result:
        return f"{name}: {result['failed']}"
    if "quality" not in result:
        return f"{name}: {result['cpu_seconds']:.0f} s"
    seconds = result.get("train_seconds", 0) + result["judge_seconds"]
    return f"{name}: true quality {sum(result['quality']) / len(result['quality']):.3f}, {seconds:.0f} s"
