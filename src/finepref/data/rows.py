"""Rows of a table as dictionaries, streamed: parquet in batches, jsonl, json arrays, csv. No torch, no pandas."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finepref.errors import InputError

Row = dict[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_BATCH = 64
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Table:
    """A file of rows. columns: its names, from the schema or the first row; root: where relative image paths start."""

    path: Path
    columns: tuple[str, ...]
    root: Path

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Rows in file order, with only `columns` where the format can skip the rest."""
        if self.path.suffix == ".parquet":
            yield from _parquet_rows(self.path, columns)
        else:
            yield from _text_rows(self.path)


def tables(paths: str | Path | Sequence[str | Path]) -> list[Table]:
    """Every table behind the given files, folders and patterns, in the order given and sorted inside a folder.

    Raises:
        InputError: nothing there, an unknown kind of file, or a broken one.
    """
    names = [paths] if isinstance(paths, str | Path) else list(paths)
    if not names:
        raise InputError("no data was named", remedy="give files or folders of preferences")
    return [_table(file) for name in names for file in _files(Path(name).expanduser())]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise InputError(
                f"unknown kind of file {path.suffix!r}", where=path, remedy=f"use one of {', '.join(SUFFIXES)}"
            )
        return [path]
    if path.is_dir():
        for stem in ("metadata", "pairs", "preferences"):
            named = [path / f"{stem}{suffix}" for suffix in SUFFIXES if (path / f"{stem}{suffix}").is_file()]
            if named:
                return named
        found = sorted(p for p in path.rglob("*.parquet") if not p.name.startswith("."))
        found = found or sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
        if found:
            return found
        raise InputError("the folder holds no table", where=path, remedy=f"put a {', '.join(SUFFIXES)} file into it")
    found = sorted(path.parent.glob(path.name)) if any(c in path.name for c in "*?[") else []
    if not found:
        raise InputError("no such file or folder", where=path, remedy="check the path")
    return [file for match in found for file in _files(match)]


def _table(path: Path) -> Table:
    if path.suffix == ".parquet":
        try:
            columns = tuple(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"not a readable parquet file ({error})", where=path, remedy="fetch it again") from None
    else:
        first = next(_text_rows(path), None)
        if first is None:
            raise InputError("the table has no rows", where=path, remedy="give a table with at least one preference")
        columns = tuple(first)
    return Table(path=path, columns=columns, root=path.parent)


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH, columns=None if columns is None else list(columns)):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable parquet file ({error})", where=path, remedy="fetch it again") from None


def _text_rows(path: Path) -> Iterator[Row]:
    try:
        if path.suffix in (".csv", ".tsv"):
            with path.open(newline="", encoding="utf-8-sig") as handle:
                yield from csv.DictReader(handle, delimiter="\t" if path.suffix == ".tsv" else ",")
        elif path.suffix == ".json":
            yield from _array_rows(path)
        else:
            with path.open(encoding="utf-8") as handle:
                for number, line in enumerate(handle, start=1):
                    if line.strip():
                        yield _object(line, where=f"{path}: line {number}")
    except UnicodeDecodeError as error:
        raise InputError(f"not utf-8 text ({error.reason})", where=path, remedy="save it as utf-8") from None


def _object(text: str, *, where: str) -> Row:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON ({error})", where=where, remedy="one JSON object a line") from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", where=where, remedy="one JSON object a line")
    return value


def _array_rows(path: Path) -> Iterator[Row]:
    """Objects of one big JSON array, read in blocks (HPDv3's is too large to load at once)."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as handle:
        text = handle.read(_BLOCK)
        at = _skip(text, 0, " \t\r\n")
        if not text.startswith("[", at):
            raise InputError("the JSON file is not an array of objects", where=path, remedy="use an array, or jsonl")
        at, number = at + 1, 0
        while True:
            at = _skip(text, at, ", \t\r\n")
            if text.startswith("]", at):
                return
            try:
                value, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                more = handle.read(_BLOCK)
                if not more:
                    where = f"{path}: object {number}"
                    raise InputError(f"not valid JSON ({error.msg})", where=where, remedy="fetch it again") from None
                text, at = text[at:] + more, 0
                continue
            if not isinstance(value, dict):
                raise InputError("not a JSON object", where=f"{path}: object {number}", remedy="an array of objects")
            yield value
            at, number = end, number + 1


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at
