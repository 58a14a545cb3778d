"""A study's file that is not flushed: a disk may take a fifth of a second for each, and no test rests on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finepref.formats import answers as kept


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush nothing until the test ends."""
    connect = kept.connect

    def quick(path: Path) -> Any:
        connection = connect(path)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    monkeypatch.setattr(kept, "connect", quick)
    monkeypatch.setattr("os.fsync", lambda handle: None)
