"""Parts of a file that several processes write at once: each lists its rows in one of its own, a line of JSON a row."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from finepref.core.errors import InputError
from finepref.core.files import reading
from finepref.core.ownership import remove_empty
from finepref.formats import records

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Parts(Generic[Row]):
    """The parts of one file.

    place: their folder. kind: the record of a row. remedy: where one cannot be read. check: refuses a row, by where it
    stands.
    """

    place: Path
    kind: type[Row]
    remedy: str
    check: Callable[[Row, str], None] = lambda row, place: None

    def files(self) -> list[Path]:
        """The parts that are there."""
        return sorted(self.place.glob("*.jsonl"))

    def read(self, part: Path, start: int = 0) -> tuple[list[Row], int]:
        """The rows of a part from a byte of it on, whole lines only, and the byte to go on from; none where it is gone.

        Raises:
            InputError: a line is damaged.
        """
        try:
            with reading(part, "a part of a file", remedy=self.remedy), open(part, "rb") as handle:
                handle.seek(start)
                held = handle.read()
        except InputError:
            if part.exists():
                raise
            return [], start
        whole = held[: held.rfind(b"\n") + 1]
        rows = []
        for place, row in records.parse_lines(self.kind, whole.decode("utf-8"), part):
            self.check(row, place)
            rows.append(row)
        return rows, start + len(whole)

    def rows(self) -> list[Row]:
        """The rows of all parts."""
        return [row for part in self.files() for row in self.read(part)[0]]

    def append(self, part: Path, rows: Sequence[Row]) -> None:
        """Add rows to a part and fsync, so that a killed process loses at most the unit it was at."""
        self.place.mkdir(parents=True, exist_ok=True)
        with open(part, "a", encoding="utf-8") as handle:
            handle.writelines(line_of(row) for row in rows)
            handle.flush()
            os.fsync(handle.fileno())

    def replace(self, rows: Sequence[Row]) -> None:
        """Hold these rows instead of all parts: those that do not stand in the file. A kill leaves them all."""
        before = self.files()
        if rows:
            self.append(self.place / f"{uuid.uuid4().hex[:11]}.jsonl", rows)
        for part in before:
            part.unlink()
        remove_empty(self.place)


def line_of(row: Any) -> str:
    """A row as a line."""
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"
