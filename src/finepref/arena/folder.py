"""The arena folder: ratings.json, leaderboard.csv, gaps.parquet, arena.html, and what they were made of."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finepref import files
from finepref.arena.gap import gaps
from finepref.arena.ratings import Ratings
from finepref.arena.read import VoteTable
from finepref.errors import InputError
from finepref.provenance import hash_config, provenance, sha256_bytes, sha256_file

WHOLE_UP_TO = 1 << 26  # bytes of an input that are hashed whole
PIECE = 1 << 20
CHUNK = 1 << 20  # rows of gaps.parquet in one group
ALWAYS = ("ratings.json", "leaderboard.csv", "gaps.parquet", "arena.html")


def input_hash(path: Path) -> str:
    """SHA-256 of a file; of a large one, of its size, first and last MiB (where parquet has its index)."""
    size = path.stat().st_size
    if size <= WHOLE_UP_TO:
        return sha256_file(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as handle:
        digest.update(handle.read(PIECE))
        handle.seek(-PIECE, 2)
        digest.update(handle.read(PIECE))
    return "ends:" + digest.hexdigest()


def record(inputs: Iterable[Path], config: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a run: versions, command, settings, input hashes, and the fingerprint of all that matters."""
    hashes = {str(path): input_hash(path) for path in inputs}
    found = provenance(config=config)
    found["inputs"] = hashes
    found["fingerprint"] = sha256_bytes((hash_config(config) + json.dumps(sorted(hashes.values()))).encode())
    return found


def finished(out: Path, fingerprint: str, wanted: Sequence[str], *, overwrite: bool) -> bool:
    """Whether `out` already holds the result of exactly this run.

    Raises:
        InputError: it holds another run's result, and nobody said to overwrite it.
    """
    path = out / "ratings.json"
    if overwrite or not path.exists():
        return False
    before = files.read_json(path)
    if isinstance(before, dict) and before.get("provenance", {}).get("fingerprint") == fingerprint:
        return all((out / name).exists() for name in wanted)
    raise InputError(
        "holds an arena of other votes or settings",
        where=out,
        remedy="give another --out, or --overwrite to replace it",
    )


def leaderboard_rows(ratings: Ratings) -> list[dict[str, Any]]:
    """One record per model, best first: rank, name, mu with interval, ranks that are possible, score, record."""
    low, high = ratings.interval()
    best, worst = ratings.rank_interval()
    return [
        {
            "rank": place, "model": ratings.models[k], "mu": ratings.mu[k], "low": low[k], "high": high[k],
            "sigma": ratings.sigma[k], "rank_low": int(best[k]), "rank_high": int(worst[k]), "score": ratings.score[k],
            "wins": int(ratings.wins[k]), "losses": int(ratings.losses[k]), "ties": int(ratings.ties[k]),
        }
        for place, k in enumerate(ratings.order(), start=1)
    ]  # fmt: skip


def write_leaderboard(path: Path, ratings: Ratings) -> None:
    """leaderboard.csv."""
    rows = leaderboard_rows(ratings)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: round(float(v), 6) if isinstance(v, float) else v for k, v in row.items()})
    files.write_text(path, buffer.getvalue())


def write_gaps(
    path: Path, table: VoteTable, ratings: Ratings, kinds: Mapping[str, Any], *, meta: Mapping[str, Any]
) -> None:
    """gaps.parquet: one row a vote (row, vote_id where known, one column per kind), written in chunks.

    kinds: name -> finished values [n] (kind "image"), or the rho of a table kind.
    """
    fields = [pa.field("row", pa.int64())]
    if table.other is not None:
        fields.append(pa.field("other_row", pa.int64()))
    if table.ids is not None:
        fields.append(pa.field("vote_id", pa.string()))
    fields += [pa.field(kind, pa.float64()) for kind in kinds]
    footer = {files.FOOTER: json.dumps(files.finite(dict(meta)), ensure_ascii=False).encode()}
    schema = pa.schema(fields, metadata=footer)
    with files.atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, len(table.votes), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(table.votes)))
            chunk = table.votes.take(slice(start, start + CHUNK))  # type: ignore[arg-type]
            columns: list[Any] = [pa.array(table.row[rows])]
            if table.other is not None:
                columns.append(pa.array(table.other[rows]))
            if table.ids is not None:
                columns.append(table.ids.slice(start, len(rows)).combine_chunks())
            for kind, value in kinds.items():
                values = value[rows] if isinstance(value, np.ndarray) else gaps(chunk, ratings, kind=kind, rho=value)
                columns.append(pa.array(values, from_pandas=False))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
