"""Preferences: two images of one prompt and a vote. Read from tables of any dialect, streamed; written as `pairs`.

pair_id ties every sidecar (signals, rewards, cache) to the data: the data set's own id where every row has one and all
differ, else a hash of (prompt, both image hashes, voter, occurrence number).
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finepref.core.errors import InputError
from finepref.core.files import FOOTER, PARQUET, atomic_file, link, parquet_meta, sealed_parquet
from finepref.core.files import reading as reading_file
from finepref.core.provenance import sha256_bytes, version_of
from finepref.formats.detection import find_dialect
from finepref.formats.pairrows import Account, Draft, ImageRef, Met, Preference, pair_rows
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.sources import Paths, tables
from finepref.formats.stretches import Stretch, hashed_id, missing_key, open_stretches
from finepref.formats.tables import Row, Table, memory_table

__all__ = [
    "PAIRS", "ImageRef", "Preference", "Preferences", "Quarantined", "detect_format", "read_pair_ids",
    "read_preferences", "winner_of", "write_pairs",
]  # fmt: skip

PAIRS = pa.schema(
    [
        ("pair_id", pa.string()), ("prompt", pa.string()), ("image_0", pa.binary()), ("image_1", pa.binary()),
        ("label", pa.float64()), ("model_0", pa.string()), ("model_1", pa.string()), ("voter", pa.string()),
        ("weight", pa.float64()), ("both_bad", pa.bool_()), ("question", pa.string()), ("game", pa.string()),
        ("time", pa.string()),
    ]
)  # fmt: skip
ALWAYS = PAIRS.names[:8]  # columns that files of every version have
SAID = ("image_0", "image_1", "tie", "none")  # what a label says, in words for reports; none: nobody voted
_GROUP = 256


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that was dropped whole: its number over all files, which pair (empty: none), why, and where it is."""

    row: int
    pair_id: str
    reason: str
    where: str = ""


def detect_format(path: Paths, reading: Reading = AS_IT_IS) -> str:
    """The dialect of the first table behind `path`, by its columns.

    Raises:
        InputError: no known dialect has these columns.
    """
    first = tables(path, reading)[0]
    return find_dialect(first.columns, reading, where=first.path).name


def has_pictures(path: Paths, reading: Reading = AS_IT_IS) -> bool:
    """Whether the first table behind `path` has the columns that training needs: a prompt and two pictures a row."""
    try:
        pair_rows(tables(path, reading)[0], reading, images=True, account=Account(), met=Met())
    except InputError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """The usable preferences of some tables in order, read anew whenever they are gone through; see `read_preferences`.

    data: where they are, or the table of those in memory. reading: how they are read. account: of what was read, once
    they were gone through.

    Raises:
        InputError: when gone through: a missing column, an unknown label value, an unusable row without `quarantine`,
            an empty data set.
    """

    data: Paths | Table
    reading: Reading = AS_IT_IS
    images: bool = True
    quarantine: list[Quarantined] | None = None
    account: Account = field(default_factory=Account)

    def __iter__(self) -> Iterator[Preference]:
        count = 0
        for row, pair_id, draft in identified(self.data, self.reading, images=self.images, account=self.account):
            if draft.problem or draft.preference is None:
                if self.quarantine is None and draft.bad:
                    where = f"{draft.place} (pair {pair_id})" if pair_id else draft.place
                    raise InputError(draft.problem, where=where, remedy="repair or drop the row")
                if self.quarantine is not None:
                    self.quarantine.append(Quarantined(row, pair_id, draft.problem, draft.place))
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
    outcomes: Mapping[str, str] | None = None,
    encoding: str | None = None,
    split: str | None = None,
    question: str | None = None,
    images: bool = True,
    root: str | Path | None = None,
    quarantine: list[Quarantined] | None = None,
) -> Preferences:
    """Every usable preference, in order, images not decoded. Nothing is read before they are gone through.

    Args:
        data: files, folders, patterns or hub names; or rows in memory: dicts with the columns of a format, their images
            as bytes, paths or Pillow images, such as a `datasets.Dataset`.
        format: a name of `dialects.DIALECTS`, or auto.
        columns: role or column name of the dialect -> the table's column, where they differ.
        outcomes: word -> left, right, tie, both_bad or none, for outcome words that the dialect does not know.
        encoding: of text files, utf-8 by default. split: of a folder with several. question: the one whose votes are
            read, where several were asked.
        images: whether the image columns must be there.
        root: the folder where the paths of images start and that they must stay in (`--images`); None: for each table
            its own folder, for rows in memory where the program runs, and then any place.
        quarantine: gets the rows that cannot be used; None makes the first such row an error.

    Example:
        >>> read_preferences([{"prompt": "a cat", "chosen": "a.png", "rejected": "b.png"}])
    """
    held: Any = [data] if isinstance(data, str | Path) else list(data)
    where = memory_table(held) if held and isinstance(held[0], Mapping) else held
    if not held:
        raise InputError("no preferences were given", remedy="give files, or at least one row")
    reading = Reading(
        format=format, columns=columns or {}, outcomes=outcomes or {}, encoding=encoding, split=split,
        question=question, images=None if root is None else str(root),
    )  # fmt: skip
    return Preferences(data=where, reading=reading, images=images, quarantine=quarantine)


def read_pair_ids(*paths: str | Path, reading: Reading = AS_IT_IS) -> tuple[list[str], np.ndarray]:
    """(pair ids, labels) of every row in file order, unusable rows included; none of the images is decoded.

    Returns:
        ids, and float64 labels: P(image_0 preferred) in [0, 1], nan where nobody voted.
    """
    found = identified(list(paths), reading, images=False, account=Account())
    labels = [(pair_id, draft.preference.label) for _, pair_id, draft in found if draft.preference is not None]
    if not labels:
        raise InputError("the data set is empty", where=_name(list(paths)), remedy="give at least one row")
    return [pair_id for pair_id, _ in labels], np.array([label for _, label in labels], dtype=np.float64)


def made_of(path: str | Path) -> str:
    """What a file of `write_pairs` says that it was made of; "" where it says nothing."""
    return str(parquet_meta(path).get("made", ""))


def write_pairs(pairs: Iterable[Preference], out: str | Path, *, made: str = "") -> int:
    """Stream preferences into a parquet file in the house format (`pairs`), images as bytes; how many.

    made: what tells inputs and settings from others, by which the same command knows its own result again.

    Raises:
        InputError: there is none; what is at `out` stays then.
    """
    count = 0
    iterator = iter(pairs)
    footed = PAIRS.with_metadata({FOOTER: json.dumps({"versions": {"finepref": version_of("finepref")}, "made": made})})
    with atomic_file(out) as temporary, sealed_parquet(temporary, footed) as writer:
        while group := list(itertools.islice(iterator, _GROUP)):
            writer.write_table(pa.Table.from_pylist([_row(pair) for pair in group], PAIRS))
            count += len(group)
        if not count:
            raise InputError("no pair is usable", where=out, remedy="see `finepref data validate`")
    return count


def rename_pairs(file: Path, ids: Sequence[str], out: Path) -> None:
    """Write a file of `write_pairs` with these ids; where they are its own, it gets a second name alone."""
    with reading_file(file, PARQUET):  # not its hash, which reads all of it: it was made a moment ago
        held_ids = pq.read_table(file, columns=["pair_id"])["pair_id"].to_pylist()
    if [*ids] == held_ids:
        out.unlink(missing_ok=True)
        link(file, out)
        return
    with (
        reading_file(file, PARQUET),
        pq.ParquetFile(file, pre_buffer=False) as held,
        atomic_file(out) as temporary,
        sealed_parquet(temporary, held.schema_arrow) as writer,
    ):
        rest = iter(ids)
        for number in range(held.num_row_groups):
            group = held.read_row_group(number)
            named = pa.array(itertools.islice(rest, len(group)), pa.string())
            writer.write_table(group.set_column(0, PAIRS.field("pair_id"), named))


def _row(pair: Preference) -> Row:
    row = {name: getattr(pair, name) for name in PAIRS.names}
    row |= {"image_0": pair.image_0.read(), "image_1": pair.image_1.read()}
    return row | {"label": None if math.isnan(pair.label) else pair.label}


def winner_of(label: float) -> int | None:
    """Index of the image that most preferred (label above 0.5 -> 0, below -> 1); None for a tie or no vote."""
    return None if math.isnan(label) or label == 0.5 else int(label < 0.5)


def said_of(label: float) -> str:
    """What a label says: a word of `SAID`."""
    winner = winner_of(label)
    return SAID[winner] if winner is not None else SAID[3] if math.isnan(label) else SAID[2]


def identified(
    data: Paths | Table, reading: Reading, *, images: bool, account: Account
) -> Iterator[tuple[int, str, Draft]]:
    """Every row: its number over all files, its pair id ("" where it could not be read), what it says."""
    opened = open_stretches(data, reading, images=images, account=account)
    seen: Counter[tuple[str, ...]] = Counter()
    hashes: dict[Path, str] = {}
    before = 0
    for number, source in enumerate(opened.sources):
        for _, row, draft in opened.read(Stretch(number), images=images):
            pair = draft.preference
            if pair is None:
                pair_id = ""
            elif opened.own:
                pair_id = str(draft.own_id)
            else:
                keys = (_image_key(pair.image_0, hashes), _image_key(pair.image_1, hashes))
                identity = (pair.prompt, *keys, draft.hashed_voter or "")
                seen[identity] += 1
                pair_id = hashed_id(*identity, seen[identity])
            yield before + row, pair_id, draft
        before += account.sources[str(source.table.path)]


def _image_key(image: ImageRef, hashes: dict[Path, str]) -> str:
    """Hash of the encoded bytes; of a missing image, its name."""
    if image.data is not None:
        return sha256_bytes(image.data)
    if image.path is None:
        return missing_key(image)
    if image.path not in hashes:
        try:
            hashes[image.path] = sha256_bytes(image.read())
        except InputError:
            hashes[image.path] = missing_key(image)
    return hashes[image.path]


def _name(data: Paths | Table) -> str:
    paths = data.path if isinstance(data, Table) else data
    return str(paths) if isinstance(paths, str | Path) else ", ".join(str(p) for p in paths)
