"""The trajectory cache: where the frozen reference put every draw of a run's plan, so that no run inverts it again.

Shapes: B draws, K levels that share a trajectory, C channels, h w latent size.
What is kept of a point is the noise that explains it, tau with x_t = a(t) x0 + b(t) tau: of order 1 at every level, so
that half storage costs as little near the data as far from it. Shards of `SHARD` draws of the seeded global order, each
written whole; `trajectories.json` says what they were made for.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.files import read_json, write_json
from finepref.data.shards import STORAGE, ShardSet, read_index, write_shard
from finepref.train.reference import FILL, check_own

SHARD = 1024
RECORD = "trajectories.json"
INDEX = pa.schema([("pair_id", pa.string()), ("visit", pa.int64()), ("row", pa.int64())])


@dataclass(frozen=True, slots=True, eq=False)
class TrajectoryCache:
    """row: (pair id, visit) -> row of the shards. device_seconds: what filling it cost."""

    folder: Path
    row: dict[tuple[str, int], int]
    shards: ShardSet
    device_seconds: float

    def noise(self, pair_id: Sequence[str], visit: Sequence[int]) -> tuple[Tensor, Tensor]:
        """tau of winners and losers of some draws, each float32 [B,K,C,h,w] on the CPU.

        Raises:
            InputError: a draw that the cache does not hold.
        """
        rows = [self.row.get(key, -1) for key in zip(pair_id, visit, strict=True)]
        if -1 in rows:
            place = rows.index(-1)
            raise InputError(
                f"visit {visit[place]} of pair {pair_id[place]} is not in it", where=self.folder, remedy=FILL
            )
        found = self.shards.gather(np.array(rows, dtype=np.int64))
        return found["tau_w"].float(), found["tau_l"].float()


def shard_name(number: int) -> str:
    """The name of the shard with draws number * SHARD on."""
    return f"draws-{number:09d}"


def save_shard(
    folder: Path, number: int, tau_w: Tensor, tau_l: Tensor, *, pair_id: Sequence[str], visit: Sequence[int], dtype: str
) -> None:
    """Write the noise [n,K,C,h,w] of some draws; after this returns it is on the disk."""
    index = pa.table([list(pair_id), list(visit), list(range(len(pair_id)))], schema=INDEX)
    stored = {"tau_w": tau_w.to("cpu", STORAGE[dtype]), "tau_l": tau_l.to("cpu", STORAGE[dtype])}
    write_shard(folder, shard_name(number), stored, index)


def held_shards(folder: Path, *, identity: str) -> tuple[dict[str, int], float]:
    """(name -> draws) of the shards that are there, and the device seconds that they cost.

    Raises:
        InputError: they were made for another seed, data set, reference, trajectory or draw plan.
    """
    check_own(folder, RECORD)
    if not (folder / RECORD).is_file():
        return {}, 0.0
    record = _record(folder, identity, remedy="name another folder, or --overwrite")
    return _counts(read_index(folder, INDEX)), record["device_seconds"]


def _counts(index: pa.Table) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in index["shard"].value_counts().to_pylist()}


def save_record(folder: Path, *, identity: str, device_seconds: float) -> None:
    """Write what the shards were made for, and what they cost so far."""
    write_json(folder / RECORD, {"identity": identity, "device_seconds": device_seconds})


def clear(folder: Path) -> None:
    """Remove a trajectory cache.

    Raises:
        InputError: the folder holds something else.
    """
    check_own(folder, RECORD)
    if (folder / RECORD).is_file():
        shutil.rmtree(folder)


def missing_shards(held: Mapping[str, int], draws: int) -> list[int]:
    """Numbers of the shards that a plan of so many draws needs and that are not there, or not with all their draws."""
    numbers = range(-(-draws // SHARD))
    return [number for number in numbers if held.get(shard_name(number), 0) < min(SHARD, draws - number * SHARD)]


def load_trajectories(folder: str | Path, *, identity: str, draws: int) -> TrajectoryCache:
    """Open a trajectory cache; tensors stay on the disk until they are asked for.

    Args:
        draws: how many draws of the plan will be asked for.

    Raises:
        InputError: it is not there, it was made for something else, or it does not hold them all.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise InputError("there is no trajectory cache", where=folder, remedy=FILL)
    record = _record(folder, identity, remedy=f"{FILL}, or set train.trajectory_cache to null")
    index = read_index(folder, INDEX)
    missing = missing_shards(_counts(index), draws)
    if missing:
        raise InputError(f"draws from {missing[0] * SHARD} on are not in it", where=folder, remedy=FILL)
    ids = map(sys.intern, index["pair_id"].to_pylist())  # a pair that comes again is one string
    keys = zip(ids, index["visit"].to_pylist(), strict=True)
    return TrajectoryCache(
        folder=folder,
        row={key: row for row, key in enumerate(keys)},
        shards=ShardSet(folder, index["shard"].to_pylist(), index["row"].to_pylist()),
        device_seconds=record["device_seconds"],
    )


def _record(folder: Path, identity: str, *, remedy: str) -> dict[str, Any]:
    record: dict[str, Any] = read_json(folder / RECORD)
    if record["identity"] != identity:
        raise InputError(
            "it was filled for another seed, data set, reference, trajectory or draw plan", where=folder, remedy=remedy
        )
    return record
