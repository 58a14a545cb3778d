"""What happens to files: cut, flipped, emptied, saved as something else, written by someone else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finepref.core.errors import FineprefError
from finepref.core.seal import KEY
from finepref.core.text import visible

LONGEST = 700
STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    2.5,
    10**30,
    "",
    "x",
    "../../x",
    "\x1b[2J\n",
    [],
    [[]],
    {},
    {"x": [1]},
    [None],
)
"""Values of other types than those that belong there."""
WHOLE = (b"", b"\n", b"{}", b"[]", b"null", b"5", b'"x"', b"[[]]", b"[{}]", b'{"version": 99}', b"{" * 9, b"\x00" * 64)
DEEP = b"[" * 100_000
LONG = b"9" * 5_000


def damages(content: bytes, *, flips: int = 6, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(what was done, the file's new content)."""
    draw = random.Random(seed)
    yield from ((f"whole {text[:20]!r}", text) for text in (*WHOLE, DEEP, LONG, b'{"a": ' + LONG + b"}"))
    yield "a header of 2^60 bytes", (1 << 60).to_bytes(8, "little") + content[8:]
    yield "a byte order mark", b"\xef\xbb\xbf" + content
    yield "utf-16", content.decode("latin-1").encode("utf-16")
    yield "not utf-8", content[: len(content) // 2] + b"\xff\xfe\xc3(" + content[len(content) // 2 :]
    yield "NUL inside", content[: len(content) // 2] + b"\x00" + content[len(content) // 2 :]
    for share in (0.02, 0.3, 0.6, 0.9, 0.999):
        yield f"cut to {share}", content[: int(share * len(content))]
    yield "one byte short", content[:-1]
    yield "twice", content + content
    for number in range(flips):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 3))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        yield f"flip {number}", bytes(changed)


def strange_values(value: Any, *, most: int, seed: int = 0) -> Iterator[tuple[str, Any]]:
    """(where and what, a JSON value in which one place is of another type, or missing)."""
    places = list(_places(value))
    draw = random.Random(seed)
    chosen = [(place, change) for place in places for change in (*STRANGE, ...)]
    for place, change in draw.sample(chosen, min(most, len(chosen))):
        yield f"{place} becomes {change!r}", _with(value, place, change)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*at, key))


def _with(value: Any, place: tuple[Any, ...], change: Any) -> Any:
    key, *rest = place
    copy = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        copy[key] = _with(copy[key], tuple(rest), change)
    elif change is ...:
        del copy[key]
    else:
        copy[key] = change
    return copy


def unsealed(content: bytes) -> Any:
    """A value of JSON without the hash of its content, as a person writes it who changes it."""
    value = json.loads(content)
    return {name: held for name, held in value.items() if name != KEY} if isinstance(value, dict) else value


def strange_json(content: bytes, *, most: int) -> Iterator[tuple[str, bytes]]:
    """`strange_values` of a file of JSON; of the first line of JSON lines; with half of a character in a text."""
    head, _, tail = content.partition(b"\n") if content.count(b"\n{") else (content, b"", b"")
    for what, value in strange_values(unsealed(head), most=most):
        yield what, json.dumps(value).encode() + b"\n" + tail
        if what.endswith("'x'"):
            yield f"{what} \\ud83d", json.dumps(value).replace('"x"', '"\\ud83d"').encode() + b"\n" + tail


def strange_tables(path: Path) -> Iterator[tuple[str, pa.Table]]:
    """(what was done, a table) with a column missing, empty, of another type, with text that is not utf-8; no rows."""
    table = pq.read_table(path)
    rows = len(table)
    others = [pa.nulls(rows), pa.array(["x"] * rows), pa.array([2**40] * rows), pa.array([[1]] * rows)]
    bad = pa.StringArray.from_buffers(rows, pa.py_buffer(_offsets(rows)), pa.py_buffer(b"\xff\xfe" * rows))
    for at, name in enumerate(table.column_names):
        yield f"without {name}", table.drop_columns([name])
        for other in (*others, bad):
            yield f"{name} as {other.type}", table.set_column(at, name, other)
    yield "no rows", table.slice(0, 0)
    yield "no footer", table.replace_schema_metadata(None)
    for meta in (b"[]", b"5", b"{", b"\xff", b'{"version": [9]}', b'{"scorers": 5}', b'{"scorers": {"a": 5}}', DEEP):
        yield f"footer {meta[:30]!r}", table.replace_schema_metadata({b"finepref": meta})
    for meta in (
        b'{"kinds": 5}',
        b'{"kinds": [5]}',
        b'{"a.scorer": []}',
        b'{"a.device_seconds": "x", "a.scorer": "b"}',
    ):
        yield f"footer {meta[:30]!r}", table.replace_schema_metadata({b"finepref": meta})


def _offsets(rows: int) -> bytes:
    return b"".join((2 * row).to_bytes(4, "little") for row in range(rows + 1))


def failure(read: Callable[[], Any]) -> str:
    """Empty where `read` gives a result or a sentence of one line; else what is wrong."""
    try:
        read()
    except FineprefError as error:
        text = str(error)
        if visible(text) != text or len(text) > LONGEST:
            return f"{len(text)} characters: {text[:300]!r}"
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""
