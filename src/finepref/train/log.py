"""What a run writes while it goes on: metrics.jsonl (bit-identical after a resume), timing.jsonl (all seconds)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finepref.core.batches import ObjectiveOutput
from finepref.core.errors import ConfigError, InputError, nearest
from finepref.core.files import finite, write_text
from finepref.train.processes import World


class Tally:
    """Sums and counts of per-pair statistics of an optimiser step, per t-bucket, on the device until it ends."""

    def __init__(self, *, buckets: int, device: torch.device) -> None:
        self.buckets, self.device = buckets, device
        self.names: tuple[str, ...] = ()
        self.sums = torch.zeros(0)

    def add(self, output: ObjectiveOutput, bucket: Tensor) -> None:
        """Add loss and statistics of pairs that lie in t-buckets `bucket` [B] (int64)."""
        stats = {"loss": output.loss, **output.stats}
        if not self.names:
            self.names = tuple(sorted(stats))
            self.sums = torch.zeros(2 * len(self.names) + 1, self.buckets, dtype=torch.float64, device=self.device)
        one = torch.ones_like(output.loss, dtype=torch.float64)
        counts = [output.applies[name].double() if name in output.applies else one for name in self.names]
        rows = [stats[name].detach().double() * count for name, count in zip(self.names, counts, strict=True)]
        self.sums.index_add_(1, bucket, torch.stack([*rows, *counts, one]))

    def finish(self, world: World, calls: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, int]]:
        """Means over the pairs of all processes, and the sums of their network calls: one reduction, one copy."""
        own = torch.tensor([float(count) for count in calls.values()], dtype=torch.float64).to(self.device)
        together = world.sum(torch.cat([self.sums.flatten(), own])).cpu()
        held = together[: self.sums.numel()].view_as(self.sums)
        total = dict(zip(calls, map(int, together[self.sums.numel() :].tolist()), strict=True))
        sums, counts = held[:-1].chunk(2)
        pairs = held[-1]
        means, by_t = sums.sum(1) / counts.sum(1), sums / counts
        record: dict[str, Any] = dict(zip(self.names, means.tolist(), strict=True))
        record["pairs"] = int(pairs.sum())
        record["by_t"] = [
            {"pairs": int(pairs[b]), **dict(zip(self.names, by_t[:, b].tolist(), strict=True))}
            for b in range(self.buckets)
        ]
        return record, total


def tracked(record: Mapping[str, Any]) -> dict[str, float]:
    """A record for trackers: its numbers, those of the t-buckets as `NAME/t0` (the lowest), `NAME/t1`, ..."""
    found = {name: value for name, value in record.items() if isinstance(value, float)}
    for number, bucket in enumerate(record["by_t"]):
        found |= {f"{name}/t{number}": value for name, value in bucket.items() if isinstance(value, float)}
    return found


def cut_after(path: Path, step: int) -> None:
    """Drop the lines of a jsonl file that belong to steps after `step` (and a last line that was cut short)."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if record["step"] <= step:
            kept.append(line)
    write_text(path, "".join(line + "\n" for line in kept))


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record as a JSON line; nan and infinity become null."""
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(finite(dict(record)), allow_nan=False) + "\n")


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The records of a jsonl file."""
    try:
        return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line]
    except FileNotFoundError:
        raise InputError("no such file", where=path, remedy="train first") from None


TRACKERS = ("tensorboard", "wandb", "trackio")


def make_trackers(names: list[str], folder: Path, config: Mapping[str, Any]) -> list[Any]:
    """Trackers through accelerate, by name; each is given the resolved config once.

    Raises:
        ConfigError: an unknown tracker, or one that is not installed.
    """
    trackers = []
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"unknown tracker {name!r}", where="log.trackers", remedy=nearest(name, TRACKERS))
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        if name not in {str(getattr(found, "value", found)) for found in get_available_trackers()}:
            raise ConfigError(
                f"tracker {name!r} is not installed", where="log.trackers", remedy=f"pip install 'finepref[{name}]'"
            )
        tracker_class = LOGGER_TYPE_TO_CLASS[name]
        place = {"logging_dir": folder} if getattr(tracker_class, "requires_logging_directory", False) else {}
        tracker = tracker_class(folder.name, **place)
        if hasattr(tracker, "start"):
            tracker.start()
        tracker.store_init_configuration(dict(flat(config)))
        trackers.append(tracker)
    return trackers


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """A nested config as (dotted key, value); what is neither number nor word becomes text."""
    items: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            items.extend(flat(value, f"{name}."))
        else:
            items.append((name, value if isinstance(value, bool | int | float | str) else str(value)))
    return items
