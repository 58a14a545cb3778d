"""Several processes that generate into one folder, one of them killed, and how they share the work.

    python benchmarks/many_writers.py [--tries 20] [--out FILE.json]

The lab's model. Every try: four processes begin at random times, the second is killed at a random one; the pictures are
compared with those of one process, bit for bit. Then two processes, whole, against one: the CPU time of the busier one,
less what loading takes. One thread each; the processes are forked after the imports.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator
from finepref.data.prompt_sets import load_prompt_set
from finepref.evaluate.generate import generate
from finepref.evaluate.score import score
from finepref.formats.manifest import LINES
from finepref.models.load import open_pipeline

FORK = multiprocessing.get_context("fork")


def pictures(folder: Path) -> dict[str, bytes]:
    """Every picture, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def make(out: Path, prompts: int, rank: int, world: int, wait: float, spent: Any) -> None:
    """One of the processes; its CPU seconds go to `spent`."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    time.sleep(wait)
    started = time.process_time()
    generate({"lab": "lab"}, load_prompt_set("lab-eval").head(prompts), [0, 1], out, steps=4, batch_size=4)
    spent.put((rank, time.process_time() - started))


def judge(out: Path, rank: int, world: int, spent: Any) -> None:
    """One of the processes that score."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    started = time.process_time()
    score(out, ["lab-reward"], batch_size=8)
    spent.put((rank, time.process_time() - started))


def load(spent: Any) -> None:
    """What every process does before it makes a picture."""
    started = time.process_time()
    open_pipeline("lab")
    spent.put((0, time.process_time() - started))


def run(*workers: tuple[Any, ...], kill: float | None = None) -> list[float]:
    """CPU seconds of processes side by side; kill: after how many seconds the second one ends."""
    spent = FORK.Queue()
    children = [FORK.Process(target=target, args=(*given, spent)) for target, *given in workers]
    for child in children:
        child.start()
    if kill is not None:
        time.sleep(kill)
        os.kill(children[1].pid or 0, signal.SIGKILL)
    for child in children:
        child.join()
    failed = [child.exitcode for place, child in enumerate(children) if child.exitcode and (kill is None or place != 1)]
    assert not failed, failed
    found = {}
    while not spent.empty():
        rank, seconds = spent.get()
        found[rank] = seconds
    return [found[rank] for rank in sorted(found)]


def killed(work: Path, attempt: int) -> bool:
    """Whether four processes, one of them killed, leave what one does."""
    chance, out = numpy_generator(attempt, "many writers"), work / f"four-{attempt}"
    waits = chance.uniform(0.0, 2.0, 4)
    workers = [(make, out, 12, rank, 4, float(wait)) for rank, wait in enumerate(waits)]
    run(*workers, kill=float(waits[1] + chance.uniform(0.5, 4.0)))
    return pictures(out) == pictures(work / "one") and (out / LINES).read_text() == (work / "one" / LINES).read_text()


def main() -> None:
    """Try, measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run((make, work / "one", 12, 0, 1, 0.0))
        equal = [killed(work, attempt) for attempt in range(asked.tries)]
        loading = run((load,))[0]
        alone = run((make, work / "alone", 60, 0, 1, 0.0))[0]
        two = run(*((make, work / "two", 60, rank, 2, 0.0) for rank in range(2)))
        (own,), (both) = run((judge, work / "alone", 0, 1)), run(*((judge, work / "two", rank, 2) for rank in range(2)))
    found = {
        "tries": asked.tries, "equal to one process": sum(equal), "loading": loading,
        "generate": {"one": alone, "two": two, "busier, of one": (max(two) - loading) / (alone - loading)},
        "score, with loading": {"one": own, "two": both, "busier, of one": max(both) / own},
    }  # fmt: skip
    print(found)
    if asked.out is not None:
        command = " ".join(["python benchmarks/many_writers.py", *sys.argv[1:]])
        write_json(asked.out, {"command": command, "versions": versions(), "rows": found})


if __name__ == "__main__":
    main()
