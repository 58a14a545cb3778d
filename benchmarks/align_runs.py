"""`finepref align` on 300 pairs of the lab whose true quality is known, as a person calls it: a folder and one command.

    python benchmarks/align_runs.py --workers 2 --work DIR [--kinds plain,permuted] [--first 5]
    python benchmarks/align_runs.py --report

One JSON file a run in `benchmarks/results/align`; what is there is not run again. The folder holds PNG files and
votes.csv. True quality is that of a picture of each of 60 prompts that no pair has, from equal noise, of what the run
left and of the base. Kinds: plain; permuted (winners by a coin); wide (the pictures of half of the prompts on wider or
higher canvases of their background); a method each; and fast, ten times the learning rate without early stop.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from row_files import missing, read_all, run_all

if TYPE_CHECKING:
    from finepref.formats.comparison import Comparison

ROWS = Path(__file__).parent / "results" / "align"
PAIRS, VOTERS, SEEDS = 300, 5, 20
KINDS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "permuted": (),
    "wide": (),
    "dpo": ("--method", "dpo"),
    "arenapo": ("--method", "arenapo"),
    "image": ("--method", "arenapo", "--signal", "image"),
    "smpo": ("--method", "smpo", "--scorer", "lab-reward"),
    "kto": ("--method", "kto"),
    "shares": ("--signal", "shares"),
    "fast": ("train.learning_rate=6e-4", "train.stop=null"),
}
CANVASES = ((32, 32), (32, 32), (48, 32), (32, 48))  # width, height
NAMED = ("arenapo", "image")  # kinds whose table says which model made a picture


def make_folder(folder: Path, kind: str, seed: int) -> None:
    """PNG files and votes.csv of a seed; the pictures are the same for all kinds but wide, and kept beside it."""
    from held_out_runs import pictures_of

    from finepref.core import rng
    from finepref.lab import crowd, world
    from finepref.lab.ballots import cast

    prompts = world.prompts("train")
    images = pictures_of(seed, folder.parent.parent)
    ballots = cast(images, prompts, seed=seed, votes=PAIRS)
    names, chance = list(images), rng.numpy_generator(seed, "align runs", kind)
    share = ballots.share
    if kind == "shares":
        judged = world.judge(ballots.images, [prompt for prompt in prompts for _ in names])
        several = [seed * VOTERS + voter for voter in range(VOTERS)]
        people = (crowd.vote(crowd.crowd(s), judged, ballots.left, ballots.right, seed=s)[1] for s in several)
        share = np.mean(list(people), axis=0)
    if kind == "permuted":
        share = np.where(chance.random(PAIRS) < 0.5, 1 - share, share)
    shapes = chance.integers(len(CANVASES), size=len(prompts)) if kind == "wide" else np.zeros(len(prompts), int)
    folder.mkdir()
    for number in sorted({*ballots.left, *ballots.right}):
        size = CANVASES[shapes[number // len(names)]]
        on_canvas(ballots.images[number], size).save(folder / f"{number:05d}.png")
    words = {1.0: "left", 0.0: "right", 0.5: "tie"}
    with (folder / "votes.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        last = "left_share" if kind == "shares" else "winner"
        table.writerow(["prompt", "left_image", "right_image", last, *(["left", "right"] if kind in NAMED else [])])
        for left, right, value in zip(ballots.left, ballots.right, share, strict=True):
            said = f"{value:.3f}" if kind == "shares" else words[float(value)]
            made = [names[image % len(names)] for image in (left, right)] if kind in NAMED else []
            table.writerow([prompts[left // len(names)], f"{left:05d}.png", f"{right:05d}.png", said, *made])


def on_canvas(picture: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The picture in the middle of a canvas (width, height) of the colour of its upper left corner."""
    image = Image.fromarray(picture)
    canvas = Image.new("RGB", size, tuple(int(value) for value in picture[0, 0]))
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


def run(job: tuple[str, int], work: Path) -> dict[str, Any]:
    """One command; what it says and what is true. job: kind and seed."""
    import torch
    from held_out_runs import quality

    from finepref.formats.comparison import COMPARISON, read_comparison
    from finepref.formats.heldout import look_of, read_heldout, start_far
    from finepref.formats.run import read_run
    from finepref.train.diagnose import diagnose, evidence

    torch.set_num_threads(1)
    kind, seed = job
    place = work / f"{kind}-{seed}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    make_folder(place / "mine", kind, seed)
    words = ["align", "--base", "lab", "--data", "mine", "--out", "out", "--seed", str(seed), *KINDS[kind]]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        [sys.executable, "-m", "finepref", *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise RuntimeError(f"{kind}-{seed}: {told.stderr[-1000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = place / "out" / "run"
    record, looks, drawn = read_run(out), read_heldout(out), place / "out" / "eval"
    compared = read_comparison(drawn) if (drawn / COMPARISON).is_file() else None
    row = {
        "kind": kind, "seed": seed, "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "findings": [found.kind for found in diagnose(out)], "steps": record.steps, "kept": record.kept,
        "accuracy": look_of(looks, record.kept).accuracy.value, "method": record.method,
        "looks": [asdict(look) for look in looks], "start_far": start_far(out), "evidence": evidence(looks),
        "diversity": None if compared is None else diversity(compared),
        "before": quality("lab", seed), "after": quality(str(out), seed),
    }  # fmt: skip
    shutil.rmtree(place)
    return row


def diversity(compared: Comparison) -> dict[str, float | None]:
    """Diversity within a prompt before, and what it became more, with the limits of a 95 % interval."""
    (row,) = (each for each in compared.pairs_of(model="after") if each.metric == "lab-diversity")
    before = next(each.mean for each in compared.models if (each.model, each.metric) == ("before", row.metric))
    more = {"more": row.mean_difference, "low": row.difference_low, "high": row.difference_high}
    return {"before": before, **more}


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """Gains of true quality, runs below the base, findings, cost."""
    from finepref.evaluate.stats import bootstrap_means

    lines = ["kind, seeds: mean gain of true quality [95 % over seeds]; worse than the base beyond its interval; "]
    lines[0] += "kept the base; findings; CPU-s mean and most"
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind]
        if not own:
            continue
        gains = np.array([[a - b for a, b in zip(row["after"], row["before"], strict=True)] for row in own])
        (mean,) = bootstrap_means(gains.mean(1)[:, None], np.arange(len(own)))
        worse = sum(next(iter(bootstrap_means(gain[:, None], np.arange(gains.shape[1])))).high < 0 for gain in gains)
        count = Counter(found for row in own for found in row["findings"])
        shown = ", ".join(f"{found} {n}" for found, n in count.most_common())
        seconds = [row["cpu_seconds"] for row in own]
        lines.append(
            f"{kind:9} {len(own):3}: {mean.value:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}]; {worse}; "
            f"{sum(row['kept'] == 0 for row in own)}; {shown}; {np.mean(seconds):.0f}, {max(seconds):.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--first", type=int, default=SEEDS, help="only the first seeds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("align-work"))
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    if asked.report:
        print(report(read_all(ROWS)))
        return
    jobs = {f"{kind}-{seed}": (kind, seed) for kind in asked.kinds.split(",") for seed in range(asked.first)}
    for name, row in run_all(ROWS, missing(ROWS, jobs), run, asked.work, workers=asked.workers):
        gain = np.mean(row["after"]) - np.mean(row["before"])
        print(f"{name}: {gain:+.3f}, {row['findings']}, {row['cpu_seconds']:.0f} CPU-s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
