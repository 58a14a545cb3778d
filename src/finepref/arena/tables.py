"""Batches of the wanted columns of csv, json, jsonl and parquet files; no other column is ever read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from finepref.core.errors import InputError, nearest

SUFFIXES = (".parquet", ".csv", ".jsonl", ".json")
ROWS = 1 << 17  # rows of one batch
CSV_BLOCK = 1 << 24


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """The vote files of these files and folders, folders searched deeply and in name order.

    Raises:
        InputError: a path is missing, a folder holds no vote file, a suffix is unknown.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
            if not inside:
                raise InputError(
                    "no vote file in this folder", where=path, remedy="vote files end in " + ", ".join(SUFFIXES)
                )
            found += inside
        elif not path.exists():
            raise InputError("no such file", where=path, remedy="check the path")
        elif path.suffix not in SUFFIXES:
            raise InputError(f"unknown file type {path.suffix!r}", where=path, remedy=nearest(path.suffix, SUFFIXES))
        else:
            found.append(path)
    if not found:
        raise InputError("no vote file was named", remedy="name at least one file or folder")
    return found


def columns_of(path: Path) -> tuple[list[str], list[str]]:
    """The columns of a file, and those of them that hold no names (bytes, lists, structs)."""
    if path.suffix == ".parquet":
        schema = _guard(path, lambda: pq.read_schema(path))
        return schema.names, [field.name for field in schema if not _nameable(field.type)]
    if path.suffix == ".csv":
        with _open_csv(path, None) as reader:
            return reader.schema.names, []
    first = next(_records(path), None)
    if first is None:
        raise InputError("the file is empty", where=path, remedy="give at least one vote")
    return list(first), [name for name, value in first.items() if isinstance(value, dict | list)]


def batches(path: Path, wanted: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches with the wanted columns of one file, string columns of parquet files as dictionaries."""
    if path.suffix == ".parquet":
        yield from _parquet(path, wanted)
    elif path.suffix == ".csv":
        with _open_csv(path, wanted) as reader:
            while True:
                batch = _guard(path, lambda: next(reader, None))
                if batch is None:
                    return
                yield batch.select(wanted)
    else:
        rows: list[dict[str, Any]] = []
        for record in _records(path):
            rows.append(record)
            if len(rows) == ROWS:
                yield _as_batch(path, rows, wanted)
                rows = []
        if rows:
            yield _as_batch(path, rows, wanted)


def _parquet(path: Path, wanted: list[str]) -> Iterator[pa.RecordBatch]:
    schema = _guard(path, lambda: pq.read_schema(path))
    missing = [name for name in wanted if name not in schema.names]
    if missing:
        raise InputError(f"column {missing[0]!r} is missing", where=path, remedy="the files before it have it")
    text = [name for name in wanted if _is_text(schema.field(name).type)]
    with _guard(path, lambda: pq.ParquetFile(path, read_dictionary=text, memory_map=True)) as file:
        iterator = file.iter_batches(batch_size=ROWS, columns=wanted, use_threads=False)
        while True:
            batch = _guard(path, lambda: next(iterator, None))
            if batch is None:
                return
            yield batch.select(wanted)


def _open_csv(path: Path, wanted: list[str] | None) -> Any:
    def opened(types: dict[str, pa.DataType] | None) -> Any:
        return pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=CSV_BLOCK, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted, column_types=types, strings_can_be_null=False
            ),
        )

    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=path, remedy="give at least one vote")
    return _guard(path, lambda: opened(dict.fromkeys(wanted, pa.string()) if wanted else None))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as handle:
        try:
            if path.suffix == ".json":
                found = json.load(handle)
                yield from (
                    _record(path, row, value) for row, value in enumerate(found if isinstance(found, list) else [found])
                )
                return
            row = 0
            for line in handle:
                if line.strip():
                    yield _record(path, row, json.loads(line))
                    row += 1
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"not valid JSON ({error})", where=path, remedy="write one JSON object per line") from None


def _record(path: Path, row: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError("the row is not a JSON object", where=f"{path}, row {row}", remedy="write one object per vote")
    return value


def _as_batch(path: Path, rows: list[dict[str, Any]], wanted: list[str]) -> pa.RecordBatch:
    columns = []
    for name in wanted:
        values = [row.get(name) for row in rows]
        if any(isinstance(value, dict | list) for value in values):
            raise InputError(f"column {name!r} holds lists or objects", where=path, remedy="name a column of text")
        columns.append(pa.array([None if v is None or v != v else str(v) for v in values], pa.string()))
    return pa.RecordBatch.from_arrays(columns, names=wanted)


def _guard(path: Path, action: Any) -> Any:
    try:
        return action()
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot be read ({first})", where=path, remedy="write the file again") from None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _nameable(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
