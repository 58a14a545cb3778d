"""The file of `finepref next`: pairs of models to vote on, best first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from finepref.core.errors import check_word
from finepref.core.files import write_parquet
from finepref.core.ownership import has_footer, own_beside, own_file, write_beside
from finepref.formats.records import csv_text

SUFFIXES = (".csv", ".jsonl", ".parquet")
KIND = "proposals"


@dataclass(frozen=True, slots=True)
class Proposal:
    """rank: from 1. left, right: names. gain: expected information of the vote in nats. votes: the pair's so far."""

    rank: int
    left: str
    right: str
    gain: float
    votes: int


def check_suffix(path: Path) -> None:
    """Refuse a file type that cannot be written."""
    check_word(path.suffix, SUFFIXES, "file type", where=path)


def own_proposals(path: Path, *, inputs: Iterable[str | Path]) -> AbstractContextManager[object]:
    """Hold the place of the file, which is new or an older one that nobody has changed since."""
    if path.suffix == ".parquet":
        return own_file(path, has_footer("left", "right", "gain"), inputs=inputs, what="a file of proposals")
    return own_beside(path, kind=KIND, inputs=inputs)


def proposals_csv(proposals: Sequence[Proposal]) -> str:
    """The csv as text."""
    return csv_text([asdict(proposal) for proposal in proposals])


def write_proposals(path: Path, proposals: Sequence[Proposal], *, provenance: Mapping[str, Any]) -> None:
    """Write .csv or .jsonl with the provenance in a `.json` beside it, or .parquet, whose footer holds it."""
    check_suffix(path)
    rows = [asdict(proposal) for proposal in proposals]
    if path.suffix == ".parquet":
        write_parquet(path, pa.Table.from_pylist(rows), provenance)
    elif path.suffix == ".jsonl":
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_beside(path, lines, kind=KIND, provenance=provenance)
    else:
        write_beside(path, proposals_csv(proposals), kind=KIND, provenance=provenance)
