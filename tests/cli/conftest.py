"""The command line in process: (exit code, stdout, stderr) of a command's words."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

Run = Callable[..., tuple[int, str, str]]
Look = Callable[..., tuple[int, str]]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def finepref(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `finepref WORDS...` through its real entry point."""
    from finepref.cli.main import main

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["finepref", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capfd.readouterr()
        return code, out, err

    return run


class Terminal(io.StringIO):
    """A stream where a person looks."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Run `finepref WORDS...` in a terminal of 80 columns: its exit code and all that stands there."""

    from finepref.cli.main import main

    def run(*words: object) -> tuple[int, str]:
        shown = Terminal()
        for name, value in (("COLUMNS", "80"), ("TERM", "xterm-256color")):
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["finepref", *map(str, words)])
        for stream in ("stdout", "stderr"):
            monkeypatch.setattr(sys, stream, shown)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return code, COLOUR.sub("", shown.getvalue())

    return run
