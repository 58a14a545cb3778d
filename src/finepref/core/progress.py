"""What the terminal shows: a bar on stderr that says what is happening, and tables that fit its width."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence, Sized
from typing import TypeVar

from tqdm import tqdm

from finepref.core.text import visible

Item = TypeVar("Item")
BAR = "FINEPREF_BAR"
"""The variable that a command finds when another one runs it as a stage: the line of its bar."""


def is_stage() -> bool:
    """Whether another command runs this one, and says itself how to go on."""
    return BAR in os.environ


def progress(
    items: Iterable[Item],
    what: str,
    *,
    total: int | None = None,
    unit: str = "it",
    hidden: bool = False,
    done: int = 0,
) -> tqdm[Item]:
    """Iterate with a progress bar on stderr; on a pipe it is redrawn every ten seconds instead of every frame.

    Commands that run side by side are given a line each by the variable `BAR`. done: how many were done before these.
    """
    return tqdm(
        items,
        desc=what,
        total=done + len(items) if total is None and isinstance(items, Sized) else total,
        initial=done,
        unit=unit,
        disable=hidden,
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        position=int(os.environ.get(BAR, "0")) or None,
        leave=True,
    )


def say(text: str) -> None:
    """One line of log on stderr; what cannot be seen in it becomes visible."""
    tqdm.write(visible(text), file=sys.stderr)


GAP, INDENT = "  ", "    "
LEAST = 24  # characters in which a folded text can be read


def width() -> int:
    """Characters of a line of the terminal; 0 where nothing limits a line, as in a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def folded(text: str, *, indent: str = "", most: int | None = None) -> list[str]:
    """A text as lines of at most `most` characters (the terminal's by default), from the second on indented."""
    most = width() if most is None else most
    if not most or len(text) <= most:
        return [text]
    start = text[: len(text) - len(text.lstrip())]
    lines = textwrap.wrap(text, max(most, LEAST), subsequent_indent=start + indent, break_on_hyphens=False)
    return lines or [""]


def aligned(rows: Sequence[Sequence[str]], *, most: int | None = None) -> list[str]:
    """Rows of words as lines of text with equal columns; what cannot be seen in them becomes visible.

    Of rows longer than `most` characters (the terminal's by default) the last columns stand on lines of their own.
    """
    most = width() if most is None else most
    rows = [[visible(word) for word in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    parts = _parts(widths, most) if most else [[*enumerate(widths)]]
    return [
        line for row in rows for number, part in enumerate(parts) for line in _lines(row, part, INDENT * bool(number))
    ]


def _parts(widths: Sequence[int], most: int) -> list[list[tuple[int, int]]]:
    """The columns of each line of a row, with their widths; the last column may be folded."""
    parts: list[list[tuple[int, int]]] = [[]]
    room = most
    for at, size in enumerate(widths):
        if size > room and parts[-1] and not (at == len(widths) - 1 and room >= LEAST):
            parts.append([])
            room = most - len(INDENT)
        parts[-1].append((at, min(size, room)))
        room -= size + len(GAP)
    return parts


def _lines(row: Sequence[str], part: Sequence[tuple[int, int]], indent: str) -> list[str]:
    cells = [(folded(row[at], most=size), size) for at, size in part]
    return [
        (indent + GAP.join(cell.ljust(size) for cell, (_, size) in zip(line, cells, strict=True))).rstrip()
        for line in itertools.zip_longest(*(cell for cell, _ in cells), fillvalue="")
    ]
