"""Files of records: what JSON, a line of JSON or a row of parquet holds is a frozen dataclass; checked when read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa

from finepref.core.errors import InputError, cut, first_line
from finepref.core.files import iterate_parquet, parquet_columns, parse_json, read_json, read_parquet, reading
from finepref.core.text import as_typed, inert

Record = TypeVar("Record")
FIELDS = "check its quotes and commas"
ARROW = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def as_record(kind: type[Record], value: object, *, where: object, remedy: str) -> Record:
    """A value read from JSON as a dataclass of `kind`, its fields checked against their annotations.

    Raises:
        InputError: a field is missing or of another type; names the first one.
    """
    from pydantic import ValidationError

    try:
        return cast(Record, _adapter(cast(Any, kind)).validate_python(value))
    except ValidationError as error:
        first = error.errors()[0]
        place = cut(".".join(map(str, first["loc"])))
        what = f"{place}: {first['msg'].lower()}" if place else "it is not of the form that is read here"
        raise InputError(what, where=where, remedy=remedy) from None


def read_record(
    path: str | Path,
    kind: type[Record],
    *,
    version: int,
    remedy: str,
    flat: Sequence[str] = (),
    oldest: int | None = None,
) -> Record:
    """Read a JSON file of one record; a file without a `version` is read as it is.

    Args:
        version: the newest that is known. flat: fields that are records whose entries the file holds beside the others.
        oldest: the oldest version that is known; None: only the newest is.

    Raises:
        InputError: no such file, not JSON, not such a record, or of a newer version.
    """
    held = read_json(path, remedy=remedy)
    found = held.get("version", version) if isinstance(held, dict) else version
    if found not in range(version if oldest is None else oldest, version + 1):
        what = f"version {cut(str(found))} is not known here"
        raise InputError(what, where=path, remedy="use the finepref that wrote it")
    if isinstance(held, dict):
        held = {**held, **dict.fromkeys(flat, held)}
    return as_record(kind, held, where=path, remedy=remedy)


def read_yaml(path: Path, *, remedy: str) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        InputError: it cannot be read, is not YAML, or holds no mapping.
    """
    from finepref.formats.yamltext import plain, yaml_node

    with reading(path, "a readable YAML file", remedy=remedy, missing=remedy):
        text = path.read_text(encoding="utf-8-sig")
    held = plain(yaml_node(text, where=path))
    if not isinstance(held, dict):
        raise InputError("the file must be a mapping of settings", where=path, remedy="write `key: value` lines")
    return held


def read_csv(path: str | Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a csv file.

    Raises:
        InputError: it cannot be read, lacks a needed column, or has no row.
    """
    with reading(path, "a readable csv file", remedy=FIELDS, missing="check the path"):
        reader = csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8-sig"), newline=""))
        rows, names = list(reader), reader.fieldnames or []
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            what = f"row {number} has another number of fields than the header"
            raise InputError(what, where=path, remedy=FIELDS)
    rows = [{name: as_typed(cell) for name, cell in row.items()} for row in rows]
    for name in needed:
        if name not in names:
            raise InputError(f"column '{name}' is missing", where=path, remedy="it needs " + ", ".join(needed))
    if not rows:
        raise InputError("no row in it", where=path, remedy="write at least one row")
    return rows


def json_lines(path: Path, *, remedy: str) -> Iterator[tuple[str, Any]]:
    """(place, value) of every line of JSON in a file that is not blank, read one by one.

    Raises:
        InputError: a line that is not JSON, or bytes that are not utf-8.
    """
    with reading(path, "a readable file", missing="check the path"), path.open(encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                try:
                    value = parse_json(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"not valid JSON ({first_line(error)})", where=where, remedy=remedy) from None
                yield where, value


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """At least one row as csv, with the names of the first as header; no cell is a formula (`core.text.inert`)."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: inert(cell) for name, cell in row.items()} for row in rows)
    return buffer.getvalue()


def schema(kind: type, **types: pa.DataType) -> pa.Schema:
    """The columns of a table whose rows are `kind`; types: other than string, int64 and float64."""
    return pa.schema([(field.name, types.get(field.name) or ARROW[str(field.type)]) for field in fields(kind)])


def to_table(rows: Iterable[Any], columns: pa.Schema) -> pa.Table:
    """Rows as a table with these columns."""
    rows = list(rows)
    return pa.table({name: [getattr(row, name) for row in rows] for name in columns.names}, schema=columns)


def read_columns(
    path: str | Path, columns: pa.Schema, *, optional: Sequence[str] = (), before: Mapping[str, str] | None = None
) -> pa.Table:
    """These columns of a parquet file, of these types and in this order. optional: may hold nulls, as numbers may.

    before: columns that older files lack, and what they then held.

    Raises:
        InputError: the file cannot be read, a column is missing or of another type, or a value is missing.
    """
    pieces = [*iterate_columns(path, columns, optional=optional, before=before)]
    return pa.concat_tables(pieces) if pieces else columns.empty_table()


def iterate_columns(
    path: str | Path,
    columns: pa.Schema,
    *,
    optional: Sequence[str] = (),
    before: Mapping[str, str] | None = None,
    rows: int | None = None,
) -> Iterator[pa.Table]:
    """`read_columns`, some rows after the others. rows: how many at most; None: all at once."""
    lacking = {name: value for name, value in (before or {}).items() if name not in parquet_columns(path)}
    named, start = [name for name in columns.names if name not in lacking], 0
    for table in [read_parquet(path, named)] if rows is None else iterate_parquet(path, named, rows):
        for name, value in lacking.items():
            table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
        table = table.select(columns.names).replace_schema_metadata(None)
        for column in columns:
            with reading(path, f"a table whose {column.name!r} is {column.type}"):
                table = table.set_column(columns.names.index(column.name), column, table[column.name].cast(column.type))
            if table[column.name].null_count and not (column.name in optional or pa.types.is_floating(column.type)):
                row = start + table[column.name].is_null().index(True).as_py()
                raise InputError(f"row {row} has no {column.name!r}", where=path, remedy="write it again")
        yield table
        start += table.num_rows


def iterate_rows(path: str | Path, kind: type[Record], columns: pa.Schema) -> Iterator[Record]:
    """The rows of a parquet file in order; a null number is nan.

    Raises:
        InputError: see `read_columns`.
    """
    numbers = [field.name for field in columns if pa.types.is_floating(field.type)]
    for batch in read_columns(path, columns).to_batches(max_chunksize=65536):
        for row in batch.to_pylist():
            row.update({name: math.nan for name in numbers if row[name] is None})
            yield kind(**row)


def parse_lines(kind: type[Record], text: str, where: object) -> Iterator[tuple[str, Record]]:
    """(place, row) of every line of JSON that is not empty, its values of their declared types.

    Raises:
        InputError: a line is not JSON, lacks a key, or holds a value of another type.
    """
    from pydantic import ValidationError

    adapter = _adapter(cast(Any, kind))
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{where}, line {number}"
        if line.strip():
            try:
                row = adapter.validate_json(line, strict=True)
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join(map(str, first["loc"]))
                what = f"{key}: {first['msg'].lower()}" if key else first["msg"]
                raise InputError(what, where=place, remedy="write the file again") from None
            yield place, row


def to_pandas(rows: Iterable[Any]) -> Any:
    """Rows as a pandas data frame, a column a field.

    Raises:
        InputError: pandas is not installed.
    """
    return frame([asdict(row) for row in rows])


def frame(data: Any) -> Any:
    """What pandas makes a data frame of.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise InputError("pandas is not installed", where="to_pandas", remedy="pip install pandas") from None
    return pandas.DataFrame(data)
