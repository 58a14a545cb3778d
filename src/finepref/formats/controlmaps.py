"""maps.json of a folder of control maps: how they were made, and which picture each is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finepref.core.files import write_json
from finepref.formats.records import read_record

MAPS = "maps.json"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlMap:
    """A map: its prompt row and file, the picture that it is of, and that picture's hash."""

    row: int
    file: str
    image: str
    image_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsRecord:
    """What maps.json holds. kind: canny or depth. settings: thresholds, or the depth model and its hash."""

    kind: str
    settings: Mapping[str, Any]
    maps: tuple[ControlMap, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION


def map_file(row: int) -> str:
    """The file of a prompt row, as `generate --control-images` looks for it."""
    return f"{row:05d}.png"


def read_maps(folder: Path, name: str = MAPS) -> MapsRecord:
    """Read maps.json of a folder, or a part of one.

    Raises:
        InputError: the file is missing, broken or no such record.
    """
    return read_record(folder / name, MapsRecord, version=VERSION, remedy="make the maps again")


def write_maps(path: Path, record: MapsRecord) -> None:
    """Write maps.json, or a part of one."""
    write_json(path, asdict(record))
