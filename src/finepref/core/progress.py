"""One way to show progress: a bar on stderr that says what is happening."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from finepref.core.text import visible

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], what: str, *, total: int | None = None, unit: str = "it", hidden: bool = False
) -> Iterator[Item]:
    """Iterate with a progress bar on stderr; on a pipe it is redrawn every ten seconds instead of every frame.

    Commands that run side by side are given a line each by FINEPREF_BAR.
    """
    return iter(
        tqdm(
            items,
            desc=what,
            total=total,
            unit=unit,
            disable=hidden,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
            position=int(os.environ.get("FINEPREF_BAR", "0")) or None,
            leave=True,
        )
    )


def say(text: str) -> None:
    """One line of log on stderr; what cannot be seen in it becomes visible."""
    tqdm.write(visible(text), file=sys.stderr)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of words as lines of text with equal columns; what cannot be seen in them becomes visible."""
    rows = [[visible(word) for word in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
