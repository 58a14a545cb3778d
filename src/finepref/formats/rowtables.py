"""Rows of exchanged files as frozen dataclasses: to and from parquet, from lines of JSON, as a data frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from finepref.core.errors import InputError
from finepref.core.files import read_parquet

T = TypeVar("T")
ARROW = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}


def schema(kind: type, **types: pa.DataType) -> pa.Schema:
    """The columns of a table whose rows are `kind`; types: other than string, int64 and float64."""
    return pa.schema([(field.name, types.get(field.name) or ARROW[str(field.type)]) for field in fields(kind)])


def to_table(rows: Iterable[Any], columns: pa.Schema) -> pa.Table:
    """Rows as a table with these columns."""
    rows = list(rows)
    return pa.table({name: [getattr(row, name) for row in rows] for name in columns.names}, schema=columns)


def iterate_rows(path: str | Path, kind: type[T], columns: pa.Schema) -> Iterator[T]:
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


def parse_lines(kind: type[T], text: str, where: object) -> Iterator[tuple[str, T]]:
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
