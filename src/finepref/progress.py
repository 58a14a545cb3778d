"""One way to show progress: a bar on stderr that says what is happening."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, *, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Iterate with a progress bar on stderr; on a pipe it prints about every ten seconds instead of every frame."""
    return iter(
        tqdm(
            items,
            desc=what,
            total=total,
            unit=unit,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
            leave=True,
        )
    )


def say(text: str) -> None:
    """One line of log on stderr."""
    tqdm.write(text, file=sys.stderr)
