"""The file of `finepref next`: pairs of models to vote on, best first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from finepref.core.errors import check_word
from finepref.core.files import write_parquet, write_text
from finepref.formats.records import csv_text

SUFFIXES = (".csv", ".jsonl", ".parquet")


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


def proposals_csv(proposals: Sequence[Proposal]) -> str:
    """The csv as text."""
    return csv_text([asdict(proposal) for proposal in proposals])


def write_proposals(path: Path, proposals: Sequence[Proposal], *, provenance: Mapping[str, Any]) -> None:
    """Write .csv, .jsonl, or .parquet, whose footer holds the provenance."""
    check_suffix(path)
    rows = [asdict(proposal) for proposal in proposals]
    if path.suffix == ".parquet":
        write_parquet(path, pa.Table.from_pylist(rows), provenance)
    elif path.suffix == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        write_text(path, proposals_csv(proposals))
