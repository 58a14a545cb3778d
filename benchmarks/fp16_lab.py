"""Does training in fp16 give the model that float32 gives? ArenaPO on the lab, judged by the true quality.

    python benchmarks/fp16_lab.py --work fp16-lab --out benchmarks/results/2026-11-29-fp16-lab.json

Every seed has its own votes, from which lab/arenapo is trained twice with the study's settings and tuned values: in
float32 and in fp16. Both models are sampled in float32 at equal prompts and noise; what counts is the mean difference
of the true quality over seeds and prompts, which has to be within 0.03. A third run, in float32, makes as many steps as
fp16 applied: the loss scale takes some at the start, which are many in a run as short as this. Runs that are there are
not made again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finepref.core.files import read_object, write_json
from finepref.core.provenance import provenance
from finepref.formats.metrics import read_metrics
from finepref.study.claims import contrast
from finepref.study.design import Arm, Study, load_study
from finepref.study.trial import Point, Trial, judge, prepare_seed, trial_config
from finepref.train.run import train_run

ARMS = ("no", "fp16", "fewer")  # float32, fp16, float32 with the steps that fp16 applied
TUNED = Point(learning_rate=6e-5, strength=1.0)  # benchmarks/results/study/arenapo.json
BAR = 0.03


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
    found |= judge(str(out), study.evaluation, trial)
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
        applied = {"train.max_steps": half["steps"] - half["overflows"]}
        rows["fp16"]["seeds"][str(seed)] = half
        rows["no"]["seeds"][str(seed)] = trained_and_judged(study, options.work, seed, "no")
        rows["fewer"]["seeds"][str(seed)] = trained_and_judged(study, options.work, seed, "fewer", **applied)
        found, steps = contrast(rows["fp16"], rows["no"]), contrast(rows["fp16"], rows["fewer"])
        assert found is not None
        assert steps is not None
        write_json(
            options.out,
            {
                "difference": asdict(found.gain),
                "bar": BAR,
                "by_seed": found.by_seed,
                "at_equal_steps": asdict(steps.gain),
                "arms": rows,
                **provenance(config={"study": study.model_dump(mode="json"), "point": asdict(TUNED)}),
            },
        )
        for name, gain in (("float32", found.gain), ("float32 of as many steps", steps.gain)):
            print(f"up to seed {seed}: fp16 - {name} {gain.value:+.4f} [{gain.low:.4f}, {gain.high:.4f}]")


if __name__ == "__main__":
    main()
