"""The arena folder: ratings.json, leaderboard.csv, gaps.parquet, arena.html, and what they were made of."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finepref.arena.blocks import slices
from finepref.arena.gap import gaps
from finepref.arena.ratings import Ratings
from finepref.core import files
from finepref.core.errors import InputError
from finepref.core.provenance import hash_config, provenance, sha256_bytes, sha256_file
from finepref.formats.votefiles import VoteTable

WHOLE_UP_TO = 1 << 26  # bytes of an input that are hashed whole
PIECE = 1 << 20
CHUNK = 1 << 20  # rows of gaps.parquet in one group
ALWAYS = ("ratings.json", "leaderboard.csv", "gaps.parquet")
PAGE = "arena.html"


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
    path: Path,
    table: VoteTable,
    ratings: Ratings,
    kinds: Mapping[str, Any],
    *,
    meta: Mapping[str, Any],
    normalise: str = "none",
) -> None:
    """gaps.parquet: one row a vote (row, vote_id where known, one column per kind), written in chunks.

    kinds: name -> finished values [n] (kind "image"), or the rho of a table kind. normalise "mean": every kind divided
    by its mean over decided votes, found in a pass of its own.
    """
    fields = [pa.field("row", pa.int64())]
    if table.other is not None:
        fields.append(pa.field("other_row", pa.int64()))
    if table.ids is not None:
        fields.append(pa.field("vote_id", pa.string()))
    fields += [pa.field(kind, pa.float64()) for kind in kinds]
    means = _means(table, ratings, kinds) if normalise == "mean" else dict.fromkeys(kinds, 1.0)
    content = files.finite({**meta, "normalise": normalise, "divided_by": means})
    schema = pa.schema(fields, metadata={files.FOOTER: json.dumps(content, ensure_ascii=False).encode()})
    with files.atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for rows, found in _chunks(table, ratings, kinds):
            columns: list[Any] = [pa.array(table.row[rows])]
            if table.other is not None:
                columns.append(pa.array(table.other[rows]))
            if table.ids is not None:
                columns.append(table.ids.slice(rows.start, rows.stop - rows.start).combine_chunks())
            columns += [pa.array(values / means[kind], from_pandas=False) for kind, values in found.items()]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _chunks(table: VoteTable, ratings: Ratings, kinds: Mapping[str, Any]) -> Iterator[tuple[slice, dict[str, Any]]]:
    """The gaps of every kind, chunk by chunk."""
    for rows in slices(len(table.votes), CHUNK):
        chunk = table.votes.take(rows)
        yield (
            rows,
            {
                kind: np.asarray(value[rows])
                if isinstance(value, np.ndarray)
                else gaps(chunk, ratings, kind=kind, rho=value)
                for kind, value in kinds.items()
            },
        )


def _means(table: VoteTable, ratings: Ratings, kinds: Mapping[str, Any]) -> dict[str, float]:
    total, count = dict.fromkeys(kinds, 0.0), 0
    for rows, found in _chunks(table, ratings, kinds):
        count += int(np.count_nonzero(table.votes.outcome[rows]))
        for kind, values in found.items():
            total[kind] += float(np.nansum(values))
    for kind, value in total.items():
        if value <= 0:
            raise InputError(f"the mean gap of kind {kind} is not positive", remedy="leave --normalise out")
    return {kind: value / count for kind, value in total.items()}
