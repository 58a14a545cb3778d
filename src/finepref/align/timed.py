"""Run `finepref` commands as a user would, side by side where they do not wait for each other, and time them."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from finepref.align.starter import Ended, Starter
from finepref.core.errors import FineprefError
from finepref.core.progress import say

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
STOPPED = (130, 143)  # exit codes of what a signal ended


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


def run_stage(stage: Stage, starter: Starter, *, workers: int, number: str) -> Timing:
    """Run a stage's commands as processes, at most `workers` at once.

    Each has its share of the cores, unless OMP_NUM_THREADS says how many: what else runs here is not known.

    Raises:
        FineprefError: a command failed; its own message is on stderr.
    """
    began = time.perf_counter()
    found: list[Ended] = []
    waiting = list(stage.commands)
    side_by_side = min(workers, len(waiting))
    threads = str(max(1, (os.cpu_count() or 1) // side_by_side))
    variables = {name: os.environ.get(name, os.environ.get(THREADS[0], threads)) for name in THREADS}
    for words in stage.commands:
        say(f"[{number}] finepref {shlex.join(words)}")
    while waiting:
        batch, waiting = waiting[:side_by_side], waiting[side_by_side:]
        found += _checked(batch, starter.run(batch, variables))
    peaks = sorted((each.peak_mb for each in found), reverse=True)[:side_by_side]
    return Timing(stage.name, time.perf_counter() - began, sum(each.cpu_seconds for each in found), sum(peaks))


def _checked(batch: Sequence[tuple[str, ...]], found: list[Ended]) -> list[Ended]:
    """How all commands ended; the first that failed by itself is told."""
    for each, words in zip(found, batch, strict=False):
        if each.code > 0 and each.code not in STOPPED:
            error = FineprefError(f"the stage `finepref {shlex.join(words)}` stopped with exit code {each.code}")
            error.exit_code = each.code if each.code in (1, 2) else 1
            raise error
    if len(found) < len(batch) or any(each.code for each in found):
        raise FineprefError("a stage was ended by a signal", remedy="run the same command again; it goes on")
    return found
