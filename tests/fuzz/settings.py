"""Kinds of input that are run configs: layers, values on the command line."""

from __future__ import annotations

import random
from pathlib import Path

import yaml

from fuzz.damage import any_bytes, any_json, misplaced
from fuzz.running import Command, Step
from fuzz.world import TRAIN, copy

Draw = random.Random


def layers(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Layers of a run config and values on the command line."""
    held = {
        "model": {"base": "lab"},
        "data": {"paths": ["votes.parquet"], "resolution": 32},
        "objective": {"name": "dpo", "beta": 500},
        "train": {"max_steps": 4, "learning_rate": 1e-4, "pairs_per_step": 2},
        "lora": {"rank": 4},
        "cache": {"folder": "c"},
        "trajectory": {"name": "forward"},
        "guard": {"name": "none"},
    }
    if draw.random() < 0.7:
        held = any_json(draw, held)
    try:
        content = yaml.safe_dump(held, allow_unicode=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    except (RecursionError, yaml.YAMLError):
        content = b"train: " + b"[" * 5000
    if draw.random() < 0.4:
        content = any_bytes(draw, content)
    traps = (
        b"a: &a [*a]\n",
        b"a: !!python/object/apply:os.system [ls]\n",
        b"{" * 3000,
        b"- a\n- b\n",
        b"train: {max_steps: 1e999}\n",
        b"a: &x [1,1]\nb: &y [*x,*x]\nc: [*y,*y]\n",
        b"train: 2026-01-01\n",
        b"? [1]\n: 2\n",
        b"\t\n",
        b"<<: 4\n",
        b"train:\n  max_steps: 0x10\n",
        b"1: {2: 3}\n",
        b"null: null\n",
        b"train: {max_steps: 1, max_steps: 2}\n",
    )
    if draw.random() < 0.15:
        content = draw.choice(traps)
    (folder / "own.yaml").write_bytes(content)
    if draw.random() < 0.03:
        misplaced(draw, folder / "own.yaml")
    keys = (
        "train.max_steps",
        "objective.beta",
        "objective.name",
        "signal.margin_scale",
        "data.paths",
        "train.mixed_precision",
        "lora",
        "lora.rank",
        "model.base",
        "cache.folder",
        "train",
        "trainn.max_steps",
        "",
        "a.b.c",
        "data.resolution",
    )
    values = (
        "1",
        "no",
        "1e4",
        "nan",
        ".inf",
        "-1",
        "[",
        "{a: b}",
        "null",
        "x y",
        "'",
        "1e39",
        "\u202e",
        "0",
        "[1, 2]",
        "é",
        "9" * 5000,
    )
    over = tuple(f"{draw.choice(keys)}={draw.choice(values)}" for _ in range(draw.choice((0, 0, 1, 2))))
    first = draw.choice(
        (("-c", "own.yaml"), ("-c", "lab/dpo", "-c", "own.yaml"), ("-c", "lab/arenapo"), ("-c", "sdxl/dpo"))
    )
    command = draw.choice((("config",), ("config",), ("config", "--json"), ("plan",)))
    command = ("config",) if command == ("plan",) and draw.random() < 0.8 else command
    return [Step(Command((*command, *first, "--", *over), data="--json" in command))]


def configured_training(draw: Draw, folder: Path, world: Path) -> list[Step]:
    """Options that a config accepts, in a training of one step."""
    copy(world, folder, "votes.parquet", "cache")
    values = (
        "train.learning_rate=0",
        "train.max_steps=1e0",
        "objective.beta=0",
        "objective.beta=1e300",
        "train.pairs_per_step=50",
        "train.micro_batch=3",
        "train.lr_scheduler=cosine",
        "train.lr_warmup_steps=5",
        "train.mixed_precision=no",
        "lora.rank=1",
        "signal.margin_scale=1e30",
        "train.seed=-1",
        "train.seed=99999999999999999999",
        "data.flip=true",
        "data.resolution=1",
        "data.paths=votes.parquet",
        "train.ema_decay=1",
        "objective.name=kto",
        "objective.name=mapo",
        "guard.name=sdpo",
        "train.gradient_checkpointing=true",
        "data.validation_share=0.5",
        "lora.targets=[nothing]",
        "trajectory.name=ddim_inversion",
        "train.max_grad_norm=0",
        "model.init_from=votes.parquet",
        "signal.file=votes.parquet",
        "train.optimizer=adamw8bit",
    )
    words = (
        "train",
        "-c",
        "lab/dpo",
        "--out",
        "r",
        *TRAIN,
        "train.max_steps=1",
        "lora.rank=2",
        *draw.sample(values, draw.randint(1, 3)),
    )
    return [Step(Command(words, out=("r",), ours=("cache",), resumes=True))]
