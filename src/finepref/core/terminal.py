"""Tables and texts on stdout: fitted to a terminal where a person looks, plain lines in a file or a pipe."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence
from typing import TextIO

from finepref.core.text import visible

GAP = 2  # blanks between two columns
LEAST = 24  # characters in which a folded text can be read
LAST = 16  # characters of the last column, in which longer words are broken
LABEL = re.compile(r"\S+ {2,}")


def width(stream: TextIO | None = None) -> int:
    """Characters of a line of the terminal that stdout, or `stream`, is; 0 where nothing limits one, as in a file."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else 0


def folded(text: str, *, indent: str = "", most: int | None = None) -> list[str]:
    """A text as lines of at most `most` characters (the terminal's by default), from the second on indented.

    A word that is longer, such as a path, stays whole.
    """
    most = width() if most is None else most
    if not most or len(text) <= most:
        return [text]
    start = text[: len(text) - len(text.lstrip())]
    lines = textwrap.wrap(
        text, max(most, LEAST), subsequent_indent=start + indent, break_on_hyphens=False, break_long_words=False
    )
    return lines or [""]


def folded_text(text: str, *, indent: str = "") -> str:
    """A text of one or several lines, each folded to the terminal; after a label, below what follows it."""
    labels = [(line, LABEL.match(line)) for line in text.splitlines()]
    indents = [(line, " " * label.end() if label else indent) for line, label in labels]
    return "\n".join(part for line, each in indents for part in folded(line, indent=each))


def table_lines(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    bare: bool = False,
    most: int | None = None,
) -> list[str]:
    """Rows of words as lines of text; what cannot be seen in them becomes visible, and nothing is left out.

    Plain lines with equal columns where nothing limits a line. On a terminal a table whose first column is whole and
    whose others break between words. Columns that say the same in every row stand above it once, where it is too wide;
    where that is not enough, each row is a paragraph of its own.

    Args:
        names: of the columns. right: numbers of the columns that are right-aligned. bare: plain lines have no names.
        most: characters of a line; the terminal's by default, 0: no limit.
    """
    most = width() if most is None else most
    table = [list(names), *([visible(word) for word in row] for row in rows)]
    if not most:
        return _plain(table[bare:], right)
    shared = ""
    if _least_width(table) > most:
        shared, table, right = _without_shared(table, right)
    lines = _paragraphs(table, most) if _least_width(table) > most else _drawn(table, right, most)
    return [*(folded(shared, most=most) if shared else []), *lines]


def _plain(rows: Sequence[Sequence[str]], right: Collection[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (" " * GAP)
        .join(
            word.rjust(size) if at in right else word.ljust(size)
            for at, (word, size) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in rows
    ]


def _least(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width that each column needs: the first for its cells, the others for their longest word."""
    from rich.cells import cell_len

    first, *others = zip(*rows, strict=True)
    words = ([word for cell in column for word in cell.split()] for column in others)
    found = [max(map(cell_len, first)), *(max(map(cell_len, column), default=0) for column in words)]
    return [*found[:-1], min(found[-1], LAST)] if others else found


def _least_width(rows: Sequence[Sequence[str]]) -> int:
    least = _least(rows)
    return sum(least) + GAP * (len(least) - 1)


def _without_shared(
    rows: Sequence[Sequence[str]], right: Collection[int]
) -> tuple[str, list[list[str]], Collection[int]]:
    """What the columns say that say the same in every row, and the table without them; the first column stays."""
    head, *body = rows
    same = [at for at in range(1, len(head)) if len({row[at] for row in body}) == 1]
    kept = [at for at in range(len(head)) if at not in same]
    shared = ", ".join(f"{head[at]}: {body[0][at]}" for at in same)
    return shared, [[row[at] for at in kept] for row in rows], {new for new, at in enumerate(kept) if at in right}


def _drawn(rows: Sequence[Sequence[str]], right: Collection[int], most: int) -> list[str]:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for at, size in enumerate(_shared_out(rows, most)):
        style, side = "bold" if at == 0 else "", "right" if at in right else "left"
        table.add_column(Text(rows[0][at]), width=size, justify=side, style=style, overflow="fold")  # type: ignore[arg-type]
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    console = Console(file=sys.stdout, width=most, color_system=None if os.environ.get("NO_COLOR") else "auto")
    with console.capture() as drawn:
        console.print(table)
    return [line.rstrip() for line in drawn.get().splitlines()]


def _shared_out(rows: Sequence[Sequence[str]], most: int) -> list[int]:
    """The width of each column: what its longest word needs, and of the room that is left equal parts, none unused."""
    from rich.cells import cell_len

    found = _least(rows)
    whole = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    room = most - sum(found) - GAP * (len(found) - 1)
    order = sorted(range(len(found)), key=lambda at: whole[at] - found[at])
    for rank, at in enumerate(order):
        more = min(whole[at] - found[at], room // (len(order) - rank))
        found[at], room = found[at] + more, room - more
    return found


def _paragraphs(rows: Sequence[Sequence[str]], most: int) -> list[str]:
    names, *body = rows
    found: list[str] = []
    for row in body:
        told = [f"{name}: {word}" for name, word in zip(names, row, strict=True) if word]
        lines = [*told[:1], *(f"    {line}" for line in told[1:])]
        found += [part for line in lines for part in folded(line, indent="    ", most=most)]
    return found
