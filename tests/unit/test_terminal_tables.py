"""Tables that fit the terminal: nothing is lost, nothing is wider, and a file gets whole lines without colours."""

from __future__ import annotations

import io
import re
import sys

import pytest
from tqdm import tqdm

from finepref.core.progress import progress, room_beside
from finepref.core.terminal import folded, folded_text, table_lines, width

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
OTHER = ("hpsv2", "clip", "dpo", "sd15", "9600", "50.1 %", "48.4 to 51.8", "+0.001", "-0.01 to", "0.9")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    """A stdout where a person looks."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def words(lines: list[str]) -> list[str]:
    return sorted(re.sub("[─:,]", " ", COLOUR.sub("", " ".join(lines))).split())


@pytest.mark.parametrize("most", [30, 40, 80, 100, 140])
def test_a_table_is_no_wider_than_the_terminal_and_keeps_every_word(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    on_terminal(monkeypatch)
    lines = table_lines(HEAD, [ROW, OTHER], most=most)
    assert max(len(COLOUR.sub("", line)) for line in lines) <= most
    assert {*words([" ".join((*HEAD, *ROW, *OTHER))])} == {*words(lines)}


def test_what_all_rows_share_stands_once(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    first, _, head, *_ = (COLOUR.sub("", line) for line in table_lines(HEAD, [ROW, OTHER], most=80))
    assert first == "against: sd15, n: 9600"
    assert head.split()[:3] == ["prompts", "metric", "model"]
    assert "against" not in head


def test_the_first_column_is_whole_and_the_others_break_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    lines = [COLOUR.sub("", line) for line in table_lines(("name", "what"), [("a b c", "one two three four")], most=20)]
    assert lines[0].split() == ["name", "what"]
    assert [line.rstrip() for line in lines[2:]] == ["a b c  one two three", "       four"]


def test_numbers_stand_one_below_the_other() -> None:
    assert table_lines(("a", "n"), [("ccc", "7"), ("d", "123")], right={1}) == ["a      n", "ccc    7", "d    123"]


def test_cells_are_text_and_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    drawn = "".join(
        COLOUR.sub("", line) for line in table_lines(("name", "is"), [("[bold]x", ":smile:\x1b[2J")], most=60)
    )
    assert "[bold]x" in drawn
    assert ":smile:\\x1b[2J" in drawn


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    assert COLOUR.search("".join(table_lines(("a", "b"), [("c", "d")], most=80)))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search("".join(table_lines(("a", "b"), [("c", "d")], most=80)))


def test_a_file_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert width() == 0
    lines = table_lines(HEAD, [ROW])
    assert len(lines) == 2
    assert not COLOUR.search("".join(lines))
    assert len(table_lines(HEAD, [ROW], bare=True)) == 1


def test_texts_are_folded_and_long_words_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "24")
    path = "/a/path/that/is/longer/than/a/line"
    assert folded(f"it is in {path} now", indent="  ") == ["it is in", f"  {path}", "  now"]
    assert folded_text("Disk      so many bytes of latents") == "Disk      so many bytes\n          of latents"


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_a_bar_keeps_ten_characters_beside_words(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar: tqdm[int] = progress(range(4000), "train a-run", unit="step")
    monkeypatch.setattr(bar, "dynamic_ncols", lambda _: (columns, 40))
    room = room_beside(bar)
    assert room is not None
    bar.set_postfix_str("x" * max(0, room), refresh=False)
    drawn = tqdm.format_meter(**{**bar.format_dict, "n": 3999, "elapsed": 350_000})
    assert len(drawn) <= columns or room <= 0
    assert len(drawn.split("|")[1]) >= min(10, 10 + room)
    assert room_beside(progress(range(3), "a", hidden=True)) is None
