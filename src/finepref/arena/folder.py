"""What an arena folder was made of, and whether it is finished."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finepref.arena.ratings import Ratings
from finepref.core.errors import InputError
from finepref.core.provenance import provenance, sha256_bytes
from finepref.formats.gaps import GAPS
from finepref.formats.ratings import LEADERBOARD, RATINGS, leaderboard, read_ratings

ALWAYS = (RATINGS, LEADERBOARD, GAPS)
PAGE = "arena.html"


def provenance_of(inputs: Iterable[Path], config: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a result: versions, command, settings, input hashes, and the fingerprint of all that matters."""
    found = provenance(inputs=inputs, config=config)
    matters = found["config_hash"] + json.dumps(sorted(found["inputs"].values()))
    return {**found, "fingerprint": sha256_bytes(matters.encode())}


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
