"""How the command line ends where no command does: signals, narrow terminals, letters that would mislead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finepref.cli import main
from finepref.core.errors import InputError


@pytest.fixture(autouse=True)
def _same_handler() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], does: Any) -> tuple[object, str]:
    """Exit code and stderr of a command that does this."""

    def build(*_: Any, **__: Any) -> Any:
        app = main.typer.Typer(pretty_exceptions_enable=False)
        app.command()(lambda: does())
        return app

    monkeypatch.setattr(main, "build", build)
    monkeypatch.setattr(sys, "argv", ["finepref"])
    with pytest.raises(SystemExit) as caught:
        main.main()
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    found, text = ended(monkeypatch, capsys, lambda: signal.raise_signal(number))
    assert found == code
    assert text.count("\n") == 1
    assert text.startswith("finepref: stopped before the end; whole results and checkpoints are kept")


def test_a_sentence_is_one_line_that_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise InputError("red \x1b[31m, \u202eevil\u2066", where="a\nb\r\u2028\udcff", remedy="say \x00\x85\tso")

    code, text = ended(monkeypatch, capsys, fail)
    assert code == 2
    assert text == r"finepref: a\nb\r\u2028\udcff: red \x1b[31m, \u202eevil\u2066; say \x00\x85\tso" + "\n"


def test_a_file_name_with_an_escape_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, text = ended(monkeypatch, capsys, (tmp_path / "\x1b[2J").read_bytes)
    assert code == 2
    assert "\x1b" not in text


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "build", lambda *_, **__: lambda words: {}["a bug"])
    monkeypatch.setattr(main, "refuse_repeats", lambda *_: None)
    monkeypatch.setattr(main, "refuse_addresses", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["finepref"])
    with pytest.raises(KeyError):
        main.main()


def test_a_terminal_that_knows_ascii_only(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("left,right,outcome\nmödel,b,left\nb,mödel,left\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "finepref", "arena", tmp_path / "votes.csv", "--out", tmp_path / "out"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"m\\xf6del" in done.stdout
