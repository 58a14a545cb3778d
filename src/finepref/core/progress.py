"""What the terminal shows of work: a bar on stderr that says how far it is, and lines beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence, Sized
from typing import TypeVar

from tqdm import tqdm

from finepref.core.terminal import folded, width
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


def room_beside(bar: tqdm[Item]) -> int | None:
    """Characters of words beside a bar of ten characters, however long it takes; None where nothing limits them."""
    about = bar.format_dict
    if bar.disable or about["ncols"] is None:
        return None
    most = {"n": about["total"] or 0, "elapsed": 359_999, "rate": 0.01, "ncols": None, "postfix": ""}
    return int(about["ncols"]) - len(tqdm.format_meter(**{**about, **most})) - len(", ")


def say(text: str) -> None:
    """A line of log on stderr, folded to the width of a terminal; what cannot be seen in it becomes visible."""
    say_lines(folded(visible(text), indent="  ", most=width(sys.stderr)))


def say_lines(lines: Sequence[str]) -> None:
    """Lines of log on stderr as they are, above the bars."""
    tqdm.write("\n".join(lines), file=sys.stderr)
