"""Rows of a benchmark, one JSON file a job: what is there is not run again."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

Job = TypeVar("Job")


def missing(rows: Path, jobs: Mapping[str, Job]) -> dict[str, Job]:
    """The jobs, by the names of their files, that have no row yet."""
    rows.mkdir(parents=True, exist_ok=True)
    todo = {name: job for name, job in jobs.items() if not (rows / f"{name}.json").is_file()}
    print(f"{len(todo)} of {len(jobs)} runs are to do", flush=True)
    return todo


def run_all(
    rows: Path, todo: Mapping[str, Job], run: Callable[[Job, Path], dict[str, Any]], work: Path, *, workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run jobs side by side, each in a process that starts anew; every row as it is written."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(run, job, work): name for name, job in todo.items()}
        for done in as_completed(running):
            name, row = running[done], done.result()
            (rows / f"{name}.json").write_text(json.dumps(row) + "\n", encoding="utf-8")
            yield name, row


def read_all(rows: Path) -> list[dict[str, Any]]:
    """All rows that are there."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(rows.glob("*.json"))]
