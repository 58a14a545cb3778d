"""ksort.json of a K-Sort evaluation: where a judge places a model on the human leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finepref.core.files import write_json
from finepref.formats.records import read_record

KSORT = "ksort.json"
TRANSCRIPTS = "transcripts"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KSortRecord:
    """What of ksort.json a report shows. score: mu - 3 mean sigma of the leaderboard. judge: the model that ranked."""

    score: float
    mu: float
    sigma: float
    comparisons: int
    judge: str


def is_ksort(folder: Path) -> bool:
    """Whether a folder holds a finished K-Sort evaluation; a prompt file may have that name too."""
    return (folder / KSORT).is_file() and (folder / TRANSCRIPTS).is_dir()


def read_ksort(folder: Path) -> KSortRecord:
    """Read ksort.json of a folder.

    Raises:
        InputError: the file is missing, broken or no such record.
    """
    remedy = "run `finepref scorers ksort` again"
    return read_record(folder / KSORT, KSortRecord, version=VERSION, remedy=remedy)


def write_ksort(folder: Path, result: Mapping[str, Any]) -> None:
    """Write ksort.json: the record, its settings and its rounds."""
    write_json(folder / KSORT, result)
