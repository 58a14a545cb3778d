"""What one command read of rows that may change between two readings, such as those of a query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_read: list[dict[str, object]] = []


@contextmanager
def one_command() -> Iterator[None]:
    """Inside, what is read again must be what was read."""
    _read.append({})
    try:
        yield
    finally:
        _read.pop()


def is_as_before(key: str, found: object) -> bool:
    """Whether a whole reading found what the first one of this command found; always outside a command."""
    return not _read or _read[-1].setdefault(key, found) == found
