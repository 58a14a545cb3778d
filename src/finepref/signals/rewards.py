"""Rewards of both images of every pair, aligned with the votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from finepref.core.errors import InputError, nearest
from finepref.core.files import parquet_meta, read_parquet
from finepref.signals.parts import Floats

COLUMNS = ["pair_id", "side", "scorer", "fingerprint", "value"]


@dataclass(frozen=True, slots=True, eq=False)
class Rewards:
    """score_0, score_1: [n] in the order of the votes, nan where missing. scorer, fingerprint: whose they are.

    device_seconds: what scoring cost; None where it was not measured.
    """

    score_0: Floats
    score_1: Floats
    scorer: str
    fingerprint: str
    device_seconds: float | None = None


def read_rewards(path: str | Path, pair_ids: Sequence[str], *, scorer: str | None = None) -> Rewards:
    """Read rewards.parquet for these pairs.

    Args:
        pair_ids: [n] ids of the votes. scorer: which one, None where the file has only one.

    Raises:
        InputError: no such scorer, several where none is named, one scorer in two versions, a side that is neither 0
            nor 1, no pair in common.
    """
    table = read_parquet(path, COLUMNS)
    names = sorted(set(table["scorer"].to_pylist()))
    if scorer is None and len(names) != 1:
        raise InputError(f"the file has scores of {', '.join(names)}", where=path, remedy="choose one with --scorer")
    wanted = scorer if scorer is not None else names[0]
    if wanted not in names:
        raise InputError(f"no scores of {wanted!r}", where=path, remedy=nearest(wanted, names))
    table = table.filter(pc.equal(table["scorer"], wanted))
    versions = sorted(set(table["fingerprint"].to_pylist()))
    if len(versions) != 1:
        raise InputError(f"scores of {wanted} come from {len(versions)} versions", where=path, remedy="score again")
    index = {pair: row for row, pair in enumerate(pair_ids)}
    rows = np.array([index.get(pair, -1) for pair in table["pair_id"].to_pylist()], dtype=np.int64)
    side = table["side"].to_numpy()
    value = table["value"].to_numpy(zero_copy_only=False).astype(np.float64)
    if not np.isin(side, (0, 1)).all():
        raise InputError("a side is neither 0 nor 1", where=path, remedy="write the rewards with `finepref score`")
    if not (rows >= 0).any():
        raise InputError("none of its pairs is in the votes", where=path, remedy="score the same votes")
    scores = np.full((2, len(pair_ids)), np.nan)
    here = rows >= 0
    scores[side[here].astype(np.int64), rows[here]] = value[here]
    about = parquet_meta(path).get("scorers", {}).get(wanted, {})
    return Rewards(
        score_0=scores[0],
        score_1=scores[1],
        scorer=wanted,
        fingerprint=versions[0],
        device_seconds=about.get("device_seconds"),
    )
