"""quarantine.jsonl: rows that were left out whole, one JSON line each, with place and reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from finepref.core.files import write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row of a vote file: file and row, why."""

    where: str
    reason: str


def is_quarantine(path: Path, kind: type[DataclassInstance]) -> bool:
    """Whether every line of a file is such a row."""
    wanted = {field.name for field in fields(kind)}
    lines = path.read_text(encoding="utf-8").splitlines()
    return bool(lines) and all({*json.loads(line)} == wanted for line in lines)


def write_quarantine(path: Path, rows: Iterable[DataclassInstance]) -> None:
    """Write the rows: `LeftOut` of the arena, `Quarantined` of pairs."""
    write_text(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
