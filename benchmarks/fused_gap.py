"""What a reward adds to votes: R2 of the gaps on human scores and on the lab, and what a million votes cost.

    python benchmarks/fused_gap.py [--data FOLDER] [--out benchmarks/results/NAME.json]

AGIQA-3K: pairs of a prompt's images, won by the higher score of one kind; the other score is an imperfect reward. The
lab: votes of its crowd, the reward that it ships, its true quality as truth. R2 over the best constant margin as in
docs/arena.md. A control deals the reward to other images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from arena_real import SEEDS, SHARED, all_pairs, load, r2_over_constant, votes_of

from finepref import Votes, gaps, rate
from finepref.arena.fused import fused_prior
from finepref.core.files import write_json
from finepref.core.provenance import versions
from finepref.core.rng import numpy_generator
from finepref.formats.rewards import read_rewards
from finepref.lab import world
from finepref.study.design import Data
from finepref.study.ground import make_ground, read_ground

PAIRS = (1, 2, 3, 5, None)
PROTOTYPE = {"quality": (0.50, 0.60, 0.61, 0.63, 0.79), "alignment": (0.57, 0.64, 0.66, 0.67, 0.77)}
KINDS = ("paper", "truncated", "image", "fused", "dealt")
LAB, MOST_CPU = 0.60, 15.0


def measure(votes: Votes, truth: np.ndarray, score: np.ndarray, *, seed: int) -> dict[str, float]:
    """R2 by kind, and what the coefficients are. truth: [K] of the images. score: [K]."""
    ratings, (left, right) = rate(votes), votes.images
    gain, decided = votes.outcome * (truth[left] - truth[right]), votes.outcome != 0
    dealt = numpy_generator(seed, "dealt reward").permutation(score)
    found: dict[str, float] = {}
    for kind in KINDS:
        rewards: dict[str, Any] = {}
        if kind in ("fused", "dealt"):
            held = score if kind == "fused" else dealt
            prior = fused_prior(votes, ratings, {"reward": (held[left], held[right])})
            rewards = {"rewards": prior}
            found[f"b of {kind}"], found[f"error of {kind}"] = prior.coefficient["reward"], prior.error["reward"]
        values = gaps(votes, ratings, kind="fused" if rewards else kind, **rewards)
        found[kind] = r2_over_constant(values[decided], gain[decided])
    return found


def averaged(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}


def on_people(folder: Path) -> dict[str, Any]:
    """Of both kinds of score and every number of pairs a prompt."""
    tables: dict[str, Any] = {}
    for name, score, other in (("quality", "mos_quality", "mos_align"), ("alignment", "mos_align", "mos_quality")):
        images = load(folder / "agiqa3k.csv", "prompt_id", "generator", [score, other])
        truth, reward = images.scores
        for most in PAIRS:
            runs = []
            for seed in range(1 if most is None else SEEDS):
                left, right = all_pairs(images, most, seed)
                runs.append(measure(votes_of(images, truth, left, right), truth, reward, seed=seed))
            tables.setdefault(name, {})[str(most or "all")] = averaged(runs)
    return tables


def on_the_lab() -> dict[str, float]:
    runs = []
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            make_ground(Path(folder), seed=seed, data=Data())
            ground = read_ground(Path(folder))
            scored = read_rewards(Path(folder) / "rewards.parquet", ground.table.pair_id)
        votes = Votes.from_columns(
            left=list(ground.table.model_0), right=list(ground.table.model_1), outcome=ground.table.label,
            left_image=list(ground.table.image_0), right_image=list(ground.table.image_1),
        )  # fmt: skip
        truth = world.judge(ground.images, ground.prompts).quality
        by_code = [np.zeros(votes.image_count) for _ in range(2)]
        for codes, numbers, side in zip(
            votes.images, (ground.left, ground.right), (scored.score_0, scored.score_1), strict=True
        ):
            by_code[0][codes], by_code[1][codes] = truth[numbers], side
        runs.append(measure(votes, *by_code, seed=seed))
    return averaged(runs)


def of_a_million() -> float:
    """CPU-seconds of kind fused on 1e6 votes about 600,000 images of 60,000 prompts, ratings given."""
    rng, prompts = numpy_generator(0, "a million votes"), 60_000
    model = rng.integers(0, 13, prompts * 10)
    quality = rng.normal(size=13)[model] * 0.5 + rng.normal(size=len(model)) * 0.5
    reward = quality + rng.normal(size=len(model)) * 0.5
    prompt, a = rng.integers(0, prompts, 1_000_000), rng.integers(0, 10, 1_000_000)
    left, right = prompt * 10 + a, prompt * 10 + (a + rng.integers(1, 10, len(a))) % 10
    outcome = np.sign(quality[left] - quality[right] + rng.normal(size=len(a)) * 0.7).astype(np.int8)
    votes = Votes(
        tuple(map(str, range(13))),
        model[left],
        model[right],
        outcome,
        left_image=left,
        right_image=right,
        prompt=prompt,
    )
    ratings, began = rate(votes), time.process_time()
    gaps(votes, ratings, kind="fused", rewards={"reward": (reward[left], reward[right])})
    return time.process_time() - began


def main() -> int:
    """Run; exit 1 if a bar fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    people, lab, seconds = on_people(options.data), on_the_lab(), of_a_million()
    print("| data | pairs a prompt | " + " | ".join(KINDS) + " | b | b dealt |\n|" + "---|" * (len(KINDS) + 4))
    failed = []
    for name, rows in {**people, "lab": {"all": lab}}.items():
        for at, (most, row) in enumerate(rows.items()):
            cells = " | ".join(f"{row[kind]:.3f}" for kind in KINDS)
            shown = " | ".join(f"{row[f'b of {kind}']:.3f} +- {row[f'error of {kind}']:.3f}" for kind in KINDS[-2:])
            print(f"| {name} | {most} | {cells} | {shown} |")
            least = LAB if name == "lab" else PROTOTYPE[name][at] - 0.01
            if row["fused"] < least:
                failed.append(f"{name}, {most}: {row['fused']:.3f} is below {least:.2f}")
            if abs(row["dealt"] - row["image"]) > 0.01:
                failed.append(f"{name}, {most}: a dealt reward changes R2 by {row['dealt'] - row['image']:+.3f}")
            if abs(row["b of dealt"]) > 2 * row["error of dealt"]:
                failed.append(f"{name}, {most}: a dealt reward has b {row['b of dealt']:.3f}")
    print(f"a million votes: {seconds:.1f} CPU-seconds")
    if seconds > MOST_CPU:
        failed.append(f"a million votes take more than {MOST_CPU} CPU-seconds")
    for line in failed:
        print("FAIL", line)
    if options.out is not None:
        command = " ".join(["python benchmarks/fused_gap.py", *sys.argv[1:]])
        record = {"command": command, "versions": versions(), "agiqa": people, "lab": lab, "million_cpu_s": seconds}
        write_json(options.out, {**record, "failed": failed})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
