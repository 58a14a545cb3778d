"""arena.html and the report beside each other: the same numbers, text that stays text, charts and numbers in words."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from finepref.arena.engines import rate
from finepref.arena.ratings import load_ratings
from finepref.arena.settings import RatingOptions
from finepref.arena.whole import ArenaRequest, run_arena
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes
from finepref.report import charts, report
from finepref.report.arena_page import write_page
from finepref.report.standings import standings
from finepref.report.wording import number, shorten

EVIL = "<script>alert('x')</script>\" onload=\"y & <b>"
NAMES = ("a", "b", EVIL, "d|e")
VOID = {"meta", "img", "br", "input"}


class Reader(HTMLParser):
    """A page as a reader sees it: its elements (balanced, or refused), its words, its tables, its drawings by title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.drawings: dict[str, list[str]] = {}
        self.title = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "svg":
            self.title = ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.open[-2:] == ["svg", "title"]:
            self.title = data
            self.drawings[data] = []
        elif self.title and self.open[-2:] == ["svg", "text"]:
            self.drawings[self.title].append(data)
        elif "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def board(self) -> list[list[str]]:
        """The leaderboard."""
        (found,) = [table for table in self.tables if table[0][0] == "Rank"]
        return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reader, Reader, str]:
    """Folder, arena page, report and its text of votes with ties, of four models and of one against itself."""
    root = tmp_path_factory.mktemp("pages")
    rng, mu = numpy_generator(0, "pages"), np.array([1.0, 0.4, 0.0, -0.8])
    with open(root / "votes.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("left", "right", "winner", "voter", "prompt"))
        for vote in range(600):
            a, b = rng.choice(4, 2, replace=False)
            lead = mu[a] - mu[b] + rng.normal()
            word = "tie" if abs(lead) < 0.5 else "left" if lead > 0 else "right"
            writer.writerow((NAMES[a], NAMES[b], word, f"{EVIL}{vote % 9}", vote % 20))
        writer.writerow(("a", "a", "left", "x", 0))
    options = ArenaRequest(rating=RatingOptions(link="logit"), validate=2)
    run_arena([root / "votes.csv"], root / "arena", options, page=write_page)
    report([root / "arena"], root / "report.html")
    arena, other = ((root / name).read_text(encoding="utf-8") for name in ("arena/arena.html", "report.html"))
    return root, Reader(arena), Reader(other), (root / "report.md").read_text(encoding="utf-8")


def test_both_pages_and_the_text_print_the_same_numbers(pages: tuple[Path, Reader, Reader, str]) -> None:
    """Leaderboard, win matrix, votes and the sentence on top."""
    root, arena, other, text = pages
    assert arena.board == other.board
    ratings = load_ratings(root / "arena")
    low, high = ratings.interval()
    for row, k in zip(arena.board[1:], ratings.order(), strict=True):
        assert row[1:4] == [ratings.models[k], f"{ratings.mu[k]:.2f}", f"{low[k]:.2f} to {high[k]:.2f}"]
    lines = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    shown = [[re.sub(r"\\(.)", r"\1", cell) for cell in line] for line in lines]
    assert shown[0] == arena.board[0]
    assert shown[2:] == arena.board[1:]
    title = "Predicted from the ratings"
    assert arena.drawings[title] == other.drawings[title]
    order = ratings.order()
    for row, line in enumerate(ratings.predicted_wins()[np.ix_(order, order)], start=1):
        cells = [f"{100 * value:.0f}" for value in line if value == value]
        assert "|".join(cells) in "|".join(arena.drawings[title]), row
    lead = next(word for word in arena.words if "600 votes." in word)
    assert any(lead in word for word in other.words)
    assert "600" in other.words
    assert any("1 more vote pits a model against itself" in word for word in arena.words)


def test_predicted_wins_know_ties_and_links(pages: tuple[Path, Reader, Reader, str]) -> None:
    """P(win) + P(tie)/2 by the normal distribution; with the logistic link by its own."""
    ratings = load_ratings(pages[0] / "arena")
    d, m = (ratings.mu[0] - ratings.mu[1]) / ratings.c, ratings.tie_margin / ratings.c
    assert m > 0
    logistic = [1 / (1 + math.exp(-1.702 * x)) for x in (d - m, d + m)]
    assert ratings.predicted_wins()[0, 1] == pytest.approx(sum(logistic) / 2, abs=1e-12)
    probit = replace(ratings, settings=replace(ratings.settings, link=None))
    assert probit.predicted_wins()[0, 1] == pytest.approx((norm.cdf(d - m) + norm.cdf(d + m)) / 2, abs=1e-12)


def test_names_stay_text_and_nothing_is_loaded(pages: tuple[Path, Reader, Reader, str]) -> None:
    """Names are text wherever they stand; no page asks for anything, and only the report has a script."""
    for page, scripts in ((pages[1], 0), (pages[2], 1)):
        assert EVIL in "".join(page.words)
        assert sum(tag == "script" for tag, _ in page.seen) == scripts
        for tag, attributes in page.seen:
            assert not any(name.startswith("on") for name in attributes)
            assert tag not in ("link", "iframe", "object")
            for name in ("src", "href"):
                assert (attributes.get(name) or "#").startswith(("#", "data:"))
        style = "".join(page.words)
        assert "@import" not in style
        assert "url(" not in style


def test_charts_hold_hostile_names_and_missing_values() -> None:
    matrix = np.array([[math.nan, 0.7], [0.3, math.nan]])
    drawn = [
        charts.heat_map([EVIL, "b"], matrix, title=EVIL, middle=0.5, reach=0.5, show=lambda v: f"{v:.1f}"),
        charts.line_chart(
            [(EVIL, [1, 2], [3, math.nan]), ("b", [1], [2])], title=EVIL, x_axis=EVIL, y_axis=EVIL,
            marks=[(1.0, EVIL)], diagonal=True, sizes=[1.0],
        ),
        charts.ridges([(EVIL, 1, np.arange(5.0)), ("b", 2, np.ones(3))], title=EVIL),
    ]  # fmt: skip
    for drawing in drawn:
        page = Reader(drawing)
        assert "script" not in {tag for tag, _ in page.seen}
        assert "nan" not in drawing
        assert EVIL in "".join(page.words)


def test_numbers_and_ticks() -> None:
    assert number(-0.004) == "0.00"
    assert number(-1234.5, 1) == "−1,234.5"
    assert number(0.25, 1, sign=True) == "+0.2"
    assert [number(value) for value in (None, math.nan, math.inf)] == ["–"] * 3
    assert charts.nice_ticks(0.0, 1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert charts.nice_ticks(-7.3, 11.0, 5) == pytest.approx([-5, 0, 5, 10])
    assert charts.nice_ticks(3.0, 3.0) == [3.0]
    assert shorten("a" * 50, 11) == "aaaaaa…aaaa"


@pytest.mark.parametrize(
    ("strengths", "said"),
    [
        ((3.0, 0.0, -1.0), "m0 is ahead of all others (95 %, all pairs tested together)."),
        ((2.0, 1.8, -2.0), "are ahead of all others; between them the votes cannot tell; "),
        ((0.0, 0.0, 0.0, 0.0), "leads, but 4 models may be the best: "),
    ],
)
def test_the_first_sentence_says_what_is_known(strengths: tuple[float, ...], said: str) -> None:
    """Votes of which every model wins as often as its strength says, all pairs equally often."""
    rows = [
        (f"m{i}", f"m{j}", "left" if k < round(60 / (1 + math.exp(strengths[j] - strengths[i]))) + (i < j) else "right")
        for i in range(len(strengths)) for j in range(i) for k in range(60)
    ]  # fmt: skip
    left, right, outcome = zip(*rows, strict=True)
    ratings = rate(Votes.from_columns(left=left, right=right, outcome=outcome))
    lead = standings(ratings).lead
    assert said in lead
    first = [row.name for row in ratings.table() if row.tier == 1]
    assert sum(name in lead for name in first) == min(3, len(first))
