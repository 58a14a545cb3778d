"""Files that are whole or absent: temporary name (core/locks), fsync, rename. Parquet with provenance in its footer."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finepref.core.addresses import refuse_address
from finepref.core.errors import FineprefError, InputError, cut, first_line
from finepref.core.known import refuse_damaged
from finepref.core.locks import HELD, temporary
from finepref.core.seal import BLANK, KEY, seal, sealed_text

FOOTER = b"finepref"
PARQUET = "a readable parquet file"
REWRITE = "write it again with the stage that wrote it"
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_MASK = os.umask(0)
os.umask(_MASK)


def finish(path: Path) -> None:
    """See that what was written is on the disk, and gives others the rights that a new file gives them.

    safetensors leaves its files to their owner alone (as of 0.8), which would lock a team out of its own weights.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and stat.S_IMODE(found.st_mode) == 0o600:
            os.fchmod(handle, 0o666 & ~_MASK)
        os.fsync(handle)
    finally:
        os.close(handle)


def followed(path: str | Path) -> Path:
    """Where a path leads, so that a link is never replaced; what it leads to may be missing, if it is no link.

    Raises:
        InputError: an address; a link that leads nowhere: what would be made there was not asked for.
    """
    path = Path(path)
    refuse_address(path)
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            remedy = "remove it, or name another file or folder"
            raise InputError("a link that leads nowhere", where=place, remedy=remedy)
    return Path(os.path.realpath(path))


_EMPTY: set[Path] = set()  # places where nothing stood when their making began


@contextmanager
def expected_empty(place: Path) -> Iterator[None]:
    """Where nothing stands at a place now, `atomic_file` refuses to replace what is there when it is first written."""
    if not os.path.lexists(place):
        _EMPTY.add(place)
    try:
        yield
    finally:
        _EMPTY.discard(place)


def _put(made: Path, place: Path) -> None:
    if place not in _EMPTY:
        os.replace(made, place)
        return
    try:
        os.link(made, place)
    except OSError:  # something stands there, or the file system has no hard links
        if os.path.lexists(place):
            what = "it appeared while it was being made, and is not replaced"
            raise InputError(what, where=place, remedy="move it away, or name another file") from None
        os.replace(made, place)
    _EMPTY.discard(place)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on a clean exit it becomes `path`, on an error it is removed."""
    place = followed(path)
    with temporary(place.parent) as made:
        yield made
        finish(made)
        _put(made, place)
        finish(place.parent)


@contextmanager
def atomic_folder(path: str | Path, *, own: Sequence[str] = ()) -> Iterator[Path]:
    """Like `atomic_file` for a folder. A folder that is already at `path` is replaced only at the end.

    own: patterns of the files that we write there. What else stands in the old folder is taken over to the new one.
    """
    place = followed(path)
    with temporary(place.parent, folder=True) as made:
        yield made
        for entry in sorted(made.rglob("*")):
            finish(entry)
        if place.exists():
            _take_over(place, made, own)
            with temporary(place.parent, folder=True) as old:
                os.replace(place, old)
                os.replace(made, place)
        else:
            os.replace(made, place)
        finish(place.parent)


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
        link(file, new / name)


def link(file: Path, place: Path) -> None:
    """Give a file a second name, without reading it where the file system has hard links."""
    try:
        os.link(file, place, follow_symlinks=False)
    except OSError:
        shutil.copy2(file, place, follow_symlinks=False)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (utf-8) so that a reader sees the old file or the whole new one.

    Raises:
        InputError: it names a file whose name is no text; the name stands between quotes.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        name = text[: error.start].rpartition('"')[2] + text[error.start :].partition('"')[0]
        what = "its name is not utf-8 text, and cannot be written down"
        raise InputError(what, where=cut(name), remedy="rename it") from None
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


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


def write_sealed(path: str | Path, value: Mapping[str, Any]) -> None:
    """`write_json` of an object that numbers are read from: with the hash of its content in it (`core.seal`)."""
    write_text(path, sealed_text(finite(value)))


@contextmanager
def reading(
    path: str | Path,
    what: str,
    *,
    remedy: str = "write it again",
    missing: str = "run the stage that writes it first",
    error: type[FineprefError] = InputError,
) -> Iterator[None]:
    """The one place where whatever a library says of a damaged, foreign or absent file becomes one sentence.

    Every `Exception` in the block becomes an `error`, so only the call that reads belongs into it.

    Args:
        path: where it is. what: what it should be, such as "valid JSON". remedy: for a damaged file. missing: for none.

    Raises:
        InputError: it is missing, a folder, no regular file, may not be read, or is not `what`.
    """
    if _is_special(path):
        raise error("neither a file nor a folder", where=path, remedy="save its content to a file and name that")
    try:
        yield
    except FineprefError:
        raise
    except FileNotFoundError as found:
        raise error("no such file", where=path, remedy=missing) from found
    except IsADirectoryError as found:
        raise error("a folder, not a file", where=path, remedy="name a file") from found
    except UnicodeDecodeError as found:
        raise error(f"not utf-8 text ({found.reason})", where=path, remedy="save it as utf-8") from found
    except RecursionError as found:
        raise error(f"not {what} (nested too deeply)", where=path, remedy=remedy) from found
    except Exception as found:
        if isinstance(found, OSError) and found.errno is not None:
            said = f"it cannot be read ({found.strerror})"
            raise error(said, where=path, remedy="name a file that you can read") from found
        raise error(f"not {what} ({first_line(found)})", where=path, remedy=remedy) from found


def _is_special(path: str | Path) -> bool:
    """Whether reading might never end: a pipe, a device, a socket."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError, RecursionError: it is not JSON, is nested too deeply, or holds half of a character, as `\\ud83d`.
    """
    value = json.loads(text)
    if _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"half of a character, \\u{ord(error.object[error.start]):x}") from None
    return value


def read_json(path: str | Path, *, remedy: str = "write it again") -> Any:
    """Read a JSON file; a missing or broken one, or one that changed, is an `InputError` with its place.

    remedy: for a broken one.
    """
    with reading(path, "valid JSON", remedy=remedy):
        value = parse_json(Path(path).read_text(encoding="utf-8-sig"))
        if isinstance(value, dict) and value.pop(KEY, None) is not None:
            refuse_damaged(path, remedy=f"{remedy}, or remove its {KEY} if you changed it yourself")
    return value


def read_object(path: str | Path, *, remedy: str = "write it again") -> dict[str, Any]:
    """Read a JSON file that holds an object; any other is an `InputError` too."""
    held = read_json(path, remedy=remedy)
    if not isinstance(held, dict):
        raise InputError("not a JSON object", where=path, remedy=remedy)
    return held


def write_parquet(path: str | Path, table: pa.Table, meta: Mapping[str, Any] | None = None) -> None:
    """Write a parquet file whose footer carries `meta` (provenance) as JSON."""
    footer = dict(table.schema.metadata or {})
    footer[FOOTER] = json.dumps(finite(dict(meta or {})), ensure_ascii=False).encode()
    schema = table.schema.with_metadata(footer)
    with atomic_file(path) as temporary, sealed_parquet(temporary, schema) as writer:
        writer.write_table(table.replace_schema_metadata(footer))


@contextmanager
def sealed_parquet(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield what writes a parquet file of ours table by table; on a clean exit the hash of its content is in it."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield writer
        writer.add_key_value_metadata({KEY: BLANK})
    seal(path)


def parquet_rows(path: str | Path) -> int:
    """Rows of a parquet file; a missing or broken file is an `InputError`."""
    with reading(path, PARQUET):
        return int(pq.read_metadata(path).num_rows)


def parquet_columns(path: str | Path) -> list[str]:
    """Names of the columns of a parquet file; a missing or broken file is an `InputError`."""
    return list(_parquet_schema(path).names)


def read_parquet(path: str | Path, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet file; a missing or broken one, or a missing column, is an `InputError`."""
    _refuse_missing(path, columns)
    with reading(path, PARQUET):
        refuse_damaged(path, remedy=REWRITE)
        table = pq.read_table(Path(path), columns=columns)
        table.validate(full=True)  # text that is not utf-8 is found here, not where it is used
        return table


def iterate_parquet(path: str | Path, columns: list[str], rows: int) -> Iterator[pa.Table]:
    """`read_parquet` of at most so many rows at a time; what is not asked for yet is not in memory."""
    _refuse_missing(path, columns)
    with reading(path, PARQUET):
        refuse_damaged(path, remedy=REWRITE)
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(rows, columns=columns, use_threads=False):
                batch.validate(full=True)
                yield pa.Table.from_batches([batch])
    pa.default_memory_pool().release_unused()  # else Arrow holds it for what it reads next


def _refuse_missing(path: str | Path, columns: list[str] | None) -> None:
    present = parquet_columns(path)
    missing = [name for name in columns or () if name not in present]
    if missing:
        remedy = f"it has {cut(', '.join(sorted(present)))}"
        raise InputError(f"column {missing[0]!r} is missing", where=path, remedy=remedy)


def parquet_meta(path: str | Path) -> dict[str, Any]:
    """The provenance that `write_parquet` left in the footer; empty for a foreign file."""
    held = (_parquet_schema(path).metadata or {}).get(FOOTER, b"{}")
    with reading(path, "a file of ours: its footer is damaged"):
        refuse_damaged(path, remedy=REWRITE)
        meta = parse_json(held.decode())
    if not isinstance(meta, dict):
        raise InputError("its footer is no record", where=path, remedy="write it again")
    return meta


def _parquet_schema(path: str | Path) -> pa.Schema:
    with reading(path, PARQUET):
        if Path(path).is_dir():  # which Arrow would read as a data set
            raise IsADirectoryError
        return pq.read_schema(Path(path))
