"""Damage: bytes, lines, JSON values, safetensors headers and places of files, drawn from a seeded stream."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

Draw = random.Random
BIG = 10**400
STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    7,
    2**63,
    BIG,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    " ",
    "nan",
    "NaN",
    "-1",
    "é",
    "\u202eabc",
    "a\nb",
    "\x1b[31mred",
    "\ud800",
    "x" * 5000,
    "../../etc/passwd",
    "/etc/passwd",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    "0",
    "1e999",
    [1, "a", None],
    {"": {"": {}}},
)


def any_bytes(draw: Draw, content: bytes) -> bytes:
    """The same file after an accident."""
    ways: tuple[Callable[[Draw, bytes], bytes], ...] = (
        _cut,
        _cut,
        _flip,
        _flip,
        _zeros,
        _swap_lines,
        _drop_line,
        _double_line,
        _insert,
        _empty,
        _other,
        _mark,
        _twice,
    )
    return draw.choice(ways)(draw, content)


def _cut(draw: Draw, content: bytes) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _flip(draw: Draw, content: bytes) -> bytes:
    broken = bytearray(content)
    for _ in range(draw.choice((1, 1, 4, 40)) if broken else 0):
        broken[draw.randrange(len(broken))] = draw.randrange(256)
    return bytes(broken)


def _zeros(draw: Draw, content: bytes) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + bytes(draw.choice((1, 16, 4096))) + content[at:]


def _swap_lines(draw: Draw, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    draw.shuffle(lines)
    return b"".join(lines)


def _drop_line(draw: Draw, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        del lines[draw.randrange(len(lines))]
    return b"".join(lines)


def _double_line(draw: Draw, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    at = draw.randrange(len(lines))
    return b"".join([*lines[:at], lines[at], *lines[at:]])


def _insert(draw: Draw, content: bytes) -> bytes:
    at = draw.randrange(len(content) + 1)
    parts = (
        b'"',
        b",",
        b"{",
        b"[" * 3000,
        b"\xff\xfe",
        b"\x00",
        b"\n",
        b"\r",
        "\u202e".encode(),
        b"\x1b[2J",
        b"9" * 5000,
    )
    return content[:at] + draw.choice(parts) + content[at:]


def _empty(draw: Draw, content: bytes) -> bytes:
    return draw.choice((b"", b"\n", b" ", b"\xef\xbb\xbf"))


def _other(draw: Draw, content: bytes) -> bytes:
    return draw.choice(
        (
            b"null",
            b"[]",
            b"{}",
            b"3",
            b'"text"',
            b"PAR1PAR1",
            b"\x89PNG\r\n\x1a\n",
            b"[" * 20000,
            b'{"a":' * 20000,
            b"PK\x03\x04",
            b"<html>",
            bytes(range(256)),
            b"9" * 5000,
            b"[1,2",
            b"version https://git-lfs.github.com/spec/v1\n",
        )
    )


def _mark(draw: Draw, content: bytes) -> bytes:
    if draw.random() < 0.5:
        return b"\xef\xbb\xbf" + content
    return content.decode("utf-8", "replace").encode(draw.choice(("utf-16", "utf-16-be", "utf-32")))


def _twice(draw: Draw, content: bytes) -> bytes:
    return content + content


def any_json(draw: Draw, value: Any) -> Any:
    """The same value with one or two places that hold something else, or nothing."""
    for _ in range(draw.choice((1, 1, 2))):
        places = _places(value)
        if not places:
            return draw.choice(STRANGE)
        holder, key = draw.choice(places)
        what = draw.random()
        if what < 0.25:
            del holder[key]
        elif what < 0.35 and isinstance(holder, list):
            holder.insert(draw.randrange(len(holder) + 1), holder[key])
        elif what < 0.4:
            holder[key] = deep(draw.choice((50, 500, 5000)))
        else:
            holder[key] = draw.choice(STRANGE)
    return value


def deep(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    found, waiting = [], [value]
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, inner in items:
            found.append((holder, key))
            waiting.append(inner)
    return found


def json_text(value: Any) -> bytes:
    """As JSON, however deep, NaN and lone surrogates included."""
    try:
        return json.dumps(value, ensure_ascii=True).encode()
    except RecursionError:
        return b"[" * 5000 + b"]" * 5000


def any_json_file(draw: Draw, path: Path) -> None:
    """Damage a JSON, JSON lines or text file where it lies."""
    content = path.read_bytes()
    if draw.random() < 0.4 or path.suffix not in (".json", ".jsonl"):
        path.write_bytes(any_bytes(draw, content))
    elif path.suffix == ".json":
        path.write_bytes(json_text(any_json(draw, json.loads(content))))
    else:
        rows = any_json(draw, [json.loads(line) for line in content.splitlines()])
        lines = [json_text(row) for row in (rows if isinstance(rows, list) else [rows])]
        path.write_bytes(b"".join(line + b"\n" for line in lines))


def any_safetensors(draw: Draw, path: Path) -> None:
    """Damage a safetensors file: its bytes, or its header."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    if draw.random() < 0.4:
        path.write_bytes(any_bytes(draw, content))
        return
    header = json.loads(content[8 : 8 + length])
    if draw.random() < 0.5:
        header = any_json(draw, header)
    else:
        name = draw.choice([key for key in header if key != "__metadata__"])
        row = header.pop(name)
        if draw.random() < 0.6:
            row["dtype"] = draw.choice((row["dtype"], "F16", "I64", "F8_E4M3", "BOOL", "U8", "F64"))
            row["shape"] = draw.choice((row["shape"], row["shape"][::-1], [], [1, *row["shape"]], [0], [-1], [2**40]))
            header[draw.choice((name, name + ".x", "x." + name, ""))] = row
    text = json_text(header)
    size = draw.choice((len(text), len(text), len(text), 2**62, 0, len(text) + 7))
    path.write_bytes(struct.pack("<Q", size) + text + content[8 + length :])


def misplaced(draw: Draw, path: Path) -> None:
    """Something else where a file or folder should be: nothing, a folder, a link to itself or nowhere, a pipe."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    way = draw.choice(("nothing", "folder", "loop", "nowhere", "pipe", "empty"))
    if way == "folder":
        path.mkdir()
    elif way == "loop":
        path.symlink_to(path.name)
    elif way == "nowhere":
        path.symlink_to("/nowhere/at/all")
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "empty":
        path.touch()


def any_file(draw: Draw, path: Path) -> None:
    """Damage a file of any kind, or what stands in its place."""
    from fuzz.tables import any_parquet

    ways = {".safetensors": any_safetensors, ".parquet": any_parquet}
    if draw.random() < 0.08:
        misplaced(draw, path)
        return
    try:
        ways.get(path.suffix, any_json_file)(draw, path)
    except (ValueError, RecursionError, struct.error, pa.ArrowException, OSError):  # it is damaged already
        path.write_bytes(any_bytes(draw, path.read_bytes()))
