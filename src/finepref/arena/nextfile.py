"""The whole of `finepref next`: votes in, a list of pairs out."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from finepref.arena.folder import record
from finepref.arena.nextpairs import next_pairs
from finepref.core import files
from finepref.core.errors import InputError, nearest
from finepref.formats.sources import find_files
from finepref.formats.votefiles import read_votes

SUFFIXES = (".csv", ".jsonl", ".parquet")


def run_next(
    votes: Sequence[str | Path],
    out: Path | None,
    *,
    columns: Mapping[str, str],
    number: int,
    prior: str = "normal",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Choose pairs and write them (rank, left, right, gain in nats, votes so far); print them where no file is named.

    Raises:
        InputError: unreadable votes, an unknown file type.
    """
    if out is not None and out.suffix not in SUFFIXES:
        raise InputError(f"unknown file type {out.suffix!r}", where=out, remedy=nearest(out.suffix, SUFFIXES))
    table = read_votes(votes, columns=columns)
    pairs = next_pairs(table.votes, number=number, prior=prior, seed=seed)
    names = table.votes.models
    rows = [
        {"rank": k, "left": names[p.left], "right": names[p.right], "gain": round(p.gain, 6), "votes": p.votes}
        for k, p in enumerate(pairs, start=1)
    ]
    if out is None or out.suffix == ".csv":
        text = _csv(rows)
        if out is None:
            sys.stdout.write(text)
        else:
            files.write_text(out, text)
    elif out.suffix == ".jsonl":
        files.write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        config = {"number": number, "prior": prior, "seed": seed, "columns": dict(columns)}
        files.write_parquet(out, pa.Table.from_pylist(rows), record(find_files(votes), config))
    return rows


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
