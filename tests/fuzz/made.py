"""Kinds of input that the commands wrote themselves, something of them damaged since."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from fuzz.damage import any_file, misplaced
from fuzz.running import Command, Kind, Step
from fuzz.world import TRAIN, copy

Draw = random.Random


def damaged(
    *names: str,
    among: Sequence[str],
    steps: Callable[[Draw], Sequence[Sequence[str]]],
    out: Sequence[str] = (),
    ours: Sequence[str] = (),
    resumes: bool = False,
) -> Kind:
    """Copies of these things of the world, one file of `among` (patterns) damaged, then commands on them."""

    def kind(draw: Draw, folder: Path, world: Path) -> list[Step]:
        copy(world, folder, *names)
        files = sorted(path for pattern in among for path in folder.glob(pattern) if path.is_file())
        for _ in range(draw.choice((1, 1, 1, 2))):
            path = draw.choice(files)
            if path.is_file():
                any_file(draw, path)
        if draw.random() < 0.03:
            misplaced(draw, folder / draw.choice(names))
        listed = [[word.replace("WORLD", str(world)) for word in words] for words in steps(draw)]
        return [Step(Command(tuple(words), out=out, ours=ours, resumes=resumes)) for words in listed]

    return kind


def boards(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Ratings and boards of others."""
    copy(world, folder, "v.csv", "arena", "board.csv", "votes.parquet")
    board = draw.choice(("board.csv", "arena/ratings.json"))
    any_file(draw, folder / board)
    words: tuple[str, ...] = ("arena", "v.csv", "--out", "new", "--compare-board", board)
    if draw.random() < 0.4:
        words = (
            "signals",
            "votes.parquet",
            "--kind",
            draw.choice(("paper", "truncated")),
            "--arena",
            "arena",
            "--out",
            "new",
        )
    return [Step(Command(words, out=("new",)))]


def sources_of_report(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A report of things of which one is damaged."""
    copy(world, folder, "arena", "eval", "lora")
    shutil.rmtree(folder / "lora" / "checkpoints")
    listed = [
        "arena/ratings.json",
        "eval/manifest.jsonl",
        "eval/manifest.json",
        "eval/scores.parquet",
        "eval/comparison.json",
        "lora/run.json",
        "lora/metrics.jsonl",
        "lora/config.yaml",
        "lora/timing.jsonl",
    ]
    names = [name for name in listed if (folder / name).is_file()]
    images = [str(path.relative_to(folder)) for path in sorted((folder / "eval").rglob("*.png"))]
    any_file(draw, folder / draw.choice((*names, *names, draw.choice(images))))
    inputs = draw.choice((("arena",), ("eval",), ("lora",), (".",), ("arena", "eval", "lora"), ("eval", "lora")))
    return [Step(Command(("report", *inputs, "--out", "r.html"), out=("r.html", "r.md")))]


RUNS = [
    ["export", "lora", "--format", "kohya", "--out", "k.safetensors"],
    ["export", "lora", "--format", "diffusers", "--out", "d"],
    ["report", "lora", "--out", "r.html"],
    ["generate", "--model", "n=lora", "--prompts", "prompts.txt", "--steps", "1", "--out", "e"],
]
ON_EVAL = [
    ["compare", "eval", "--baseline", "b", "--resamples", "100"],
    ["compare", "eval", "--baseline", "b", "--resamples", "100"],
    ["score", "eval", "--scorer", "lab-reward"],
    ["report", "eval", "--out", "r.html"],
    ["data", "pair", "eval", "--scorer", "lab-reward", "--out", "pairs"],
    ["generate", "--model", "b=lab", "--prompts", "prompts.txt", "--steps", "1", "--out", "eval"],
]
TRAINED = ["train", "-c", "lab/dpo", "--out", "lora", *TRAIN, "lora.rank=2", "lora.alpha=2"]
ANEW = ["train", "-c", "lab/dpo", "--out", "r", *TRAIN, "train.max_steps=1", "lora.rank=2", "lora.alpha=2"]


def checkpoints(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A run that was stopped, something of it damaged, and gone on with."""
    copy(world, folder, "votes.parquet", "cache", "lora")
    if draw.random() < 0.9:
        (folder / "lora" / "run.json").unlink()
    files = [path for path in sorted((folder / "lora").rglob("*")) if path.is_file()]
    any_file(draw, draw.choice(files))
    more = ("train.max_steps=3",) if draw.random() < 0.5 else ()
    return [Step(Command((*TRAINED, *more, "--resume"), out=("lora",), ours=("lora", "cache"), resumes=True))]


def loras(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """LoRA files as a start: a folder, or a file of another tool."""
    copy(world, folder, "votes.parquet", "cache", "kohya.safetensors", "lora/pytorch_lora_weights.safetensors")
    start = draw.choice(("lora", "lora", "lora/pytorch_lora_weights.safetensors", "kohya.safetensors"))
    any_file(draw, folder / ("lora/pytorch_lora_weights.safetensors" if start == "lora" else start))
    return [Step(Command((*ANEW, f"model.init_from={start}"), out=("r",), ours=("cache",), resumes=True))]


def weights(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A model folder, and official weights of scorers."""
    if draw.random() < 0.3:
        copy(world, folder, "kohya.safetensors")
        any_file(draw, folder / "kohya.safetensors")
        name = f"w{draw.choice(('.pt', '.bin', '.safetensors', '.ckpt'))}"
        if (folder / "kohya.safetensors").exists():
            (folder / "kohya.safetensors").rename(folder / name)
        scorer = draw.choice(("pickscore", "hpsv2.1", "aesthetic", "imagereward", "clip", "nothing"))
        return [Step(Command(("scorers", "convert", name, "--scorer", scorer, "--out", "o"), out=("o",)))]
    copy(world, folder, "base", "prompts.txt")
    files = [path for path in sorted((folder / "base").rglob("*")) if path.is_file()]
    any_file(draw, draw.choice(files))
    words = ("generate", "--model", "m=base", "--prompts", "prompts.txt", "--limit", "1", "--steps", "1", "--out", "e")
    return [Step(Command(words, out=("e",), resumes=True))]


def transcripts(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """A judge whose every answer is on disk; its file or an answer damaged. Nothing listens at its address."""
    copy(world, folder, "eval", "judge.yaml", "judge.transcripts")
    files = sorted((folder / "judge.transcripts").iterdir())
    any_file(draw, draw.choice((*files, folder / "judge.yaml")))
    if draw.random() < 0.1:
        settings = yaml.safe_load((world / "judge.yaml").read_text())
        bad = {
            "base_url": (
                "",
                "file:///etc/passwd",
                "http://",
                "ftp://a/b",
                "http://127.0.0.1:99999/v1",
                "é",
                "http://[::1",
            ),
            "number_after": ("", "x", "(a+)+$"),
            "low": (9, "nan", 1e400),
            "question": ("no place", "{prompt}{x}"),
        }
        key = draw.choice(sorted(bad))
        (folder / "judge.yaml").unlink(missing_ok=True)
        (folder / "judge.yaml").write_text(yaml.safe_dump(settings | {key: draw.choice(bad[key])}))
    words = ("score", "eval", "--scorer", "judge@judge.yaml", "--overwrite")
    return [Step(Command(words, ours=("eval/scores.parquet", "judge.transcripts"), resumes=True))]
