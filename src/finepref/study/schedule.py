"""Run a study: trials in the order of importance, side by side, one thread each; every result is kept at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from finepref.core.outfolders import own_files, own_folder, remove_files
from finepref.core.progress import say
from finepref.formats.folders import STUDY, WORK
from finepref.study import arms as rows
from finepref.study import trial
from finepref.study.claims import seeds_wanted, tuned_means
from finepref.study.contrasts import read_rows
from finepref.study.design import Study, grid
from finepref.study.trial import Point, Trial

Key = tuple[Any, ...]


@dataclass(slots=True)
class JobProgress:
    """What is done, and what the tuning chose."""

    done: set[Key] = field(default_factory=set)
    points: dict[str, Point] = field(default_factory=dict)


def jobs(study: Study, wanted: Mapping[str, int]) -> dict[Key, frozenset[Key]]:
    """Everything to do, in order, with what must be done before: look after look, and in each arm after arm.

    Keys: ("seed", seed), ("tune", name of the grid, number of its point), ("arm", name or None for the base, seed).

    Args:
        wanted: arm -> number of seeds (`finepref.study.claims.seeds_wanted`).
    """
    found: dict[Key, frozenset[Key]] = {}
    looks = study.looks or [len(study.seeds)]
    most = max(wanted.values(), default=0)
    for number, arm in ((number, arm) for number in looks for arm in (None, *study.arms())):
        seeds = study.seeds[: min(number, most if arm is None else wanted[arm.name])]
        if arm is None:
            found |= {("arm", None, seed): frozenset() for seed in seeds}
            continue
        tuning = [("tune", arm.tuned_as, i) for i in range(len(grid(study.tuning, arm.method)))]
        ground: Key = ("seed", study.tuning.seed)
        found.setdefault(ground, frozenset())
        for key in sorted(tuning, key=str):
            found.setdefault(key, frozenset({ground}))
        for seed in seeds:
            found.setdefault(("seed", seed), frozenset())
            found["arm", arm.name, seed] = frozenset({*tuning, ("seed", seed)})
    return found


def run_study(
    study: Study, *, out: Path, work: Path, workers: int, limit: float | None = None, overwrite: bool = False
) -> bool:
    """Run what is not finished; True when everything is.

    Args:
        out: folder of the rows. work: votes, caches and runs; may be removed afterwards.
        workers: processes side by side, each with one thread.
        limit: seconds after which no further trial is started. overwrite: remove the rows and start again.

    Raises:
        InputError: a row of other settings or weights.
    """
    with own_folder(out, STUDY), own_folder(work, WORK):
        if overwrite:
            remove_files(out, [name for name in own_files(out, STUDY.own) if rows.is_row(out / name)])
        return _run(study, out=out, work=work, workers=workers, limit=limit)


def _run(study: Study, *, out: Path, work: Path, workers: int, limit: float | None) -> bool:
    from finepref.models.source import locate
    from finepref.study.ground import lab_fingerprint

    world = lab_fingerprint()
    locate("lab")  # written once, before the workers ask for it
    state = JobProgress()
    started = time.monotonic()
    while True:
        tuned = tuned_means(study, out, world=world)
        every = jobs(study, seeds_wanted(study, read_rows(out, study, world=world), tuned))
        todo = [key for key in every if not _finished(key, study, out, world, state)]
        needed = frozenset[Key]().union(*(every[key] for key in todo))
        todo = [key for key in todo if key[0] != "seed" or key in needed]
        say(f"{len(todo)} of {len(every)} jobs are to do, {workers} side by side")
        if not todo:
            return True
        left = None if limit is None else limit - (time.monotonic() - started)
        if not _work(todo, every, study, out=out, work=work, workers=workers, limit=left, world=world, state=state):
            return False


def _work(
    todo: list[Key], every: Mapping[Key, frozenset[Key]], study: Study, *,
    out: Path, work: Path, workers: int, limit: float | None, world: str, state: JobProgress,
) -> bool:  # fmt: skip
    """Do jobs side by side, each when what it needs is done; whether all were."""
    started, running = time.monotonic(), dict[Future[Any], Key]()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    (work / "log").mkdir(parents=True, exist_ok=True)
    total = len(todo)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(work / "log",)) as pool:
        try:
            while todo or running:
                if limit is not None and time.monotonic() - started > limit:
                    todo = []
                for key in [key for key in todo if every[key] <= state.done][: workers - len(running)]:
                    todo.remove(key)
                    running[pool.submit(_call(key, study, work, state))] = key
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(future)
                    _keep(key, future.result(), study, out, world, state)
                    left = len(todo) + len(running)
                    say(f"[{time.monotonic() - started:6.0f} s, {total - left}/{total}] {_words(key, future.result())}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return all(key in state.done for key in every if key[0] != "seed")


def _start(log: Path) -> None:
    """Initialise a worker: one thread, its bars and lines into a file of its own."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    sys.stderr = open(log / f"worker-{os.getpid()}.txt", "a", encoding="utf-8", buffering=1)  # noqa: SIM115


def _leave_with(parent: int) -> None:
    """End this worker when the process that started it is gone, however that ended: nobody takes its results."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(key: Key, study: Study, work: Path, state: JobProgress) -> Callable[[], dict[str, Any]]:
    """What a worker does for a job."""
    if key[0] == "seed":
        return partial(trial.prepare_seed, study, work, key[1])
    return partial(trial.run_trial, study, work, _trial(key, study, state))


def _trial(key: Key, study: Study, state: JobProgress) -> Trial:
    kind, name, number = key
    if kind == "tune":
        arm = study.tuned()[name]
        point = Point(*grid(study.tuning, arm.method)[number])
        return Trial(arm.model_copy(update={"name": f"tune-{name}-{number}"}), study.tuning.seed, point, "validation")
    found = next((arm for arm in study.arms() if arm.name == name), None)
    return Trial(found, number, None if found is None else state.points[found.tuned_as])


def _row(key: Key, study: Study, out: Path, world: str, state: JobProgress) -> tuple[Path, dict[str, Any]]:
    """(file, content) of the row that holds a job's result."""
    if key[0] == "tune":
        file = rows.tuning_file(out, key[1])
        return file, rows.read_row(file, rows.tuning_identity(study, study.tuned()[key[1]], world))
    made = _trial(key, study, state)
    file = rows.arm_file(out, made.arm)
    return file, rows.read_row(file, rows.arm_identity(study, made.arm, made.point, world))


def _choose(name: str, row: dict[str, Any], study: Study, state: JobProgress) -> None:
    """Take the tuned values of a grid where its row is complete."""
    chosen = rows.best_point(row, grid(study.tuning, study.tuned()[name].method))
    if chosen is not None:
        state.points[name] = chosen


def _keep(key: Key, result: dict[str, Any], study: Study, out: Path, world: str, state: JobProgress) -> None:
    """Write a result into its row."""
    state.done.add(key)
    if key[0] == "seed":
        return
    file, row = _row(key, study, out, world, state)
    if key[0] == "tune":
        _, name, number = key
        quality = result.get("quality")
        short = {k: v for k, v in result.items() if k not in ("quality", "reward")}
        short |= {} if quality is None else {"mean": round(sum(quality) / len(quality), 4)}
        rate, strength = grid(study.tuning, study.tuned()[name].method)[number]
        entry = {"learning_rate": rate, "strength": strength, **short}
        row |= {"method": name, "grid": {**row.get("grid", {}), str(number): entry}}
    else:
        made = _trial(key, study, state)
        if made.arm is not None and made.point is not None:
            row |= {"arm": made.arm.model_dump(mode="json"), **asdict(made.point)}
        seeds = {**row.get("seeds", {}), str(made.seed): result}
        row["seeds"] = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
    rows.write_row(file, row)
    if key[0] == "tune":
        _choose(key[1], row, study, state)


def _finished(key: Key, study: Study, out: Path, world: str, state: JobProgress) -> bool:
    """Whether a row holds the result of a job already; fills `state`."""
    kind, name, number = key if len(key) == 3 else (*key, None)
    whose = next((arm.tuned_as for arm in study.arms() if arm.name == name), None)
    if kind == "seed" or (kind == "arm" and whose is not None and whose not in state.points):
        return False
    _, row = _row(key, study, out, world, state)
    if kind == "tune":
        _choose(name, row, study, state)
    done = str(number) in row.get("grid" if kind == "tune" else "seeds", {})
    if done:
        state.done.add(key)
    return done


def _words(key: Key, result: dict[str, Any]) -> str:
    """One line of log about a finished job."""
    name = " ".join(str(part) for part in key if part is not None)
    if "failed" in result:
        return f"{name}: {result['failed']}"
    if "quality" not in result:
        return f"{name}: {result['cpu_seconds']:.0f} s"
    seconds = result.get("train_seconds", 0) + result["judge_seconds"]
    return f"{name}: true quality {sum(result['quality']) / len(result['quality']):.3f}, {seconds:.0f} s"
