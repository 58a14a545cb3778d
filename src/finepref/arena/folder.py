"""What an arena folder was made of, and whether it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finepref.arena.ratings import Ratings
from finepref.core.errors import InputError
from finepref.core.provenance import hash_config, provenance, sha256_bytes, sha256_file
from finepref.formats.gaps import GAPS
from finepref.formats.ratings import LEADERBOARD, RATINGS, leaderboard, read_ratings

WHOLE_UP_TO = 1 << 26  # bytes of an input that are hashed whole
PIECE = 1 << 20
ALWAYS = (RATINGS, LEADERBOARD, GAPS)
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


def provenance_of(inputs: Iterable[Path], config: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a result: versions, command, settings, input hashes, and the fingerprint of all that matters."""
    hashes = {str(path): input_hash(path) for path in inputs}
    fingerprint = sha256_bytes((hash_config(config) + json.dumps(sorted(hashes.values()))).encode())
    return {**provenance(config=config), "inputs": hashes, "fingerprint": fingerprint}


def finished(out: Path, fingerprint: str, wanted: Sequence[str], *, overwrite: bool) -> bool:
    """Whether `out` already holds the result of exactly this run.

    Raises:
        InputError: it holds another run's result, and nobody said to overwrite it.
    """
    if overwrite or not (out / RATINGS).exists():
        return False
    if read_ratings(out).fingerprint == fingerprint:
        return all((out / name).exists() for name in wanted)
    raise InputError(
        "holds an arena of other votes or settings",
        where=out,
        remedy="give another --out, or --overwrite to replace it",
    )


def leaderboard_rows(ratings: Ratings) -> list[dict[str, Any]]:
    """One record per model, best first: rank, name, mu with interval, ranks that are possible, score, record."""
    return leaderboard(ratings.table())
