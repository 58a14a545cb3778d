"""A table of preferences in one file: its rows, or batches of its columns. No pandas.

parquet, csv, tsv, jsonl, ndjson and json (an array, or objects one after the other), in any spelling of the ending.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from finepref.core.errors import InputError, first_line
from finepref.formats.records import json_lines

Row = Mapping[str, Any]
_Batches = Iterator[pa.RecordBatch]
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
ROWS = 1 << 17  # rows of one batch of columns
_ROWS_WITH_IMAGES = 64
_CSV_BLOCK = 1 << 24
_BLOCK = 1 << 20
_BETWEEN = re.compile(r"[,\s]*")


@dataclass(frozen=True, slots=True)
class Table:
    """A source of rows. columns: its names, from the schema or the first row.

    root: the folder where image paths start and that they must stay in; None for rows in memory, whose paths the
    person's own program names.
    rows: in order, with only the given columns where the rest can be skipped. read_batches: the same as Arrow
    columns, text as strings or dictionaries. nameless: columns of bytes, lists or records. version: changes with the
    table (place, size and time of its files; on the hub the commit), not with images that it names.
    """

    path: Path
    columns: tuple[str, ...]
    root: Path | None
    version: str
    rows: Callable[[Sequence[str] | None], Iterator[Row]]
    read_batches: Callable[[Sequence[str]], _Batches] | None = None
    nameless: tuple[str, ...] = ()

    def batches(self, columns: Sequence[str]) -> _Batches:
        """The wanted columns, batch by batch."""
        if self.read_batches is not None:
            return self.read_batches(columns)
        rows = self.rows(columns)
        return (_text_batch(self.path, some, columns) for some in iter(lambda: [*itertools.islice(rows, ROWS)], []))


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, or text that is empty or blank."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def are_missing(column: pa.Array) -> pa.Array:
    """[n] `is_missing` of an Arrow column of text."""
    return pc.equal(pc.utf8_trim_whitespace(column), "").fill_null(True)


def text_column(values: Any) -> pa.Array:
    """Values (a list, an array) as an Arrow array of text, null for None and NaN; Arrow arrays stay as they are."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    values = values.tolist() if hasattr(values, "tolist") else values
    return pa.array([None if v is None or v != v else str(v) for v in values], pa.string())


def file_table(path: Path) -> Table:
    """The table of one file.

    Raises:
        InputError: it cannot be read, or has no rows.
    """
    kind = suffix_of(path)
    nameless: list[str] = []
    if kind == ".parquet":
        with _readable(path):
            schema = pq.read_schema(path)
        columns, text = schema.names, [field.name for field in schema if _is_text(field.type)]
        _check_once(columns, where=path)
        nameless = [field.name for field in schema if not _nameable(field.type)]
        read = lambda wanted: _dicts(_parquet(path, wanted, _ROWS_WITH_IMAGES))  # noqa: E731
        batched = lambda wanted: _parquet(path, wanted, ROWS, text=text)  # noqa: E731
    elif kind in (".csv", ".tsv"):
        first = next(_csv(path), None) if path.stat().st_size else None
        columns = [] if first is None else first.schema.names
        _check_once(columns, where=path)
        read = lambda wanted: _dicts(_csv(path, columns if wanted is None else wanted))  # noqa: E731
        batched = lambda wanted: _csv(path, wanted)  # noqa: E731
    else:
        records = _array_rows if kind == ".json" else _line_rows
        record = next(records(path), {})
        columns, nameless = list(record), [name for name, value in record.items() if isinstance(value, dict | list)]
        read, batched = (lambda wanted: records(path)), None
    if not columns:
        raise InputError("the table has no rows", where=path, remedy="give a table with at least one preference")
    return Table(path, tuple(columns), path.parent, version_of(path), read, batched, tuple(nameless))


def _check_once(columns: Sequence[str], *, where: object) -> None:
    """Refuse a table that has a column twice: which one is meant is not known."""
    twice = next((name for name in columns if list(columns).count(name) > 1), None)
    if twice is not None:
        raise InputError(f"column {twice!r} stands twice", where=where, remedy="keep one, or rename the other")


def memory_table(rows: Sequence[Row]) -> Table:
    """The table of rows in memory; paths in them start where the program runs."""
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    plain = [{name: _as_in_a_file(value) for name, value in row.items()} for row in rows]
    return Table(Path("rows in memory"), columns, None, "in memory", lambda wanted: iter(plain))


def _as_in_a_file(value: Any) -> Any:
    """A path as text, a Pillow image as the bytes of a file; other values as they are."""
    if isinstance(value, Path):
        return str(value)
    if not hasattr(value, "save"):
        return value
    from finepref.core.images import encoded

    return encoded(value)


def _dicts(batches: _Batches) -> Iterator[Row]:
    for batch in batches:
        yield from batch.to_pylist()


def _parquet(path: Path, wanted: Sequence[str] | None, rows: int, *, text: Sequence[str] = ()) -> _Batches:
    """Batches of a parquet file; text: columns that become dictionaries."""
    names = None if wanted is None else list(wanted)
    coded = [name for name in text if name in (wanted or ())]
    with _readable(path), pq.ParquetFile(path, read_dictionary=coded, memory_map=bool(text)) as file:
        yield from file.iter_batches(batch_size=rows, columns=names, use_threads=not text)


def _csv(path: Path, wanted: Sequence[str] | None = None) -> _Batches:
    """Batches of a csv or tsv file, the wanted columns as text."""
    types = dict.fromkeys(wanted or (), pa.string())
    read = pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK, use_threads=False)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True, delimiter="\t" if suffix_of(path) == ".tsv" else ",")
    convert = pyarrow.csv.ConvertOptions(include_columns=list(types), column_types=types, strings_can_be_null=False)
    with _readable(path), pyarrow.csv.open_csv(path, read, parse, convert) as reader:
        yield from reader


def _line_rows(path: Path) -> Iterator[Row]:
    for where, value in json_lines(path, remedy="one object a line"):
        yield _object(value, where=where)


def _array_rows(path: Path) -> Iterator[Row]:
    """Objects of one big JSON array, read in blocks (HPDv3's is too large to load at once)."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as handle:
        blocks = _decoded(path, iter(lambda: handle.read(_BLOCK), ""))
        text = next(blocks, "")
        array = text.lstrip().startswith("[")
        at, number = text.index("[") + 1 if array else 0, 0
        while True:
            at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
            if text.startswith("]", at) and array:
                return
            try:
                value, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                more = next(blocks, "")
                if not more and at == len(text) and not array:
                    return
                if not more:
                    where = f"{path}: object {number}"
                    raise InputError(f"not valid JSON ({error.msg})", where=where, remedy="fetch it again") from None
                text, at = text[at:] + more, 0
                continue
            yield _object(value, where=f"{path}: object {number}")
            at, number = end, number + 1


def _decoded(path: Path, pieces: Iterator[str]) -> Iterator[str]:
    try:
        yield from pieces
    except UnicodeDecodeError as error:
        raise InputError(f"not utf-8 text ({error.reason})", where=path, remedy="save it as utf-8") from None


def _object(value: Any, *, where: str) -> Row:
    if not isinstance(value, dict):
        raise InputError("not a JSON object", where=where, remedy="write one JSON object for each row")
    return value


def _text_batch(path: Path, rows: list[Row], wanted: Sequence[str]) -> pa.RecordBatch:
    columns = []
    for name in wanted:
        values = [row.get(name) for row in rows]
        if any(isinstance(value, dict | list | bytes) for value in values):
            raise InputError(f"column {name!r} holds lists or objects", where=path, remedy="name a column of text")
        columns.append(text_column(values))
    return pa.RecordBatch.from_arrays(columns, names=list(wanted))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What Arrow says of a file that it cannot read, in one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot be read ({first_line(error)})", where=path, remedy="write the file again") from None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _nameable(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def version_of(file: Path) -> str:
    """Changes with the file: its place, size and time."""
    state = file.stat()
    return f"{file.resolve()} {state.st_size} {state.st_mtime_ns}"


def suffix_of(path: Path) -> str:
    """The kind of a file by its name, in small letters."""
    return path.suffix.lower()
