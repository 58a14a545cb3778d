"""Rewards of both images of every pair, `rewards.parquet`: a row a side and scorer; read aligned with the votes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finepref.core.errors import InputError, nearest
from finepref.core.files import write_parquet
from finepref.core.outfolders import FolderKind, own_folder, remove_marked
from finepref.core.ownership import check_file, has_footer, own_file
from finepref.core.provenance import provenance
from finepref.formats import records
from finepref.formats.scores import VERSION, ScoredBy, footer, read_scorers

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reward:
    """What a scorer of this fingerprint gave the image of side 0 or 1; nan and the reason where there is no number."""

    pair_id: str
    side: int
    scorer: str
    fingerprint: str
    value: float
    reason: str
    image_sha256: str
    prompt_sha256: str


COLUMNS = records.schema(Reward, side=pa.int8())
NEEDED = pa.schema([COLUMNS.field(name) for name in ("pair_id", "side", "scorer", "fingerprint", "value")])


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

    def about(self) -> dict[str, Any]:
        """Whose they are and what they cost, for the footer of signals."""
        return {"scorer": self.scorer, "fingerprint": self.fingerprint, "device_seconds": self.device_seconds}


def is_rewards(path: Path) -> bool:
    """Whether we wrote a file of rewards."""
    return has_footer(*COLUMNS.names)(path)


@contextmanager
def sharing_rewards(path: Path, *, inputs: Iterable[str | Path]) -> Iterator[Path]:
    """Be one of the processes that make a file of rewards; yields the folder of what they leave, which goes at the end.

    Where the work ends early that stays, to go on from.
    """
    place = check_file(path, is_rewards, inputs=inputs, what="rewards")
    parts = place.with_name(f"{place.name}.parts")
    with own_folder(parts, PARTS, part=uuid.uuid4().hex[:12]):
        yield parts
    remove_marked(parts)


PARTS = FolderKind(
    "parts of rewards", "a folder of parts of rewards", ("[0-9]*.parquet", "read/*.parquet", "read/*.jsonl")
)


def write_rewards(
    path: Path, rows: Iterable[Reward], scorers: Mapping[str, ScoredBy], provenance: Mapping[str, Any] | None = None
) -> None:
    """Write rewards of some pairs."""
    meta = {"version": VERSION, "scorers": footer(scorers), **(provenance or {})}
    write_parquet(path, records.to_table(rows, COLUMNS), meta)


def iterate_rewards(path: Path) -> Iterator[Reward]:
    """The rows of a file that `write_rewards` or `join_rewards` wrote."""
    return records.iterate_rows(path, Reward, COLUMNS)


@dataclass(frozen=True, slots=True)
class RewardPart:
    """A part of the rewards of one scorer: its file, and the ids of its pairs where those in it are not final."""

    path: Path
    pair_ids: Sequence[str] | None = None

    def table(self) -> pa.Table:
        """Its rows: the pairs, and of each both sides."""
        found = records.read_columns(self.path, COLUMNS)
        if self.pair_ids is None:
            return found
        ids = pa.array([pair_id for pair_id in self.pair_ids for _ in range(2)], pa.string())
        return found.set_column(0, COLUMNS.field("pair_id"), ids)


def join_rewards(
    parts: Sequence[RewardPart], out: Path, carried: Mapping[str, float], *, inputs: Iterable[str | Path]
) -> tuple[int, int]:
    """Write these parts as one file, seconds summed; returns how many rows have no number, of how many.

    What `out` held of other scorers and of the same images stays. carried: seconds by scorer that were spent on `out`
    before.
    """
    total: dict[str, ScoredBy] = {}
    for name, about in (item for part in parts for item in read_scorers(part.path).items()):
        before = total[name].device_seconds if name in total else carried.get(name)
        total[name] = replace(about, device_seconds=(before or 0.0) + (about.device_seconds or 0.0))
    table = pa.concat_tables([part.table() for part in parts])
    with own_file(out, is_rewards, inputs=inputs, what="rewards"):
        beside = _of_others(out, table, {*total})
        also = {name: about for name, about in read_scorers(out).items() if name not in total} if len(beside) else {}
        meta = {"version": VERSION, "scorers": footer(also | total), **provenance(inputs=inputs)}
        write_parquet(out, pa.concat_tables([beside, table]), meta)
    return int(np.isnan(table["value"].to_numpy()).sum()), len(table)


def _of_others(path: Path, table: pa.Table, names: set[str]) -> pa.Table:
    """Rows of a file by other scorers, as far as the new ones have the same images for the same pairs."""
    if not path.is_file():
        return table.slice(0, 0)
    held = records.read_columns(path, COLUMNS)
    keys = ("pair_id", "side", "image_sha256", "prompt_sha256")
    known = {*zip(*(table[key].to_pylist() for key in keys), strict=True)}
    rows = zip(held["scorer"].to_pylist(), *(held[key].to_pylist() for key in keys), strict=True)
    return held.filter(pa.array([scorer not in names and tuple(key) in known for scorer, *key in rows]))


def scorers_in(path: str | Path) -> list[str]:
    """Names of the scorers of a rewards.parquet, sorted."""
    return sorted(set(records.read_columns(path, NEEDED)["scorer"].to_pylist()))


def read_rewards(path: str | Path, pair_ids: Sequence[str], *, scorer: str | None = None) -> Rewards:
    """Read rewards.parquet for these pairs.

    Args:
        pair_ids: [n] ids of the votes. scorer: which one, None where the file has only one.

    Raises:
        InputError: no such scorer, or one that only judges, several where none is named, one scorer in two versions,
            two scores of one image, one that is infinite, a side that is neither 0 nor 1, no pair in common.
    """
    table = records.read_columns(path, NEEDED)
    names = sorted(set(table["scorer"].to_pylist()))
    if not names:
        raise InputError("it holds no scores", where=path, remedy="write it with `finepref score`")
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
    value = table["value"].to_numpy()
    if not np.isin(side, (0, 1)).all():
        raise InputError("a side is neither 0 nor 1", where=path, remedy="write the rewards with `finepref score`")
    if not (rows >= 0).any():
        raise InputError("none of its pairs is in the votes", where=path, remedy="score the same votes")
    here = rows >= 0
    if np.isinf(value[here]).any():
        at = pair_ids[int(rows[here][np.isinf(value[here])][0])]
        raise InputError(f"a score of {wanted} is infinite", where=f"{path}, pair {at}", remedy="score that pair again")
    places = side[here].astype(np.int64) * len(pair_ids) + rows[here]
    if len(np.unique(places)) < len(places):
        twice = pair_ids[int(np.flatnonzero(np.bincount(places) > 1)[0]) % len(pair_ids)]
        what = f"{wanted} has two scores for one image"
        raise InputError(what, where=f"{path}, pair {twice}", remedy="write the rewards with `finepref score`")
    scores = np.full((2, len(pair_ids)), np.nan)
    scores[side[here].astype(np.int64), rows[here]] = value[here]
    about = read_scorers(Path(path)).get(wanted, ScoredBy(versions[0]))
    if about.judges_only:
        what = f"{wanted} is the truth, which no training may read"
        raise InputError(what, where=path, remedy="name another --scorer")
    return Rewards(scores[0], scores[1], wanted, versions[0], about.device_seconds)
