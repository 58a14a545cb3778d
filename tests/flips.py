"""Everything that finepref writes and reads numbers from, made small, and what happens when one byte of it flips."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import own_pairs
import tiny
from finepref.core.errors import InputError
from finepref.core.known import refuse_damaged
from finepref.data.latents import LatentCache
from finepref.data.shards import write_shard
from finepref.formats import frozenfolder, rewards, signals
from finepref.formats.preferences import read_preferences, write_pairs
from finepref.formats.run import read_run
from finepref.models.export import export
from finepref.models.load import load_pipeline
from finepref.train.checkpoint import checkpoints, newest_whole, read_state
from finepref.train.config import parse_config
from finepref.train.frozen import ERRORS, open_frozen
from finepref.train.run import train_run

LOGS = ("metrics.jsonl", "timing.jsonl", "quarantine.jsonl")
"""What says how a run went; nothing is computed from it."""


@dataclass(frozen=True)
class Written:
    """Files of one kind, and what reads every number in them as a user's next command does."""

    kind: str
    files: list[Path]
    read: Callable[[], Any]


@dataclass(frozen=True)
class Flip:
    """What a flip of one bit led to. outcome: `refused`, `no number changed`, or `accepted`."""

    kind: str
    file: str
    place: int
    outcome: str
    said: str


def flips(written: list[Written], count: int, *, seed: int) -> Iterator[Flip]:
    """Flip one bit after the other, at random places of random files; every file is whole again afterwards."""
    draw = random.Random(seed)
    before = [numbers(each.read()) for each in written]
    for number in range(count):
        each, known = written[number % len(written)], before[number % len(written)]
        file = draw.choice(each.files)
        content = file.read_bytes()
        place, changed = draw.randrange(len(content)), bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
        try:
            outcome, said = ("no number changed" if numbers(each.read()) == known else "accepted"), ""
        except InputError as error:
            outcome, said = "refused", str(error)
        finally:
            file.write_bytes(content)
        yield Flip(each.kind, file.name, place, outcome, said)


def numbers(value: Any) -> str:
    """A hash of everything that a value holds."""
    digest = hashlib.sha256()

    def feed(held: Any) -> None:
        if isinstance(held, torch.Tensor):
            content = held.detach().contiguous().flatten().view(torch.uint8)
            digest.update(f"{held.dtype} {list(held.shape)}".encode() + content.numpy().tobytes())
        elif isinstance(held, np.ndarray):
            digest.update(f"{held.dtype} {held.shape}".encode() + held.tobytes())
        elif is_dataclass(held) and not isinstance(held, type):
            feed({name: getattr(held, name) for name in held.__dataclass_fields__})
        elif isinstance(held, Mapping):
            for name in sorted(held, key=str):
                digest.update(str(name).encode())
                feed(held[name])
        elif isinstance(held, list | tuple):
            digest.update(f"{len(held)}".encode())
            for item in held:
                feed(item)
        else:
            digest.update(repr(held).encode())

    feed(value)
    return digest.hexdigest()


def make(folder: Path) -> list[Written]:
    """Train, export, and write signals, rewards and pairs in a folder."""
    base = tiny.sd15(folder / "model")
    own_pairs.make_folder(folder / "data", pairs=4)
    low_rank = _train(folder, "lora", {"rank": 2})
    full = _train(folder, "full", None)
    merged = export(full, base, folder / "merged", format="merged")
    diffusers = export(low_rank, base, folder / "diffusers", format="diffusers")
    kohya = export(low_rank, base, folder / "kohya.safetensors", format="kohya")
    below = {"checkpoints", "samples"}
    return [
        Written("cache", _files(folder / "cache"), lambda: _cache(folder / "cache")),
        *(
            Written(
                f"{run.name} run", [f for f in _files(run) if f.relative_to(run).parts[0] not in below],
                lambda run=run: (read_run(run), _pipeline(base, run)),
            )
            for run in (low_rank, full)
        ),
        *(
            Written(f"{run.name} checkpoint", _files(checkpoints(run)[-1]), lambda run=run: _checkpoint(run))
            for run in (low_rank, full)
        ),
        Written("merged export", _files(merged), lambda: _pipeline(merged)),
        Written("diffusers export", _files(diffusers), lambda: _pipeline(base, diffusers)),
        Written("kohya export", [kohya], lambda: (refuse_damaged(kohya, remedy=""), load_file(kohya))),
        _frozen(folder / "frozen"),
        _signals(folder / "signals.parquet"),
        _rewards(folder / "rewards.parquet"),
        _pairs(folder),
    ]  # fmt: skip


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in LOGS)


def _train(folder: Path, name: str, low_rank: dict[str, Any] | None) -> Path:
    config = {
        "model": {"base": str(folder / "model")},
        "data": {"paths": [str(folder / "data")], "resolution": 32},
        "cache": {"folder": str(folder / "cache"), "dtype": "float32"},
        "objective": {"name": "dpo", "beta": 500},
        "lora": low_rank,
        "train": {
            "max_steps": 2, "pairs_per_step": 2, "micro_batch": 2, "learning_rate": 1e-4, "checkpoint_every": 1,
            "ema_decay": None if low_rank is None else 0.9,
        },
    }  # fmt: skip
    return train_run(parse_config(config), folder / name)


def _cache(folder: Path) -> Any:
    held = LatentCache(folder)
    images = [sha for pair in held.pairs.values() for sha in (pair.image_0, pair.image_1)]
    texts = [pair.prompt for pair in held.pairs.values()]
    return (
        dict(held.pairs),
        held.labels,
        held.latents(images),
        held.prompts(texts),
        held.record.shaping,
        held.identity(),
    )


def _checkpoint(run: Path) -> Any:
    newest, whole = checkpoints(run)[-1], newest_whole(run)
    if whole != newest:
        raise InputError(f"passed over for {whole}", where=newest)
    return read_state(newest), {file.name: load_file(file) for file in newest.rglob("*.safetensors")}


def _pipeline(base: Path, run: Path | None = None) -> Any:
    pipe = load_pipeline(base, run)
    held = {name: part for name, part in pipe.components.items() if part is not None}
    weights = {name: part.state_dict() for name, part in held.items() if isinstance(part, torch.nn.Module)}
    settings = {name: dict(held[name].config) for name in ("unet", "vae", "scheduler")}
    return weights, settings, held["tokenizer"](list(own_pairs.PROMPTS))["input_ids"]


def _frozen(folder: Path) -> Written:
    frozenfolder.write_frozen(folder / ERRORS.record, frozenfolder.FrozenRecord(identity="x", device_seconds=1.0))
    held = {f"{ERRORS.tensor}_{side}": torch.linspace(0, 1, 64) for side in "wl"}
    draws = [(f"pair {number}", 0) for number in range(64)]
    write_shard(folder, "draws-000000000", held, frozenfolder.draws_table(draws))

    def read() -> Any:
        found = open_frozen(folder, ERRORS, identity="x", draws=64)
        return found.read([pair for pair, _ in draws], [0] * 64), found.device_seconds

    return Written("reference cache", _files(folder), read)


def _signals(path: Path) -> Written:
    draw = np.random.default_rng(0)
    columns = {"winner": draw.integers(0, 2, 200), "weight": draw.uniform(0, 2, 200), "margin_0": draw.normal(size=200)}
    meta = {"kinds": ["smoothed"], "smoothed.scorer": "m", "smoothed.device_seconds": 3.0}
    signals.write_signals(path, signals.from_columns([f"p{n}" for n in range(200)], columns, meta), provenance={})

    def read() -> Any:
        found = signals.read_signals(path)
        arrays = {name: getattr(found, name) for name in signals.TYPES}
        return found.pair_id, arrays, found.kinds, found.rewards, found.device_seconds

    return Written("signals", [path], read)


def _rewards(path: Path) -> Written:
    draw, pairs = np.random.default_rng(1), [f"p{number}" for number in range(100)]
    rows = [rewards.Reward(p, side, "m", "f", draw.normal(), "", "i", "p") for p in pairs for side in (0, 1)]
    rewards.write_rewards(path, rows, {"m": rewards.ScoredBy("f", device_seconds=1.0)})
    return Written("rewards", [path], lambda: (rewards.read_rewards(path, pairs), [*rewards.iterate_rewards(path)]))


def _pairs(folder: Path) -> Written:
    path = folder / "pairs.parquet"
    write_pairs(read_preferences(folder / "data"), path)
    return Written(
        "pairs", [path],
        lambda: [(p.pair_id, p.prompt, p.label, p.image_0.read(), p.image_1.read()) for p in read_preferences(path)],
    )  # fmt: skip
