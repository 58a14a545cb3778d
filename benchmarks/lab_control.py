"""Is the demo honest? Three training seeds of ArenaPO, DPO, and ArenaPO on permuted winners, against the base.

    python benchmarks/lab_control.py demo --out benchmarks/results/2026-11-21-lab-control.json

DEMO is a folder that `finepref demo` left (votes, arena, signals, cache). A control that is trained on winners
that were drawn by a coin must not beat the base: the lower bound of its win rate on true quality has to stay below one
half.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from finepref.align.timed import Stage, run_stage
from finepref.core import provenance, rng
from finepref.core.files import parquet_meta, read_parquet, write_json, write_parquet
from finepref.formats.comparison import read_comparison
from finepref.study.demo import SAMPLING, TRUTH

ARMS = ("arenapo", "dpo", "permuted")


def permute(source: Path, target: Path, *, seed: int) -> None:
    """A copy of the signals in which a fair coin says who won; margins stay those of the side that now wins."""
    table = read_parquet(source)
    winner = (rng.numpy_generator(seed, "permuted winners").random(len(table)) < 0.5).astype(np.int8)
    index = table.schema.get_field_index("winner")
    meta = parquet_meta(source)
    meta["kinds"] = [*meta["kinds"], "permuted winners"]
    write_parquet(target, table.set_column(index, table.schema.field(index), pa.array(winner)), meta)


def words(demo: Path, work: Path, arm: str, seed: int) -> tuple[str, ...]:
    """The training command of an arm."""
    shared = [f"data.paths=[{demo / 'votes.parquet'}]", f"cache.folder={demo / 'cache'}", f"train.seed={seed}"]
    signals = demo / "signals.parquet"
    if arm.startswith("permuted"):
        signals = work / f"permuted-{seed}.parquet"
        permute(demo / "signals.parquet", signals, seed=seed)
    shared.append(f"signal.file={signals}")
    if arm == "dpo":
        shared.append("signal.margin_scale=0")
    return ("train", "--resume", "auto", "-c", "lab/arenapo", *shared, "--out", str(work / "runs" / f"{arm}-{seed}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("lab-control"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, default=100, help="evaluation prompts, each with three seeds")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    runs = [(arm, seed) for seed in options.seeds for arm in ARMS]
    commands = tuple(words(options.demo, options.work, arm, seed) for arm, seed in runs)
    run_stage(Stage("train", commands), workers=options.workers, number="1/4")
    evaluation = options.work / "eval"
    models = ["--model", "base=lab"]
    for arm, seed in runs:
        models += ["--model", f"{arm}-{seed}={options.work / 'runs' / f'{arm}-{seed}'}"]
    generate = (
        "generate",
        *models,
        "--prompts",
        "lab-eval",
        "--seeds",
        "0,1,2",
        *SAMPLING,
        "--limit",
        str(options.limit),
        "--out",
        str(evaluation),
    )
    for number, command in enumerate(
        (generate, ("score", str(evaluation), "--scorer", TRUTH), ("compare", str(evaluation), "--baseline", "base")), 2
    ):
        run_stage(Stage(command[0], (command,)), workers=1, number=f"{number}/4")

    comparison = read_comparison(evaluation)
    rows = []
    for arm, seed in runs:
        row = asdict(comparison.pair(f"{arm}-{seed}", "base", TRUTH))
        keys = (
            "win_rate",
            "win_low",
            "win_high",
            "mean_difference",
            "difference_low",
            "difference_high",
            "n",
            "prompts",
        )
        rows.append({"arm": arm, "seed": seed, **{key: row[key] for key in keys}})
        print(f"{arm:<18} seed {seed}   {row['win_rate']:.3f} [{row['win_low']:.3f}, {row['win_high']:.3f}]")
    controls = [row for row in rows if row["arm"].startswith("permuted")]
    passed = all(row["win_low"] < 0.5 for row in controls)
    print("control passed" if passed else "CONTROL FAILED: a model trained on random winners beats the base")
    record = provenance.provenance(inputs=[options.demo / "votes.parquet"])
    write_json(options.out, {"rows": rows, "control_passed": passed, **record})


if __name__ == "__main__":
    main()
