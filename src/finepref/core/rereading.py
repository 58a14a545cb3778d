"""What one command read of rows that may change between two readings, such as those of a query."""

from __future__ import annotations

_read: dict[str, object] = {}
_watched: list[bool] = []


def watch() -> None:
    """From now on a command runs, and what it reads again must be what it read."""
    _read.clear()
    _watched[:] = [True]


def is_as_before(key: str, found: object) -> bool:
    """Whether a whole reading found what the first one of this command found; always outside a command."""
    return not _watched or _read.setdefault(key, found) == found
