"""Does training in fp16 give the model that float32 gives? ArenaPO on the lab, judged by the true quality.

    python benchmarks/fp16_lab.py --work fp16-lab --out benchmarks/results/2026-11-29-fp16-lab.json

Every seed has its own votes, from which lab/arenapo is trained twice with the study's settings and tuned values: in
float32 and in fp16. Both models are sampled in float32 at equal prompts and noise; what counts is the mean difference
of the true quality over seeds and prompts, which has to be within 0.03. A third run, in float32, leaves out as many
first steps as fp16 did while its loss scale fell, which are many in a run as short as this; what differs from it is
rounding. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finepref.core.files import read_object, write_json
from finepref.core.provenance import provenance
from finepref.formats.metrics import read_metrics
from finepref.study.contrasts import contrast
from finepref.study.design import Arm, Study, load_study
from finepref.study.trial import Point, Trial, judge, prepare_seed, trial_config
from finepref.train import loop
from finepref.train.run import train_run

ARMS = ("no", "fp16", "same")  # float32, fp16, float32 without the steps that fp16 left out
TUNED = Point(learning_rate=6e-5, strength=1.0)  # benchmarks/results/study/arenapo.json
BAR = 0.03


@contextmanager
def left_out(steps: int) -> Iterator[None]:
    """The first optimiser steps change nothing."""
    original = loop.make_optimizer

    def make_optimizer(*given: Any) -> Any:
        optimizer, number = original(*given), itertools.count()
        step = optimizer.step
        optimizer.step = lambda: step() if next(number) >= steps else None
        return optimizer

    loop.make_optimizer = make_optimizer
    try:
        yield
    finally:
        loop.make_optimizer = original


def trained_and_judged(study: Study, work: Path, seed: int, name: str, **own: Any) -> dict[str, Any]:
    """Qualities in prompt order, overflows and scale of one run, its CPU seconds."""
    kept = work / f"{name}-{seed}.json"
    if kept.is_file():
        return read_object(kept)
    arm = Arm(name=f"arenapo-{name}", method="arenapo", set=own)
    trial = Trial(arm, seed, TUNED)
    out, began = work / "runs" / f"{arm.name}-{seed}", time.process_time()
    train_run(trial_config(study, work, trial)[0], out, overwrite=True)
    found = {"cpu_seconds": round(time.process_time() - began, 1)}
    lines = read_metrics(out)
    found |= {"steps": len(lines), "overflows": sum(line.overflow for line in lines), "scale": lines[-1].loss_scale}
    found |= judge(str(out), None, study.evaluation, trial)
    write_json(kept, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("fp16-lab"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    options = parser.parse_args()
    study, rows = load_study(), {name: {"seeds": {}} for name in ARMS}
    for seed in options.seeds:
        prepare_seed(study, options.work, seed)
        half = trained_and_judged(study, options.work, seed, "fp16", **{"train.mixed_precision": "fp16"})
        rows["fp16"]["seeds"][str(seed)] = half
        rows["no"]["seeds"][str(seed)] = trained_and_judged(study, options.work, seed, "no")
        with left_out(half["overflows"]):
            rows["same"]["seeds"][str(seed)] = trained_and_judged(study, options.work, seed, "same")
        found, same = contrast(rows["fp16"], rows["no"]), contrast(rows["fp16"], rows["same"])
        assert found is not None
        assert same is not None
        write_json(
            options.out,
            {
                "difference": asdict(found.gain),
                "bar": BAR,
                "by_seed": found.by_seed,
                "of_equal_steps": {**asdict(same.gain), "by_seed": same.by_seed},
                "arms": rows,
                **provenance(config={"study": study.model_dump(mode="json"), "point": asdict(TUNED)}),
            },
        )
        for name, gain in (("float32", found.gain), ("float32 of the same steps", same.gain)):
            print(f"up to seed {seed}: fp16 - {name} {gain.value:+.4f} [{gain.low:.4f}, {gain.high:.4f}]")


if __name__ == "__main__":
    main()
