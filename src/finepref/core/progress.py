"""What the terminal shows of work: a bar on stderr that says how far it is, and lines beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any, TypeVar

from tqdm import tqdm

from finepref.core.tables import folded, width
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


def beside(bar: tqdm[Item], words: Sequence[str]) -> None:
    """Write words beside a bar, the first ones, as many as leave room to draw it."""
    if bar.disable:
        return
    about, shown = bar.format_dict, list(words)
    room = about["ncols"] or 0
    while room and shown and len(_with(about, shown)) > room:
        shown.pop()
    bar.set_postfix_str(", ".join(shown), refresh=False)


def _with(about: Mapping[str, Any], words: Sequence[str]) -> str:
    """A bar of ten characters with these words beside it."""
    return tqdm.format_meter(**{**about, "ncols": None, "postfix": ", ".join(words)})


def say(text: str) -> None:
    """A line of log on stderr, folded to the width of a terminal; what cannot be seen in it becomes visible."""
    say_lines(folded(visible(text), indent="  ", most=width(sys.stderr)))


def say_lines(lines: Sequence[str]) -> None:
    """Lines of log on stderr as they are, above the bars."""
    tqdm.write("\n".join(lines), file=sys.stderr)
