"""Text files of rows as they are on disk: packed or not, in a declared encoding, csv and JSON row by row, by line.

A row that cannot be read is a fault: it has its line and the reason, and whoever reads on decides what to do with it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from finepref.core.errors import InputError
from finepref.core.files import reading
from finepref.core.text import visible

PACKED = (".gz", ".zst")
_BLOCK = 1 << 20
_LONGEST = 1 << 28  # characters of one cell
_BETWEEN = re.compile(r"[,\s]*")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class Line(NamedTuple):
    """A row: at: its line (JSON arrays: its number, from 0). cells: by column. fault: why it is no vote, or nothing.

    bad: whether the row is at fault; else it says itself that it holds no vote.
    """

    at: int
    cells: dict[str, Any]
    fault: str = ""
    bad: bool = True


_UNPACKED: dict[str, Any] = {
    ".gz": gzip.open, ".zst": lambda path, mode: pa.input_stream(str(path), compression="zstd"),
}  # fmt: skip


@contextmanager
def opened(path: Path, encoding: str | None) -> Iterator[io.TextIOBase]:
    """The text of a file, unpacked where its name ends in .gz or .zst.

    Raises:
        InputError: while it is read: it is not text in this encoding (None: utf-8), or not packed so.
    """
    text_or_packed = "a whole file, packed as its ending says" if path.suffix.lower() in PACKED else "a readable file"
    try:
        with reading(path, text_or_packed, remedy="fetch or save it again", missing="check the path"):
            raw: Any = _UNPACKED.get(path.suffix.lower(), open)(path, "rb")
            with raw, io.TextIOWrapper(raw, encoding=encoding or "utf-8-sig", newline="") as text:
                yield text
    except InputError as error:
        if isinstance(error.__cause__, UnicodeError):
            raise _undecodable(path, encoding, error.__cause__) from None
        raise


def _undecodable(path: Path, encoding: str | None, error: UnicodeError) -> InputError:
    start = b"" if path.suffix.lower() in PACKED else path.read_bytes()[:2]
    if encoding is None and start in (b"\xff\xfe", b"\xfe\xff"):
        return InputError("it is utf-16 text", where=path, remedy="read it with --encoding utf-16, or save it as utf-8")
    reason = getattr(error, "reason", str(error))
    remedy = "save it as utf-8, or (votes and preferences) say how it was saved, such as --encoding cp1252"
    return InputError(
        f"not {encoding or 'utf-8'} text ({reason}){_first_bad_line(path, encoding)}", where=path, remedy=remedy
    )


def _first_bad_line(path: Path, encoding: str | None) -> str:
    """`, in line N` of a file that is not packed and whose lines end in a byte of their own."""
    if path.suffix.lower() in PACKED or (encoding or "utf-8").lower().replace("_", "-").startswith("utf-16"):
        return ""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode(encoding or "utf-8")
            except UnicodeError:
                return f", in line {number}"
    return ""


class Marks(NamedTuple):
    """How the cells of a row are told apart. quoted: whether a quote begins a cell that ends with one, as in csv."""

    separator: str
    quoted: bool = True

    @property
    def name(self) -> str:
        """commas, semicolons, tabs or bars, in words."""
        return _SEPARATORS[self.separator] + ("" if self.quoted else " alone, with quotes as they stand")


def marks_of(path: Path, encoding: str | None) -> Marks:
    """What stands between the columns of a csv or tsv file, by its first line.

    Tabs alone need no quotes: where those of a file are not strict csv, they are part of the text (PartiPrompts.tsv).
    """
    with opened(path, encoding) as text:
        header = re.sub(r'"[^"]*"', "", text.readline(_BLOCK))
    if found := re.fullmatch(r"sep=(.)\s*", header):
        what = f"its first line is {found[0].strip()!r}, which spreadsheets write"
        raise InputError(what, where=path, remedy="take that line out")
    marks = Marks(max(_SEPARATORS, key=lambda mark: (header.count(mark), mark == ",")))
    if marks.separator != "\t":
        return marks
    try:
        with opened(path, encoding) as text:
            for _ in _strict(path, text, marks):
                pass
    except InputError as error:
        if not isinstance(error.__context__, csv.Error):
            raise
        return marks._replace(quoted=False)
    return marks


def csv_header(path: Path, encoding: str | None, mark: Marks) -> list[str]:
    """The names of the columns as they stand, without blanks around them."""
    with opened(path, encoding) as text:
        return [name.strip() for name in next(_strict(path, text, mark), (0, []))[1]]


def csv_lines(path: Path, encoding: str | None, mark: Marks) -> Iterator[Line]:
    """Every row after the header; one with more or fewer cells than the header is a fault."""
    with opened(path, encoding) as text:
        rows = _strict(path, text, mark)
        header = [name.strip() for name in next(rows, (0, []))[1]]
        for at, cells in rows:
            if len(cells) == len(header):
                yield Line(at, dict(zip(header, cells, strict=True)))
            elif cells:
                yield Line(at, {}, f"it has {len(cells)} cells and the header {len(header)}")


def _strict(path: Path, text: io.TextIOBase, marks: Marks) -> Iterator[tuple[int, list[str]]]:
    """(line where it starts, cells) of every row.

    Raises:
        InputError: a quote that does not close, or closes within a cell: from there on no row is certain.
    """
    if csv.field_size_limit() < _LONGEST:
        csv.field_size_limit(_LONGEST)
    quoting = {"quoting": csv.QUOTE_MINIMAL if marks.quoted else csv.QUOTE_NONE}
    reader = csv.reader(text, delimiter=marks.separator, strict=True, **quoting)  # type: ignore[arg-type]
    at = 1
    try:
        for cells in reader:
            yield at, cells
            at = reader.line_num + 1
    except csv.Error as error:
        said = {"unexpected end of data": "a quote opens in it and never closes"}.get(str(error), str(error))
        remedy = 'write a quote inside of quotes twice (""), and close every quote'
        raise InputError(f"not strict csv ({said})", where=f"{path}, line {at}", remedy=remedy) from None


def json_rows(path: Path, encoding: str | None = None) -> Iterator[Line]:
    """Objects of a .json file, an array or one after the other, or of lines (.jsonl, .ndjson)."""
    for at, value, fault in json_values(path, encoding):
        if fault or not isinstance(value, dict):
            yield Line(at, {}, fault or "not a JSON object")
        else:
            yield Line(at, value)


def json_values(path: Path, encoding: str | None = None) -> Iterator[tuple[int, Any, str]]:
    """(line, or number in an array, value, why it cannot be read) of all that a file of JSON holds."""
    kind = Path(path.stem).suffix.lower() if path.suffix.lower() in PACKED else path.suffix.lower()
    return _array_values(path, encoding) if kind == ".json" else _line_values(path, encoding)


def _line_values(path: Path, encoding: str | None) -> Iterator[tuple[int, Any, str]]:
    with opened(path, encoding) as text:
        for number, line in enumerate(text, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line, object_pairs_hook=_once), ""
                except (ValueError, RecursionError) as error:
                    yield number, None, _not_json(error)


def _array_values(path: Path, encoding: str | None) -> Iterator[tuple[int, Any, str]]:
    """Objects read in blocks (HPDv3's array is too large to load at once)."""
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    with opened(path, encoding) as text:
        held = text.read(_BLOCK)
        array = held.lstrip().startswith("[")
        at, number = held.index("[") + 1 if array else 0, 0
        while True:
            at = _BETWEEN.match(held, at).end()  # type: ignore[union-attr]
            if held.startswith("]", at) and array:
                if held[at + 1 :].strip() or text.read(_BLOCK).strip():
                    remedy = "keep one array, or one object after the other"
                    raise InputError("there is more after the end of its array", where=path, remedy=remedy)
                return
            try:
                value, end = decoder.raw_decode(held, at)
                if end == len(held) and not isinstance(value, dict | list) and (more := text.read(_BLOCK)):
                    held, at = held[at:] + more, 0  # a number may go on
                    continue
            except (ValueError, RecursionError) as error:
                cut = isinstance(error, json.JSONDecodeError) and _cut_off(error) and len(held) - at < _LONGEST
                more = text.read(_BLOCK) if cut else ""
                if not more and at == len(held) and not array and cut:
                    return
                if not more:
                    where = f"{path}: object {number}"
                    raise InputError(_not_json(error), where=where, remedy="correct or fetch it again") from None
                held, at = held[at:] + more, 0
                continue
            yield number, value, ""
            at, number = end, number + 1


def _cut_off(error: json.JSONDecodeError) -> bool:
    """Whether it may be the end of the block that is wrong."""
    return error.msg.startswith("Unterminated") or error.pos >= len(error.doc) - 16


class _Twice(ValueError):
    """A JSON object that has a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return held


def _not_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not valid JSON (nested too deeply)"
    said = error.msg if isinstance(error, json.JSONDecodeError) else str(error).split(":")[0]
    return f"not valid JSON ({visible(said)})"
