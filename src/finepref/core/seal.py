"""A hash of a file's content inside the file: a byte that changed later is found when the file is opened.

`finepref_sha256` stands first in a JSON object, in the header of a safetensors file, in the footer of a parquet file.
It is the SHA-256 of the whole file with its own 64 digits taken as zeros, so header and footer are covered as well. A
file without it is foreign, or an older version wrote it: nothing is known of it then, and nothing is said.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from finepref.core.locks import temporary
from finepref.core.progress import progress

KEY = "finepref_sha256"
BLANK = "0" * 64
CHANGED = "its content has changed since finepref wrote it (its SHA-256 is another)"

_JSON = re.compile(rb'\{\s*"finepref_sha256": *"(.{64})"', re.DOTALL)
_HEADER = re.compile(rb'"finepref_sha256":"(.{64})"', re.DOTALL)
_FOOTER = re.compile(rb"finepref_sha256\x18@(.{64})", re.DOTALL)  # thrift: a text (0x18) of 64 (0x40) bytes
_LONGEST = 1 << 27  # bytes of a header
_BLOCK, _LARGE = 1 << 20, 1 << 30  # a file from here on is hashed with a bar


def sha256_content(path: str | Path, *, blank: int | None = None) -> str:
    """Hex SHA-256 of a file, read once in blocks; a large one shows a bar. blank: where 64 bytes are taken as zeros."""
    digest, at = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        for block in _blocks(file, Path(path)):
            if blank is not None and at < blank + len(BLANK) and blank < at + len(block):
                first, last = max(blank - at, 0), min(blank + len(BLANK) - at, len(block))
                block[first:last] = b"0" * (last - first)
            digest.update(block)
            at += len(block)
    return digest.hexdigest()


def _blocks(file: Any, path: Path) -> Iterator[memoryview]:
    size, held = os.fstat(file.fileno()).st_size, memoryview(bytearray(_BLOCK))
    read = iter(lambda: file.readinto(held), 0)
    total = -(-size // _BLOCK)
    for count in progress(read, f"hash {path.name}", total=total, unit="MiB", hidden=size < _LARGE):
        yield held[:count]


def seal(path: Path) -> None:
    """Write its hash into a file of ours that was just written; a safetensors file without a place for it gets one."""
    found = _found(path)
    if found is None:
        _make_place(path)
        found = _found(path)
    assert found is not None, path
    at, digits = found
    if digits == BLANK:
        digest = sha256_content(path, blank=at)
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(digest.encode())


def sealed_text(value: Mapping[str, Any]) -> str:
    """A JSON object, indented, with the hash of the text first in it."""
    text = json.dumps({KEY: BLANK, **value}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.replace(BLANK, hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest(), 1)


def is_intact(path: Path) -> bool | None:
    """Whether a file has the content that it was sealed with; None where it carries no hash."""
    found = _found(path)
    return None if found is None else sha256_content(path, blank=found[0]).encode() == found[1].encode("latin-1")


def is_sealed(path: Path) -> bool:
    """Whether a file carries a hash of its content."""
    return _found(path) is not None


def _found(path: Path) -> tuple[int, str] | None:
    """(where the digits of a file's hash begin, the digits)."""
    with open(path, "rb") as file:
        pattern, start, region = _region(file, os.fstat(file.fileno()).st_size)
    found = [*pattern.finditer(region)][-1:] if pattern is not _JSON else filter(None, [pattern.match(region)])
    return next(((start + match.start(1), match[1].decode("latin-1")) for match in found), None)


def _region(file: BinaryIO, size: int) -> tuple[re.Pattern[bytes], int, bytes]:
    """Where in a file its hash would stand: how it looks there, where that part begins, its bytes."""
    first = file.read(8)
    file.seek(max(0, size - 8))
    last = file.read(8)
    if last[4:] == b"PAR1":
        start = max(0, size - 8 - min(int.from_bytes(last[:4], "little"), _LONGEST))
        file.seek(start)
        return _FOOTER, start, file.read(size - 8 - start)
    if first[:1] == b"{":
        file.seek(0)
        return _JSON, 0, file.read(256)
    length = int.from_bytes(first, "little")
    file.seek(8)
    return _HEADER, 8, file.read(length) if length <= min(_LONGEST, size) else b""


def _make_place(path: Path) -> None:
    """Put zeros where the hash will stand into the header of a safetensors file, first in its sorted metadata.

    The writer of safetensors gives metadata another order at every call; sorted, equal content is equal bytes.
    """
    with open(path, "rb") as file, temporary(path.parent) as made:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        about = {KEY: BLANK, **dict(sorted(header.pop("__metadata__", {}).items()))}
        text = json.dumps({"__metadata__": about, **header}, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with open(made, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(file, out, _BLOCK)
        os.replace(made, path)
