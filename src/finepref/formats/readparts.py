"""What one process read of a data set: the pairs of a stretch of it, and the images in them. Kept until all is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from finepref.core.files import parquet_meta, write_parquet
from finepref.formats.records import as_record, read_columns


class ReadRow(NamedTuple):
    """A row that was read. row: in its table. image_0, image_1: content hashes, or what stands for one not there.

    prompt_sha256: "" of a row that is no pair. fault: why it cannot be used; unread: why an image cannot be read; ""
    for nothing.
    """

    row: int
    pair_id: str
    prompt: str
    prompt_sha256: str
    image_0: str
    image_1: str
    bucket: str
    label: float
    voter: str | None
    hashed_voter: str | None
    model_0: str | None
    model_1: str | None
    place: str
    fault: str
    unread: str


class ReadImage(NamedTuple):
    """An image that was read. fault: why it cannot be used, or "". size: "W x H". changes: on the way to sRGB, JSON."""

    image_sha256: str
    fault: str
    size: str
    changes: str


ROWS = pa.schema(
    [(name, {"row": pa.int64(), "label": pa.float64()}.get(name, pa.string())) for name in ReadRow._fields]
)
IMAGES = pa.schema([(name, pa.string()) for name in ReadImage._fields])
_MAY_LACK = ("voter", "hashed_voter", "model_0", "model_1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAbout:
    """table, path: whose rows they are; rows: how many were read. own: whether pairs have ids of their own.

    files: whether any image is a file of its own. asked: questions of the votes. words, notes: of `pairrows.Account`.
    """

    table: int
    path: str
    rows: int
    own: bool
    files: bool
    asked: tuple[str, ...]
    words: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ReadPart:
    """A stretch of a data set as it was read: tables as `ROWS` and `IMAGES`."""

    rows: pa.Table
    images: pa.Table
    about: ReadAbout


def part_of(rows: Sequence[ReadRow], images: Sequence[ReadImage], about: ReadAbout) -> ReadPart:
    """A part of these rows."""
    return ReadPart(_table(rows, ROWS), _table(images, IMAGES), about)


def _table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = [*zip(*rows, strict=True)] or [()] * len(schema)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema=schema)


def rows_of(table: pa.Table) -> Iterator[ReadRow]:
    """The rows of a table as `ROWS`."""
    return (ReadRow(**row) for batch in table.to_batches(max_chunksize=4096) for row in batch.to_pylist())


def images_in(table: pa.Table) -> Iterator[ReadImage]:
    """The rows of a table as `IMAGES`."""
    return (ReadImage(**row) for batch in table.to_batches(max_chunksize=4096) for row in batch.to_pylist())


def write_part(folder: Path, name: str, part: ReadPart) -> None:
    """Write a part as two files; it is there once the second is."""
    write_parquet(folder / f"{name}.images.parquet", part.images)
    write_parquet(folder / f"{name}.pairs.parquet", part.rows, asdict(part.about))


def read_part(folder: Path, name: str) -> ReadPart:
    """Read a part.

    Raises:
        InputError: it is missing or damaged.
    """
    path, remedy = folder / f"{name}.pairs.parquet", "remove it and run again"
    about = {key: value for key, value in parquet_meta(path).items() if key in ReadAbout.__dataclass_fields__}
    return ReadPart(
        read_columns(path, ROWS, optional=_MAY_LACK),
        read_columns(folder / f"{name}.images.parquet", IMAGES),
        as_record(ReadAbout, about, where=path, remedy=remedy),
    )


def read_prompts(folder: Path, name: str) -> dict[str, str]:
    """Content hash -> prompt, of the pairs of a part that can be used.

    Raises:
        InputError: it is missing or damaged.
    """
    wanted = pa.schema([ROWS.field(column) for column in ("prompt_sha256", "prompt", "fault", "unread")])
    rows = read_columns(folder / f"{name}.pairs.parquet", wanted)
    good = rows.filter(pc.and_(pc.equal(rows["fault"], ""), pc.equal(rows["unread"], "")))
    return dict(zip(good["prompt_sha256"].to_pylist(), good["prompt"].to_pylist(), strict=True))
