"""Files that are whole or absent: temporary name (core/locks), fsync, rename. Parquet with provenance in its footer."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finepref.core.errors import InputError
from finepref.core.locks import HELD, temporary

FOOTER = b"finepref"


def fsync(path: Path) -> None:
    """See that what was written is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def followed(path: str | Path) -> Path:
    """Where a path leads, so that a link is never replaced; what it leads to may be missing, if it is no link.

    Raises:
        InputError: a link that leads nowhere: what would be made there was not asked for.
    """
    path = Path(path)
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            remedy = "remove it, or name another file or folder"
            raise InputError("a link that leads nowhere", where=place, remedy=remedy)
    return Path(os.path.realpath(path))


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on a clean exit it becomes `path`, on an error it is removed."""
    place = followed(path)
    with temporary(place.parent) as made:
        yield made
        fsync(made)
        os.replace(made, place)
        fsync(place.parent)


@contextmanager
def atomic_folder(path: str | Path, *, own: Sequence[str] = ()) -> Iterator[Path]:
    """Like `atomic_file` for a folder. A folder that is already at `path` is replaced only at the end.

    own: patterns of the files that we write there. What else stands in the old folder is taken over to the new one.
    """
    place = followed(path)
    with temporary(place.parent, folder=True) as made:
        yield made
        for entry in sorted(made.rglob("*")):
            fsync(entry)
        if place.exists():
            _take_over(place, made, own)
            with temporary(place.parent, folder=True) as old:
                os.replace(place, old)
                os.replace(made, place)
        else:
            os.replace(made, place)
        fsync(place.parent)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a relative name (with forward slashes, which * crosses) has one of these forms."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _take_over(old: Path, new: Path, own: Sequence[str]) -> None:
    """Link the files of `old` that are neither in `new` nor ours into `new`."""
    for file in (entry for entry in old.rglob("*") if entry.is_symlink() or not entry.is_dir()):
        name = file.relative_to(old)
        if HELD.fullmatch(name.name) or matches(name.as_posix(), own) or os.path.lexists(new / name):
            continue
        (new / name.parent).mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, new / name, follow_symlinks=False)
        except OSError:  # a file system without hard links
            shutil.copy2(file, new / name, follow_symlinks=False)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (utf-8) so that a reader sees the old file or the whole new one."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def finite(value: Any) -> Any:
    """`value` with every nan and infinity replaced by None, so that it is valid JSON."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    elif hasattr(value, "tolist"):
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, indented; nan and infinity become null; a record with `tolist` (arrays) becomes a list."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def _reading(path: str | Path, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError("no such file", where=path, remedy="run the stage that writes it first") from None
    except (pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not {what} ({error})", where=path, remedy="write it again") from None
    except OSError as error:
        what = "a folder, not a file" if Path(path).is_dir() else f"it cannot be read ({error})"
        raise InputError(what, where=path, remedy="name a file that you can read") from None


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or broken one is an `InputError` with its place."""
    with _reading(path, "valid JSON"):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def write_parquet(path: str | Path, table: pa.Table, meta: Mapping[str, Any] | None = None) -> None:
    """Write a parquet file whose footer carries `meta` (provenance) as JSON."""
    footer = dict(table.schema.metadata or {})
    footer[FOOTER] = json.dumps(finite(dict(meta or {})), ensure_ascii=False).encode()
    with atomic_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(footer), temporary, compression="zstd")


def parquet_columns(path: str | Path) -> list[str]:
    """Names of the columns of a parquet file; a missing or broken file is an `InputError`."""
    with _reading(path, "a readable parquet file"):
        return list(pq.read_schema(Path(path)).names)


def read_parquet(path: str | Path, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet file; a missing or broken one, or a missing column, is an `InputError`."""
    present = parquet_columns(path)
    missing = [name for name in columns or () if name not in present]
    if missing:
        remedy = f"it has {', '.join(sorted(present))}"
        raise InputError(f"column {missing[0]!r} is missing", where=path, remedy=remedy)
    with _reading(path, "a readable parquet file"):
        return pq.read_table(Path(path), columns=columns)


def parquet_meta(path: str | Path) -> dict[str, Any]:
    """The provenance that `write_parquet` left in the footer; empty for a foreign file."""
    schema = pq.read_schema(Path(path))
    return json.loads((schema.metadata or {}).get(FOOTER, b"{}"))
