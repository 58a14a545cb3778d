"""A table of preferences in one file: its rows, or batches of its columns. No pandas.

parquet, and as text csv, tsv, jsonl, ndjson and json (an array, or objects one after the other), packed (.gz, .zst) or
not, in any spelling of the ending.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finepref.core.errors import InputError
from finepref.core.files import PARQUET, REWRITE, reading
from finepref.core.known import refuse_damaged
from finepref.core.text import MISSING, UNUSABLE, cell_text, visible
from finepref.formats.textfiles import (
    PACKED,
    Line,
    Marks,
    csv_header,
    csv_lines,
    json_rows,
    marks_of,
)

Row = Mapping[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
ROWS = 1 << 17  # lines of text of one batch of columns
PARQUET_ROWS, PARQUET_BYTES = 1 << 19, 16e6  # at most in one batch of a parquet file
RECURS = 8.0  # bytes of a cell up to which a column of text is one of words that recur
_ROWS_WITH_IMAGES = 64


class Batch(NamedTuple):
    """Rows of some columns, text as strings or dictionaries. at: [n] place of each. faults: rows that are not there.

    number: [n] of each row among all of the batch, faults included; size: how many those are. repeats: [n] how many
    equal rows each stands for; None: itself.
    """

    columns: pa.RecordBatch
    at: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    size: int
    faults: Sequence[Line] = ()
    repeats: npt.NDArray[np.int64] | None = None


class Parquet(NamedTuple):
    """A parquet file: its name, and where pyarrow finds it. filesystem: where it lies; None: on this disk."""

    path: Path
    key: str = ""
    filesystem: Any = None

    def opened(self, **options: Any) -> pq.ParquetFile:
        """The file. What lies elsewhere is fetched in large pieces ahead of time."""
        ahead = self.filesystem is not None
        return pq.ParquetFile(self.key or self.path, filesystem=self.filesystem, pre_buffer=ahead, **options)

    def metadata(self) -> pq.FileMetaData:
        """Its footer."""
        return pq.read_metadata(self.key or self.path, filesystem=self.filesystem)


@dataclass(frozen=True, slots=True)
class Table:
    """A source of rows. columns: its names, over all of its rows.

    root: the folder where image paths start and that they must stay in; None for rows in memory, whose paths the
    person's own program names.
    lines: every row in order, with only the given columns where the rest can be skipped, faults included. unit: what
    `Line.at` counts. read_batches: the same as Arrow columns. nameless: columns of bytes, lists or records. version:
    changes with the table (place, size and time of its files; on the hub the commit), not with images that it names.
    notes: sentences on how it was read. first: number of its first row, of a part of a table. apart: whether parts
    of it can be read. parquet: the file, where it is one. identify: what tells its content from another, of what lies
    at an address, on the hub, or comes from a query; None: its file's content does.
    """

    path: Path
    columns: tuple[str, ...]
    root: Path | None
    version: str
    lines: Callable[[Sequence[str] | None], Iterator[Line]]
    unit: str = "row"
    read_batches: Callable[[Sequence[str]], Iterator[Batch]] | None = None
    nameless: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    first: int = 0
    apart: bool = True
    parquet: Parquet | None = None
    identify: Callable[[], str] | None = None

    def place(self, at: int) -> str:
        """File and row or line, for messages."""
        return f"{self.path}, line {at}" if self.unit == "line" else f"{self.path}: {self.unit} {at}"

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """The wanted columns, batch by batch."""
        if self.read_batches is not None:
            return self.read_batches(columns)
        lines = self.lines(columns)
        return (_text_batch(self, some, columns) for some in iter(lambda: [*itertools.islice(lines, ROWS)], []))


def are_missing(column: pa.Array) -> pa.Array:
    """[n] `core.text.is_missing` of an Arrow column of text."""
    words = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    return pc.is_in(words, pa.array(sorted(MISSING), words.type)).fill_null(True)


def are_no_prompts(column: pa.Array) -> pa.Array:
    """[n] whether `core.text.fault_of_prompt` finds a fault in an Arrow column of text."""
    return pc.or_(are_missing(column), pc.match_substring_regex(column, f"[{UNUSABLE}]").fill_null(True))


def text_column(values: Any) -> pa.Array:
    """Values (a list, an array) as an Arrow array of text, null for None and NaN; Arrow arrays stay as they are."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    values = values.tolist() if hasattr(values, "tolist") else values
    try:
        return pa.array(map(cell_text, values), pa.string())
    except UnicodeEncodeError:
        raise InputError("half of a character (a lone surrogate)", remedy="write the text again as utf-8") from None


def file_table(path: Path, encoding: str | None = None) -> Table:
    """The table of one file. encoding: of text; None: utf-8.

    Raises:
        InputError: it cannot be read, has a column twice, or has no rows.
    """
    kind = suffix_of(path)
    unit = "line"
    notes: tuple[str, ...] = ()
    nameless: list[str] = []
    if kind == ".parquet":
        with reading(path, PARQUET):
            refuse_damaged(path, remedy=REWRITE)
        return parquet_table(Parquet(path), root=path.parent, version=version_of(path))
    if kind in (".csv", ".tsv"):
        mark = marks_of(path, encoding)
        columns = csv_header(path, encoding, mark)
        usual = "\t" if kind == ".tsv" else ","
        if mark != Marks(usual) and len(columns) > 1:
            notes = (f"{path}: its columns are separated by {mark.name}",)
        lines = lambda wanted: csv_lines(path, encoding, mark)  # noqa: E731
    else:
        found: dict[str, bool] = {}
        faulty: Line | None = None
        for line in json_rows(path, encoding):
            faulty = faulty or (line if line.fault else None)
            for name, value in line.cells.items():
                found[name] = found.get(name, False) or isinstance(value, dict | list)
        columns, nameless = list(found), [name for name, nested in found.items() if nested]
        unit = "object" if kind == ".json" else "line"
        if faulty and not columns:
            raise InputError(faulty.fault, where=f"{path}, {unit} {faulty.at}", remedy="write one JSON object a row")
        lines = lambda wanted: json_rows(path, encoding)  # noqa: E731
    _check_columns(columns, where=path)
    return Table(path, tuple(columns), path.parent, version_of(path), lines, unit, None, tuple(nameless), notes)


def parquet_table(file: Parquet, *, root: Path, version: str) -> Table:
    """The table of a parquet file. root, version: of `Table`."""
    with reading(file.path, PARQUET), file.opened() as held:
        schema = held.schema_arrow
    _check_columns(schema.names, where=file.path)
    text = [field.name for field in schema if _is_text(field.type)]
    return Table(
        file.path, tuple(schema.names), root, version, lambda wanted: _parquet_lines(file, wanted), "row",
        lambda wanted: _parquet_batches(file, wanted, text), nameless_of(schema), parquet=file,
    )  # fmt: skip


def nameless_of(schema: pa.Schema) -> tuple[str, ...]:
    """The columns of bytes, lists and records."""
    return tuple(field.name for field in schema if not _nameable(field.type))


def _check_columns(columns: Sequence[str], *, where: object) -> None:
    """Refuse a table without columns, or with one twice: which one is meant is not known."""
    twice = next((name for name in columns if list(columns).count(name) > 1), None)
    if twice == "":
        what = "its first line has several empty cells, so it is no header"
        raise InputError(what, where=where, remedy="begin with the names of all columns")
    if twice is not None:
        raise InputError(f"column {visible(twice)!r} stands twice", where=where, remedy="keep one, or rename the other")
    if not columns:
        raise InputError("the table has no rows", where=where, remedy="give a table with at least one preference")


def memory_table(rows: Sequence[Row]) -> Table:
    """The table of rows in memory; paths in them start where the program runs."""
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            what = f"{type(row).__name__}, not a mapping of columns"
            raise InputError(what, where=f"rows in memory: row {number}", remedy="give dicts, or files alone")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    plain = [Line(at, {name: _as_in_a_file(value) for name, value in row.items()}) for at, row in enumerate(rows)]
    return Table(Path("rows in memory"), columns, None, "in memory", lambda wanted: iter(plain))


def _as_in_a_file(value: Any) -> Any:
    """A path as text, a Pillow image as the bytes of a file; other values as they are."""
    if isinstance(value, Path):
        return str(value)
    if not hasattr(value, "save"):
        return value
    from finepref.core.images import encoded

    return encoded(value)


def row_count(table: Table) -> int:
    """Rows of a table, without reading images."""
    if table.parquet is not None:
        return int(table.parquet.metadata().num_rows)
    return sum(1 for _ in table.lines(table.columns[:1]))


def row_groups(file: Parquet) -> list[int]:
    """Rows of each part of a parquet file that is read without the others."""
    return _row_groups(file.metadata())


def _row_groups(meta: pq.FileMetaData) -> list[int]:
    return [meta.row_group(number).num_rows for number in range(meta.num_row_groups)]


def parquet_rows(file: Parquet, within: range) -> Callable[[Sequence[str] | None], Iterator[Line]]:
    """`Table.lines` of some rows of a parquet file; only their row groups are read."""
    return lambda wanted: _parquet_lines(file, wanted, within)


def _parquet_lines(held: Parquet, wanted: Sequence[str] | None, within: range | None = None) -> Iterator[Line]:
    names = None if wanted is None else list(wanted)
    with reading(held.path, PARQUET), held.opened() as file:
        ends = [0, *itertools.accumulate(_row_groups(file.metadata))]
        within = range(ends[-1]) if within is None else within
        groups = [n for n, (a, b) in enumerate(itertools.pairwise(ends)) if a < within.stop and b > within.start]
        batches = file.iter_batches(_ROWS_WITH_IMAGES, row_groups=groups, columns=names)
        rows = (row for batch in batches for row in rows_of_batch(batch))
        yield from (Line(at, row) for at, row in enumerate(rows, ends[min(groups, default=0)]) if at in within)


def rows_of_batch(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of an Arrow batch."""
    kinds = [field.with_type(_without_nanoseconds(field.type)) for field in batch.schema]
    return list(batch.cast(pa.schema(kinds), safe=False).to_pylist())


def _without_nanoseconds(kind: pa.DataType) -> pa.DataType:
    """A type of times that Python holds; others as they are."""
    return pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) and kind.unit == "ns" else kind


def _parquet_batches(held: Parquet, wanted: Sequence[str], text: Sequence[str]) -> Iterator[Batch]:
    """Batches of a parquet file; text: columns that become dictionaries, where the same words recur."""
    with reading(held.path, PARQUET):
        size = _sizes(held.metadata())
        coded = [name for name in text if name in wanted and size.get(name, 0.0) <= RECURS]
        total = sum(size[name] for name in wanted if name in size)
        rows = max(1, min(PARQUET_ROWS, int(PARQUET_BYTES / max(total, 1.0))))
        with held.opened(read_dictionary=coded, buffer_size=1 << 20) as file:  # buffers are kept to the end
            yield from numbered(file.iter_batches(rows, columns=list(wanted), use_threads=False))


def numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[Batch]:
    """Batches of a table of which every row is there."""
    start = 0
    for columns in map(_without_views, batches):
        number = np.arange(columns.num_rows)
        yield Batch(columns, start + number, number, columns.num_rows)
        start += columns.num_rows


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same with plain text and bytes where columns are views, for which Arrow's functions do less."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    if not any(kind in plain for kind in batch.schema.types):
        return batch
    columns = [column.cast(plain.get(column.type, column.type)) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _sizes(meta: pq.FileMetaData) -> dict[str, float]:
    """Bytes that a cell of each column takes before it is packed, on average."""
    found: dict[str, float] = {}
    for group in (meta.row_group(number) for number in range(meta.num_row_groups)):
        for column in (group.column(place) for place in range(meta.num_columns)):
            name = column.path_in_schema.split(".")[0]
            found[name] = found.get(name, 0.0) + column.total_uncompressed_size / max(meta.num_rows, 1)
    return found


def _text_batch(table: Table, lines: list[Line], wanted: Sequence[str]) -> Batch:
    good = [line for line in lines if not line.fault]
    columns = []
    for name in wanted:
        values = [line.cells.get(name) for line in good]
        if any(isinstance(value, dict | list | bytes) for value in values):
            raise InputError(
                f"column {name!r} holds lists or objects", where=table.path, remedy="name a column of text"
            )
        columns.append(text_column(values))
    batch = pa.RecordBatch.from_arrays(columns, names=list(wanted))
    at = np.fromiter((line.at for line in good), dtype=np.int64, count=len(good))
    number = np.array([k for k, line in enumerate(lines) if not line.fault], dtype=np.int64)
    return Batch(batch, at, number, len(lines), [line for line in lines if line.fault])


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _nameable(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def version_of(file: Path) -> str:
    """Changes with the file: its place, size and time."""
    state = file.stat()
    return f"{file.resolve()} {state.st_size} {state.st_mtime_ns}"


def suffix_of(path: Path) -> str:
    """The kind of a file by its name, in small letters: of a packed one, what is packed."""
    kind = path.suffix.lower()
    inside = Path(path.stem).suffix.lower()
    return inside if kind in PACKED and inside in SUFFIXES[1:] else kind
