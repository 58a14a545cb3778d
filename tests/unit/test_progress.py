"""Tables that fit the terminal: nothing is lost, nothing is wider, and a file gets whole lines."""

from __future__ import annotations

import io
import sys

import pytest

from finepref.core.progress import aligned, folded, width

HEAD = ("prompts", "metric", "model", "against", "n", "win rate", "interval", "mean difference", "its interval", "p")
ROW = (
    "hpsv2",
    "pickscore (trained on)",
    "arenapo",
    "sd15",
    "9600",
    "63.1 %",
    "61.4 to 64.8",
    "+0.012",
    "+0.01 to",
    "0.2",
)


@pytest.mark.parametrize("most", [24, 40, 80, 100])
def test_a_table_is_no_wider_than_the_terminal_and_keeps_every_word(most: int) -> None:
    lines = aligned([HEAD, ROW], most=most)
    assert max(map(len, lines)) <= max(most, 24 + 4)
    assert sorted(" ".join(lines).split()) == sorted(" ".join([*HEAD, *ROW]).split())


def test_columns_stay_one_below_the_other() -> None:
    lines = aligned([("a", "bbbb"), ("ccc", "d")], most=80)
    assert lines == ["a    bbbb", "ccc  d"]


def test_the_last_column_is_folded_where_there_is_room() -> None:
    lines = aligned([("name", "a text of quite some words that goes on")], most=34)
    assert lines == ["name  a text of quite some words", "      that goes on"]
    assert folded("    option  and what it is", indent="    ", most=24) == ["    option  and what it", "        is"]


def test_a_file_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert width() == 0
    assert len(aligned([HEAD, ROW])) == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert len(aligned([HEAD, ROW])) == 4
