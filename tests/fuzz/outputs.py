"""Outputs aimed among a person's files: not one byte of theirs may change, and what is ours must still work."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from fuzz.running import Command, Step
from fuzz.world import TRAIN, copy

Draw = random.Random
FILES = (
    "README.md",
    "notes.txt",
    "report.html",
    "report.md",
    "leaderboard.csv",
    "quarantine.jsonl",
    "validation.json",
    "ratings.json",
    "gaps.parquet",
    "arena.html",
    "manifest.jsonl",
    "manifest.json",
    "scores.parquet",
    "comparison.json",
    "signals.parquet",
    "rewards.parquet",
    "pairs.parquet",
    "cache.json",
    "run.json",
    "config.yaml",
    "metrics.jsonl",
    "images/holiday.png",
    "prompts/mine.txt",
    "checkpoints/best.pt",
    "checkpoints/step-000001/x",
    "unet/config.json",
    "samples/a.png",
    ".git/HEAD",
    "finepref.json",
    "images.parquet",
    "prompts.parquet",
    "next.csv",
    "model_index.json",
)
PLACES = (
    ".",
    ".",
    "images",
    "prompts",
    "checkpoints",
    "unet",
    *FILES,
    "images/new",
    "empty",
    "empty",
    "new",
    "new/below",
)
WITH_OVERWRITE = {"arena", "signals", "data", "cache", "train", "generate", "export", "score"}


def commands(out: str, draw: Draw) -> Sequence[str]:
    """A command with an output, aimed at this place."""
    return draw.choice(
        (
            ("arena", "W/v.csv", "--out", out),
            ("arena", "W/v.csv", "--out", out, "--validate", "2"),
            ("next", "W/v.csv", "--out", out),
            ("signals", "W/votes.parquet", "--kind", "uniform", "--out", out),
            ("score", "W/votes.parquet", "--scorer", "lab-reward", "--out", out),
            ("data", "convert", "W/votes.parquet", "--out", out),
            ("data", "pair", "W/eval", "--scorer", "lab-reward", "--out", out),
            ("cache", "-c", "lab/dpo", "data.paths=[W/votes.parquet]", "--out", out),
            (
                "train",
                "-c",
                "lab/dpo",
                "--out",
                out,
                *TRAIN,
                "data.paths=[W/votes.parquet]",
                "cache.folder=c",
                "train.max_steps=1",
                "lora.rank=2",
            ),
            (
                "train",
                "-c",
                "lab/dpo",
                "--out",
                "run-new",
                *TRAIN,
                "data.paths=[W/votes.parquet]",
                f"cache.folder={out}",
                "train.max_steps=1",
                "lora.rank=2",
            ),
            ("generate", "--model", "b=lab", "--prompts", "W/prompts.txt", "--steps", "1", "--out", out),
            ("compare", "W/eval", "--baseline", "b", "--resamples", "100", "--out", out),
            ("compare", "--from-counts", "W/rates.csv", "--out", out),
            ("report", "W/arena", "--out", out),
            ("export", "W/lora", "--format", "diffusers", "--out", out),
            ("export", "W/lora", "--format", "kohya", "--out", out),
            ("lab", "model", "--out", out),
        )
    )


def person(folder: Path) -> None:
    """What a person has: files under every name that we use ourselves, and an empty folder."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'{"mine": "' + name.encode() + b'"}\n')
    (folder / "empty").mkdir()


def outputs(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A command whose output is aimed among a person's files, with and without --overwrite."""
    shutil.copytree(world / "cache", folder / "c")
    mine = folder / "mine"
    mine.mkdir()
    person(mine)
    if draw.random() < 0.1:
        (mine / "link").symlink_to(draw.choice(("nowhere", "notes.txt", "images")))
    place = draw.choice((*PLACES, "link", "link"))
    out = f"mine/{place}" if place != "." else "mine"
    if draw.random() < 0.1:
        copy(world, folder, "v.csv", "votes.parquet")
        out = draw.choice(("v.csv", "votes.parquet", "."))
    words = [word.replace("W/", f"{world}/") for word in commands(out, draw)]
    if words[0] in WITH_OVERWRITE and words[:2] != ["lab", "model"] and draw.random() < 0.5:
        words.append("--overwrite")
    if "v.csv" in out or "votes.parquet" in out or out == ".":
        words = [word.replace(f"{world}/v", "v") for word in words]
    return [Step(Command(tuple(words), out=("",), ours=("c",), resumes=True))]


def again(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A command into a new place, once more, and with --overwrite: each works."""
    shutil.copytree(world / "cache", folder / "c")
    name = draw.choice(("new", "new/below"))
    while True:
        words = [word.replace("W/", f"{world}/") for word in commands("OUT", draw)]
        if words[0] not in ("next", "compare", "report") and words[:2] != ["lab", "model"]:
            break
    file = {"signals": "s.parquet", "score": "r.parquet", "data": "c.parquet" if words[1] == "convert" else ""}.get(
        words[0], ""
    )
    out = f"{name}/{file}" if file else name
    out = f"{name}/k.safetensors" if "kohya" in words else out
    first = tuple(word.replace("OUT", out) for word in words)
    over = "--overwrite" if words[0] in WITH_OVERWRITE else ""
    if draw.random() < 0.3 and not file and "kohya" not in words:
        (folder / name).mkdir(parents=True)
    commands_ = [first, (*first, over)] if over else [first]
    return [Step(Command(each, out=("new", "run-new"), ours=("new", "run-new", "c"), expect=0)) for each in commands_]
