"""A folder of what the frozen reference does with the draws of a plan: its record, and the index of its shards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from finepref.core.errors import InputError
from finepref.core.files import read_json, write_sealed
from finepref.formats.cache import SHARD, Kind
from finepref.formats.records import read_record

VERSION = 1
DRAWS = Kind(
    "draws", pa.schema([("pair_id", pa.string()), ("visit", pa.int64()), ("row", pa.int64())]), ("pair_id", "visit")
)

Draws = Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenRecord:
    """What the shards are of, and what filling them cost so far in seconds of all processes."""

    identity: str
    device_seconds: float
    version: int = VERSION


def read_frozen(path: Path) -> FrozenRecord:
    """Read the record of a folder; one without a version is read as it is.

    Raises:
        InputError: there is none, or it is broken, of a newer version, or of the time when one file held everything.
    """
    held = read_json(path)
    if isinstance(held, dict) and "pair_id" in held:
        raise InputError("an older version filled it, in one file", where=path.parent, remedy="name another folder")
    return read_record(path, FrozenRecord, version=VERSION, remedy="name another folder, or fill it again")


def write_frozen(path: Path, record: FrozenRecord) -> None:
    """Write the record of a folder."""
    write_sealed(path, asdict(record))


def draws_table(draws: Draws) -> pa.Table:
    """The index of a shard with these draws, (pair id, visit), in order."""
    return DRAWS.table([dict(zip(DRAWS.keys, draw, strict=True)) for draw in draws])


def places(index: pa.Table) -> tuple[dict[tuple[str, int], int], list[str], list[int]]:
    """(pair id, visit) -> line of the index of all shards; and the shard, and the row in it, of every line."""
    ids = map(sys.intern, index["pair_id"].to_pylist())  # a pair that comes again is one string
    lines = {key: line for line, key in enumerate(zip(ids, index["visit"].to_pylist(), strict=True))}
    return lines, index[SHARD].to_pylist(), index["row"].to_pylist()
