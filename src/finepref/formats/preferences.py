"""Preferences: two images of one prompt and a vote. Read from tables of any dialect, streamed; written as `pairs`.

pair_id ties every sidecar (signals, rewards, cache) to the data: the data set's own id where every row has one and all
differ, else a hash of (prompt, both image hashes, voter, occurrence number).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finepref.core.errors import InputError
from finepref.core.files import FOOTER, atomic_file
from finepref.core.provenance import sha256_bytes, version_of
from finepref.formats.dialects import find_dialect
from finepref.formats.pairrows import Draft, ImageRef, PairRows, Preference, pair_rows
from finepref.formats.sources import Paths, tables
from finepref.formats.tables import Row, Table, is_missing, memory_table

__all__ = [
    "PAIRS", "ImageRef", "Preference", "Preferences", "Quarantined", "detect_format", "read_pair_ids",
    "read_preferences", "winner_of", "write_pairs",
]  # fmt: skip

PAIRS = pa.schema(
    [
        ("pair_id", pa.string()), ("prompt", pa.string()), ("image_0", pa.binary()), ("image_1", pa.binary()),
        ("label", pa.float64()), ("model_0", pa.string()), ("model_1", pa.string()), ("voter", pa.string()),
    ]
)  # fmt: skip
SAID = {1.0: "image_0", 0.0: "image_1", 0.5: "tie"}  # what a label says, in words for reports
_GROUP = 256


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that was dropped whole: where it is, which pair, why."""

    row: int
    pair_id: str
    reason: str


def detect_format(path: Paths) -> str:
    """The dialect of the first table behind `path`, by its columns.

    Raises:
        InputError: no known dialect has these columns.
    """
    first = tables(path)[0]
    return find_dialect(first.columns, {}, where=first.path).name


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """The usable preferences of some tables in order, read anew whenever they are gone through; see `read_preferences`.

    data: where they are, or the table of those in memory.

    Raises:
        InputError: when gone through: a missing column, an unknown label value, an unusable row without `quarantine`,
            an empty data set.
    """

    data: Paths | Table
    format: str = "auto"
    columns: Mapping[str, str] | None = None
    images: bool = True
    quarantine: list[Quarantined] | None = None

    def __iter__(self) -> Iterator[Preference]:
        count = 0
        for row, pair_id, draft in _identified(self.data, format=self.format, columns=self.columns, images=self.images):
            if draft.problem:
                if self.quarantine is None:
                    where = f"row {row} (pair {pair_id})"
                    raise InputError(draft.problem, where=where, remedy="repair or drop the row")
                self.quarantine.append(Quarantined(row=row, pair_id=pair_id, reason=draft.problem))
                continue
            count += 1
            yield replace(draft.preference, pair_id=pair_id)
        if count == 0:
            raise InputError("the data set has no usable preference", where=_name(self.data), remedy="give one row")


def read_preferences(
    data: Paths | Iterable[Row | str | Path],
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    images: bool = True,
    quarantine: list[Quarantined] | None = None,
) -> Preferences:
    """Every usable preference, in order, images not decoded. Nothing is read before they are gone through.

    Args:
        data: files, folders, patterns or hub names; or rows in memory: dicts with the columns of a format, their images
            as bytes, paths or Pillow images, such as a `datasets.Dataset`.
        format: a name of `dialects.DIALECTS`, or auto.
        columns: role or column name of the dialect -> the table's column, where they differ.
        images: whether the image columns must be there.
        quarantine: gets the rows that cannot be used; None makes the first such row an error.

    Example:
        >>> read_preferences([{"prompt": "a cat", "chosen": "a.png", "rejected": "b.png"}])
    """
    held: Any = [data] if isinstance(data, str | Path) else list(data)
    where = memory_table(held) if held and isinstance(held[0], Mapping) else held
    return Preferences(data=where, format=format, columns=columns, images=images, quarantine=quarantine)


def read_pair_ids(
    *paths: str | Path,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
) -> tuple[list[str], np.ndarray]:
    """(pair ids, labels) of every row in file order, unusable rows included; none of the images is decoded.

    Returns:
        ids, and float64 labels: P(image_0 preferred) in {1, 0.5, 0}, nan where nobody voted.
    """
    found = _identified(list(paths), format=format, columns=columns, images=False)
    labels = [(pair_id, draft.preference.label) for _, pair_id, draft in found]
    if not labels:
        raise InputError("the data set is empty", where=_name(list(paths)), remedy="give at least one row")
    return [pair_id for pair_id, _ in labels], np.array([label for _, label in labels], dtype=np.float64)


def write_pairs(pairs: Iterable[Preference], out: str | Path) -> int:
    """Stream preferences into a parquet file in the house format (`pairs`), images as bytes; how many.

    Raises:
        InputError: there is none; what is at `out` stays then.
    """
    count = 0
    iterator = iter(pairs)
    footed = PAIRS.with_metadata({FOOTER: json.dumps({"versions": {"finepref": version_of("finepref")}})})
    with atomic_file(out) as temporary, pq.ParquetWriter(temporary, footed, compression="zstd") as writer:
        while group := list(itertools.islice(iterator, _GROUP)):
            writer.write_table(pa.Table.from_pylist([_row(pair) for pair in group], PAIRS))
            count += len(group)
        if not count:
            raise InputError("no pair is usable", where=out, remedy="see `finepref data validate`")
    return count


def _row(pair: Preference) -> Row:
    row = {name: getattr(pair, name) for name in PAIRS.names}
    row |= {"image_0": pair.image_0.read(), "image_1": pair.image_1.read()}
    return row | {"label": None if math.isnan(pair.label) else pair.label}


def winner_of(label: float) -> int | None:
    """Index of the preferred image (label 1 -> 0, label 0 -> 1); None for a tie or no vote."""
    return None if math.isnan(label) or label == 0.5 else int(label == 0.0)


def _identified(
    data: Paths | Table, *, format: str, columns: Mapping[str, str] | None, images: bool
) -> Iterator[tuple[int, str, Draft]]:
    """(row number over all tables, pair id, draft)."""
    named = dict(columns or {})
    opened = [pair_rows(table, named, format=format, images=images) for table in tables(data)]
    own = _own_ids_unique(opened)
    seen: dict[tuple[str, ...], int] = {}
    hashes: dict[Path, str] = {}
    row = 0
    for source in opened:
        for draft in source.drafts(images=images or not own):
            if own:
                assert draft.own_id is not None
                pair_id = draft.own_id
            else:
                pair = draft.preference
                keys = (_image_key(pair.image_0, hashes), _image_key(pair.image_1, hashes))
                identity = (pair.prompt, *keys, draft.hashed_voter or "")
                seen[identity] = seen.get(identity, 0) + 1
                pair_id = sha256_bytes("\x1f".join([*identity, str(seen[identity])]).encode())[:32]
            yield row, pair_id, draft
            row += 1


def _image_key(image: ImageRef, hashes: dict[Path, str]) -> str:
    """Hash of the encoded bytes; of a missing image, its name."""
    if image.data is not None:
        return sha256_bytes(image.data)
    if image.path is None:
        return f"uid:{image.uid}"
    if image.path not in hashes:
        try:
            hashes[image.path] = sha256_bytes(image.read())
        except InputError:
            hashes[image.path] = f"missing:{image.path.name}"
    return hashes[image.path]


def _own_ids_unique(sources: list[PairRows]) -> bool:
    """Whether every table has its dialect's own id column, without gaps, and no id comes twice in the data set."""
    seen: set[str] = set()
    for source in sources:
        column = next((name for name in source.cast.get("pair_id", ()) if name in source.table.columns), None)
        if column is None:
            return False
        for row in source.table.rows([column]):
            value = row.get(column)
            if is_missing(value) or str(value) in seen:
                return False
            seen.add(str(value))
    return True


def _name(data: Paths | Table) -> str:
    paths = data.path if isinstance(data, Table) else data
    return str(paths) if isinstance(paths, str | Path) else ", ".join(str(p) for p in paths)
