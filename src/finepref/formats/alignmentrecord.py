"""alignment.json: what an alignment was asked for, the data that it read, and the commands that have ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from finepref.core.files import write_json
from finepref.formats.records import read_record

ALIGNED = "alignment.json"
VERSION = 1
REMEDY = "name another folder"


@dataclass(frozen=True, slots=True)
class AlignmentRecord:
    """What alignment.json holds.

    asked: what decides the result, by name. data: the version of the tables. done: commands that have ended, by word.
    """

    asked: dict[str, str]
    data: str
    done: tuple[tuple[str, ...], ...] = ()


def read_alignment(folder: Path) -> AlignmentRecord:
    """The record of a folder that `finepref align` made.

    Raises:
        InputError: no such file, or it is damaged.
    """
    return read_record(folder / ALIGNED, AlignmentRecord, version=VERSION, remedy=REMEDY)


def write_alignment(folder: Path, record: AlignmentRecord) -> None:
    """Write it; whole or not at all."""
    write_json(folder / ALIGNED, {"version": VERSION, **asdict(record)})
