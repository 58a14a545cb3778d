"""Files of records: what JSON, a line of JSON or a row of parquet holds is a frozen dataclass; checked when read."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from finepref.core.errors import InputError
from finepref.core.files import read_json, read_parquet
from finepref.core.text import as_typed, inert

Record = TypeVar("Record")
ARROW = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}


def as_record(kind: type[Record], value: object, *, where: object, remedy: str) -> Record:
    """A value read from JSON as a dataclass of `kind`, its fields checked against their annotations.

    Raises:
        InputError: a field is missing or of another type; names the first one.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{place}: {first['msg'].lower()}", where=where, remedy=remedy) from None


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
    held = read_json(path)
    found = held.get("version", version) if isinstance(held, dict) else version
    if found not in range(version if oldest is None else oldest, version + 1):
        raise InputError(f"version {found} is not known here", where=path, remedy="use the finepref that wrote it")
    if isinstance(held, dict):
        held = {**held, **dict.fromkeys(flat, held)}
    return as_record(kind, held, where=path, remedy=remedy)


def read_yaml(path: Path, *, remedy: str) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        InputError: it cannot be read, is not YAML, or holds no mapping.
    """
    import yaml

    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = f"not a readable YAML file ({' '.join(str(error).split())})"
        raise InputError(what, where=path, remedy=remedy) from None
    if not isinstance(held, dict):
        raise InputError("the file must be a mapping of settings", where=path, remedy="write `key: value` lines")
    return held


def read_csv(path: str | Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a csv file.

    Raises:
        InputError: it cannot be read, lacks a needed column, or has no row.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            rows = [
                {name: as_typed(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
                for row in reader
            ]
            names = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a readable csv file ({error})", where=path, remedy="check the path") from None
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
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield f"{path}, line {number}", json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON ({error})", where=f"{path}, line {number}", remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not utf-8 text ({error.reason})", where=path, remedy="save it as utf-8") from None


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


def iterate_rows(path: str | Path, kind: type[Record], columns: pa.Schema) -> Iterator[Record]:
    """The rows of a parquet file in order; a null number is nan.

    Raises:
        InputError: the file cannot be read, or a column is missing or of another type.
    """
    table = read_parquet(path, columns.names).select(columns.names)
    try:
        table = table.replace_schema_metadata(None).cast(columns)
    except pa.ArrowException as error:
        raise InputError(f"a column is of another type ({error})", where=path, remedy="write it again") from None
    numbers = [field.name for field in columns if pa.types.is_floating(field.type)]
    for batch in table.to_batches(max_chunksize=65536):
        for row in batch.to_pylist():
            row.update({name: math.nan for name in numbers if row[name] is None})
            yield kind(**row)


def parse_lines(kind: type[Record], text: str, where: object) -> Iterator[tuple[str, Record]]:
    """(place, row) of every line of JSON that is not empty, its values of their declared types.

    Raises:
        InputError: a line is not JSON, lacks a key, or holds a value of another type.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(kind)
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
    try:
        import pandas
    except ImportError:
        raise InputError("pandas is not installed", where="to_pandas", remedy="pip install pandas") from None
    return pandas.DataFrame([asdict(row) for row in rows])
