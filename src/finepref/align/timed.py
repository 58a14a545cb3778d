"""Run `finepref` commands as a user would, side by side where they do not wait for each other, and time them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from finepref.core.errors import FineprefError
from finepref.core.progress import BAR, say

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
ENDED = (130, 143)  # exit codes of what a signal ended


@dataclass(frozen=True, slots=True)
class Stage:
    """Commands (each the words after `finepref`) that may run side by side, under one name."""

    name: str
    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """What a stage took: wall seconds, CPU seconds, and the sum of the peaks of what ran side by side."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float


def run_stage(stage: Stage, *, workers: int, number: str) -> Timing:
    """Run a stage's commands as processes, at most `workers` at once.

    Each has its share of the cores, unless OMP_NUM_THREADS says how many: what else runs here is not known.

    Raises:
        FineprefError: a command failed; its own message is on stderr.
    """
    started = time.perf_counter()
    usages: list[tuple[float, float]] = []
    waiting = list(stage.commands)
    side_by_side = min(workers, len(waiting))
    threads = str(max(1, (os.cpu_count() or 1) // side_by_side))
    environment = dict.fromkeys(THREADS, os.environ.get(THREADS[0], threads)) | os.environ
    for words in stage.commands:
        say(f"[{number}] finepref {shlex.join(words)}")
    while waiting:
        batch, waiting = waiting[:side_by_side], waiting[side_by_side:]
        usages += _side_by_side(batch, environment)
    peaks = sorted((peak for _, peak in usages), reverse=True)[:side_by_side]
    return Timing(stage.name, time.perf_counter() - started, sum(cpu for cpu, _ in usages), sum(peaks))


def _side_by_side(batch: Sequence[tuple[str, ...]], environment: dict[str, str]) -> list[tuple[float, float]]:
    """(CPU seconds, peak MB) of every command; on a failure the others are ended."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "finepref", *words],
            env={**environment, BAR: str(i)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for i, words in enumerate(batch)
    ]

    def end() -> None:
        for process in processes:
            if process.returncode is None:
                process.terminate()

    def wait(process: subprocess.Popen[bytes]) -> tuple[float, float]:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            end()
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    with ThreadPoolExecutor(len(batch)) as pool:
        try:
            usages = list(pool.map(wait, processes))
        except BaseException:
            end()
            raise
    codes = [process.returncode for process in processes]
    for code, words in zip(codes, batch, strict=True):
        if code > 0 and code not in ENDED:
            error = FineprefError(f"the stage `finepref {shlex.join(words)}` stopped with exit code {code}")
            error.exit_code = code if code in (1, 2) else 1
            raise error
    if any(codes):
        raise FineprefError("a stage was ended by a signal", remedy="run the same command again; it goes on")
    return usages
