"""Records in a notebook: tables that a parser reads, and data frames."""

from __future__ import annotations

import html
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

import finepref as fp
from finepref.core.notebook import MOST, table_html


def cells(shown: str) -> list[list[str]]:
    table = ElementTree.fromstring(shown)
    return [[cell.text or "" for cell in row] for row in table.iter("tr")]


def test_ratings_and_their_signals() -> None:
    names = ["<b>bold</b>", "b"] * 40
    votes = fp.Votes.from_columns(left=names, right=["b", "c"] * 40, outcome=["left", "right", "tie", "left"] * 20)
    ratings = fp.rate(votes)
    head, first, *rest = cells(ratings._repr_html_())
    table = ratings.table()
    assert head[:4] == ["name", "mu", "low", "high"]
    assert (first[0], first[1]) == (table[0].name, f"{table[0].mu:.4g}")
    assert len(rest) == len(table) - 1
    assert html.escape("<b>bold</b>") in ratings._repr_html_()


def test_a_long_table_says_how_long_it_is() -> None:
    shown = table_html(["n", "x"], ([n, None if n else float("nan")] for n in range(1234)), total=1234)
    assert f"the first {MOST} of 1,234 rows" in shown
    assert cells(shown)[1:] == [[str(n), ""] for n in range(MOST)]


def test_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    prefs = fp.read_preferences([{"prompt": f"p{n}", "chosen": f"{n}.png", "rejected": f"r{n}.png"} for n in range(30)])
    signals = fp.make_signals(prefs, kind="uniform", margin=2.0)
    head, first, *_ = cells(signals._repr_html_())
    assert head == ["pair_id", "winner", "margin", "weight"]
    assert first == [str(signals.pair_id[0]), str(int(signals.winner[0])), "2", "1"]
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    frame = signals.to_pandas()
    assert list(frame["pair_id"]) == list(signals.pair_id)
    assert np.array_equal(frame["weight"], signals.weight)
