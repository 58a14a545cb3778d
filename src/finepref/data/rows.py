"""Rows of a table as dictionaries, streamed: parquet in batches, jsonl, json arrays, csv. No torch, no pandas."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finepref.core.errors import InputError

Row = dict[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_CAPTIONS = (".txt", ".caption")
_BATCH = 64
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Table:
    """A source of rows. columns: its names, from the schema or the first row; root: where relative image paths start.

    read: rows in order, with only the given columns where the rest can be skipped. version: changes with the table
    (place, size and time of its files; on the hub the commit), not with images that it names.
    """

    path: Path
    columns: tuple[str, ...]
    root: Path
    read: Callable[[Sequence[str] | None], Iterator[Row]]
    version: str

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Rows in order."""
        return self.read(columns)


def tables(paths: str | Path | Sequence[str | Path]) -> list[Table]:
    """Every table behind the given files, folders, patterns and hub names, in order, sorted inside a folder.

    Raises:
        InputError: nothing there, an unknown kind of file, or a broken one.
    """
    names = [paths] if isinstance(paths, str | Path) else list(paths)
    if not names:
        raise InputError("no data was named", remedy="give files or folders of preferences")
    found: list[Table] = []
    for name in names:
        path = Path(name).expanduser()
        if is_hub_name(str(name)) and not path.exists():
            found.append(_hub_table(str(name)))
        elif path.is_dir() and (path / "w").is_dir() and (path / "l").is_dir():
            found.append(_twin_folders(path))
        else:
            found += [_table(file) for file in _files(path)]
    return found


def versions(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """The version of every table behind the given names, in order: equal while the tables stay as they are."""
    return [table.version for table in tables(paths)]


def count_rows(paths: str | Path | Sequence[str | Path]) -> int | None:
    """Rows of all tables behind the given names, without reading images; None where a hub data set is among them."""
    names = [paths] if isinstance(paths, str | Path) else list(paths)
    if any(is_hub_name(str(name)) and not Path(name).expanduser().exists() for name in names):
        return None
    count = 0
    for table in tables(names):
        if _suffix(table.path) == ".parquet":
            count += pq.read_metadata(table.path).num_rows
        else:
            count += sum(1 for _ in table.rows(()))
    return count


def is_hub_name(name: str) -> bool:
    """Whether a name can be a data set on the hub: `owner/name` or `owner/name:split`."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w\[\]%:+-]+)?", name) is not None


def _hub_table(name: str) -> Table:
    """A data set on the hub, streamed by the `datasets` library; images stay encoded."""
    if importlib.util.find_spec("datasets") is None:
        remedy = "check the path; to read it from the hub, install finepref[datasets]"
        raise InputError("no such file or folder", where=name, remedy=remedy)
    import datasets
    from huggingface_hub import HfApi

    repository, _, split = name.partition(":")
    try:
        version = str(HfApi().dataset_info(repository).sha)
        rows = datasets.load_dataset(repository, split=split or "train", revision=version, streaming=True).decode(False)
        columns = tuple(rows.features or next(iter(rows)))
    except Exception as error:  # both libraries and the http client under them raise many kinds
        what = " ".join(str(error).split()) or type(error).__name__
        remedy = "check name, split and network"
        raise InputError(f"the hub does not hand it out ({what})", where=name, remedy=remedy) from None
    return Table(
        path=Path(name),
        columns=columns,
        root=Path(),
        read=lambda wanted: iter(rows if wanted is None else rows.select_columns(list(wanted))),
        version=version,
    )


def _twin_folders(path: Path) -> Table:
    """Folders `w` and `l` with images of equal names; the caption is the text file beside the winner."""
    winners, losers = _images(path / "w"), _images(path / "l")
    for name in sorted({*winners} ^ {*losers}):
        where, other = (winners[name], "l/") if name in winners else (losers[name], "w/")
        raise InputError(f"no image of this name in {other}", where=where, remedy="give both folders equal names")

    def read(columns: Sequence[str] | None) -> Iterator[Row]:
        for name, image in winners.items():
            notes = [image.with_suffix(suffix) for suffix in _CAPTIONS]
            text = next((note.read_text(encoding="utf-8").strip() for note in notes if note.is_file()), "")
            names = {"chosen_file_name": f"w/{image.name}", "rejected_file_name": f"l/{losers[name].name}"}
            yield names | {"prompt": text}

    columns = ("chosen_file_name", "rejected_file_name", "prompt")
    version = "\n".join(_version(file) for side in ("w", "l") for file in sorted((path / side).iterdir()))
    return Table(path=path, columns=columns, root=path, read=read, version=version)


def _version(file: Path) -> str:
    state = file.stat()
    return f"{file.resolve()} {state.st_size} {state.st_mtime_ns}"


def _images(folder: Path) -> dict[str, Path]:
    """Name without ending -> image of a twin folder, which holds nothing but images and captions.

    Raises:
        InputError: a file of another kind, or two images of one name.
    """
    found: dict[str, Path] = {}
    for file in sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".")):
        kind = _suffix(file)
        if kind in _CAPTIONS:
            continue
        if kind not in _IMAGES:
            kinds = ", ".join((*_IMAGES, *_CAPTIONS))
            raise InputError("neither an image nor a caption", where=file, remedy=f"move it away; known are {kinds}")
        if file.stem in found:
            raise InputError(f"{found[file.stem].name} has the same name", where=file, remedy="keep one of the two")
        found[file.stem] = file
    return found


def _suffix(path: Path) -> str:
    """The kind of a file by its name, in small letters."""
    return path.suffix.lower()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if _suffix(path) not in SUFFIXES:
            raise InputError(
                f"unknown kind of file {path.suffix!r}", where=path, remedy=f"use one of {', '.join(SUFFIXES)}"
            )
        return [path]
    if path.is_dir():
        held = sorted(p for p in path.iterdir() if _suffix(p) in SUFFIXES and not p.name.startswith("."))
        for stem in ("metadata", "pairs", "preferences"):
            named = sorted((p for p in held if p.stem == stem), key=lambda p: SUFFIXES.index(_suffix(p)))
            if named:
                return named
        found = sorted(p for p in path.rglob("*") if _suffix(p) == ".parquet" and not p.name.startswith("."))
        found = found or held
        if found:
            return found
        raise InputError("the folder holds no table", where=path, remedy=f"put a {', '.join(SUFFIXES)} file into it")
    found = sorted(path.parent.glob(path.name)) if any(c in path.name for c in "*?[") else []
    if not found:
        raise InputError("no such file or folder", where=path, remedy="check the path")
    return [file for match in found for file in _files(match)]


def _table(path: Path) -> Table:
    if _suffix(path) == ".parquet":
        try:
            columns = tuple(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"not a readable parquet file ({error})", where=path, remedy="fetch it again") from None
    else:
        first = next(_text_rows(path), None)
        if first is None:
            raise InputError("the table has no rows", where=path, remedy="give a table with at least one preference")
        columns = tuple(first)
    read = _parquet_rows if _suffix(path) == ".parquet" else _text_rows
    return Table(path, columns, path.parent, lambda wanted: read(path, wanted), _version(path))


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH, columns=None if columns is None else list(columns)):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable parquet file ({error})", where=path, remedy="fetch it again") from None


def _text_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    try:
        if _suffix(path) in (".csv", ".tsv"):
            with path.open(newline="", encoding="utf-8-sig") as handle:
                yield from csv.DictReader(handle, delimiter="\t" if _suffix(path) == ".tsv" else ",")
        elif _suffix(path) == ".json":
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
