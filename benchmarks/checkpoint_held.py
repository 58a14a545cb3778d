"""How long a checkpoint holds the steps of a run: written before the next step, and beside it.

    python benchmarks/checkpoint_held.py [--parameters 2e8] [--work DIR] [--out FILE.json]

Parameters of AdamW with both of its averages, 12 bytes each, as `finepref train` writes them, onto a disk; between two
checkpoints 8 steps that multiply matrices. A step is measured too: the thread that writes takes its share of the cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.formats.run import RunIdentity
from finepref.train.checkpoint import Counters, take_checkpoint
from finepref.train.writing import writing

CHECKPOINTS, STEPS, SIZE = 3, 8, 1 << 21  # SIZE: parameters of a tensor
ABOUT = RunIdentity(settings={}, base={}, cache="", signal="")


def step(matrix: torch.Tensor) -> float:
    """Seconds of a step."""
    began = time.perf_counter()
    for _ in range(12):
        matrix = torch.tanh(matrix @ matrix)
    return time.perf_counter() - began


def run(folder: Path, parameters: int, *, beside: bool) -> dict[str, float]:
    """Median seconds that a checkpoint holds the run, and of a step after one; seconds of all."""
    named = [(f"{n}", torch.nn.Parameter(torch.zeros(1024, SIZE // 1024))) for n in range(parameters // SIZE)]
    optimizer = torch.optim.AdamW([parameter for _, parameter in named])
    for _, parameter in named:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    held, steps, matrix, began = [], [], torch.rand(1024, 1024) / 1024, time.perf_counter()
    with writing() as thread:
        for number in range(1, CHECKPOINTS + 1):
            at = time.perf_counter()
            thread.end()
            write = take_checkpoint(
                folder,
                Counters(step=number, skipped=0, calls={}),
                ABOUT,
                named=named,
                optimizer=optimizer,
                scaler=torch.amp.GradScaler("cpu", enabled=False),
                beside={},
                leaving=lambda _: lambda _: False,
                keep=1,
                copy=beside,
            )
            assert write is not None
            if beside:
                thread.begin(write, lambda: None)
            else:
                write()
            held.append(time.perf_counter() - at)
            steps += [step(matrix) for _ in range(STEPS)]
        thread.end()
    seconds = {"held_s": statistics.median(held), "step_s": statistics.median(steps)}
    return {name: round(value, 3) for name, value in {**seconds, "all_s": time.perf_counter() - began}.items()}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=float, default=2e8)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found = {}
    for name, beside in (("before the next step", False), ("beside it", True)):
        with tempfile.TemporaryDirectory(dir=asked.work) as folder:
            found[name] = run(Path(folder), int(asked.parameters), beside=beside)
        print(name, found[name], flush=True)
    if asked.out is not None:
        command = " ".join(["python benchmarks/checkpoint_held.py", *sys.argv[1:]])
        write_json(asked.out, {"command": command, "versions": versions(), **found})


if __name__ == "__main__":
    main()
