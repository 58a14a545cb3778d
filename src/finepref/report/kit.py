"""What pages are made of: tables and intervals as plain records, and the templates that show them.

A record holds text as it is. Templates of HTML escape everything; those of Markdown escape with the filter `plain`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from finepref.report import wording
from finepref.report.charts import axis_ends, nice_ticks, tick_text

SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~$"} | {"\n": " ", "\r": " "})


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: its text, remarks below it, a class of its look, and a badge with what it means."""

    text: str
    small: tuple[str, ...] = ()
    look: str = ""
    badge: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of text. left, wrap: columns that are left-aligned, and of them those that break; looks: of its rows.

    stack: whether a phone shows its columns below each other.
    """

    head: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: tuple[int, ...] = (0,)
    wrap: tuple[int, ...] = ()
    looks: tuple[str, ...] = ()
    stack: bool = False

    def cut(self, most: int) -> tuple[TextTable, TextTable | None]:
        """The first rows, and a table of the others where there are any."""
        first, rest = (
            replace(self, rows=self.rows[part], looks=self.looks[part]) for part in (slice(most), slice(most, None))
        )
        return first, rest if rest.rows else None


def table(head: Iterable[object], rows: Iterable[Iterable[object]], **options: Any) -> TextTable:
    """A table of any values; what is no `Cell` becomes one of its text."""

    def cells(values: Iterable[object]) -> tuple[Cell, ...]:
        return tuple(value if isinstance(value, Cell) else Cell(str(value)) for value in values)

    return TextTable(cells(head), tuple(cells(row) for row in rows), **options)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, if any: whose it is, more words on it, a remark below, and a colour of the palette."""

    label: str
    value: float
    low: float | None
    high: float | None
    more: str = ""
    remark: str = ""
    colour: int = 1


@dataclass(frozen=True, slots=True)
class Bar:
    """An estimate on its axis: its places in percent of the width (0 wide: no interval), and its numbers in words."""

    estimate: Estimate
    left: float
    middle: float
    width: float
    shown: str
    span: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Estimates on one axis, drawn by the template so that a phone shows them too; ticks: (place, words)."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    title: str
    axis: str = ""
    rule: float | None = None


def bars(rows: Sequence[Estimate], *, title: str, axis: str) -> Bars:
    """Estimates as plain numbers, on an axis as long as they need."""
    low, high = axis_ends([end for row in rows for end in (row.low, row.high, row.value) if end is not None], 0.03)
    ticks = nice_ticks(low, high, 6)
    return _bars(rows, (low, high), [(t, tick_text(t, ticks)) for t in ticks], wording.number, title, axis)


def share_bars(rows: Sequence[Estimate], *, title: str, beside: Sequence[Estimate] = ()) -> Bars:
    """Win rates on an axis around one half, in steps of ten points, as wide as the rows and those of charts beside it
    need.
    """
    every = [end for row in (*rows, *beside) for end in (row.low, row.high, row.value)]
    reach = max(abs(end - 0.5) for end in every if end is not None)
    steps = min(5, max(1, math.ceil(reach * 10 - 1e-9)))
    gap = {1: 1, 2: 1, 3: 1, 4: 2, 5: 5}[steps]
    ticks = [(0.5 + k / 10, wording.percent(0.5 + k / 10, 0)) for k in range(-steps, steps + 1) if k % gap == 0]
    return _bars(rows, (0.5 - steps / 10, 0.5 + steps / 10), ticks, wording.percent, title, rule=0.5)


def _bars(
    rows: Sequence[Estimate], ends: tuple[float, float], ticks: Sequence[tuple[float, str]], write: Any,
    title: str, axis: str = "", rule: float | None = None,
) -> Bars:  # fmt: skip
    def at(value: float) -> float:
        """Place in percent, kept inside the axis."""
        return 100.0 * (min(max(value, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0])

    drawn = []
    for row in rows:
        left, right = (None if end is None else at(end) for end in (row.low, row.high))
        width = 0.0 if left is None or right is None else max(right - left, 0.5)
        words = write(row.value), wording.span(row.low, row.high, write)
        drawn.append(Bar(row, left or 0.0, at(row.value), width, *words))
    places = tuple((at(value), words) for value, words in ticks)
    return Bars(tuple(drawn), places, title, axis, None if rule is None else at(rule))


def plain(value: object) -> str:
    """Any value so that Markdown shows it as it is."""
    return str(value).translate(SPECIAL)


def asset(name: str) -> Markup:
    """A style sheet or script of the package, to be put into a page."""
    return Markup((resources.files("finepref.report") / "assets" / name).read_text(encoding="utf-8"))


def digest(text: str) -> str:
    """The hash by which a content policy names a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def environment() -> Environment:
    """The templates with the functions that they may call; a name that nobody gave is an error."""
    found = Environment(
        loader=PackageLoader("finepref.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=lambda name: name is not None and name.endswith(".html.j2"), keep_trailing_newline=True,
    )  # fmt: skip
    functions = (
        plain, digest, wording.number, wording.whole, wording.percent, wording.significant, wording.shorten,
        wording.duration,
    )  # fmt: skip
    found.filters.update({function.__name__: function for function in functions})
    found.globals["asset"] = asset
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return found


def render(template: str, **record: Any) -> str:
    """A template filled with a record."""
    return environment().get_template(template).render(**record)
