"""Pieces that only the report needs: estimates with intervals as rows that reflow, JSON islands, curves of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finepref.core.files import finite
from finepref.report.html import Raw, esc

POINTS = 80


@dataclass(frozen=True, slots=True)
class Estimate:
    """A row of a forest plot: label and remark, value with its interval, the value in words, and a palette index."""

    label: object
    value: float
    low: float
    high: float
    shown: str
    remark: object = ""
    colour: int = 0


@dataclass(frozen=True, slots=True)
class Axis:
    """A shared horizontal axis: its ends, the value of "no difference" or None, its ticks, shares or plain numbers."""

    low: float
    high: float
    rule: float | None
    ticks: tuple[float, ...]
    share: bool = False

    def at(self, value: float) -> float:
        """Position of a value in percent of the width, kept inside the axis."""
        return 100.0 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    def words(self, value: float) -> str:
        """An end of an interval as this axis writes it."""
        return percent(value) if self.share else significant(value)

    def tick(self, value: float) -> str:
        """A tick as this axis writes it."""
        return percent(value, 0) if self.share else significant(value)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for None and nan."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def significant(value: float | None, digits: int = 4, *, sign: bool = False) -> str:
    """A number with that many significant figures and a real minus; a dash for None and nan."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if sign else ''}.{digits}g}"
    if "e" in text and 1e-6 < abs(value) < 1e7:
        text = f"{value:{'+' if sign else ''}.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return text.replace("-", "−")


def share_axis(rows: Sequence[Estimate]) -> Axis:
    """An axis of win rates around one half that is as wide as the rows need, in steps of ten points."""
    reach = max([abs(end - 0.5) for row in rows for end in (row.low, row.high)] or [0.1])
    steps = min(5, max(1, math.ceil(reach * 10 - 1e-9)))
    gap = 1 if steps <= 3 else 2 if steps == 4 else 5
    marks = range(-steps, steps + 1)
    ticks = tuple(0.5 + k / 10 for k in marks if k % gap == 0)
    return Axis(0.5 - steps / 10, 0.5 + steps / 10, 0.5, tuple(round(t, 3) for t in ticks), share=True)


def forest(rows: Sequence[Estimate], axis: Axis) -> Raw:
    """Estimates with whiskers on one axis; every number also stands beside its row."""
    rule = "" if axis.rule is None else f'<i class=rule style="left:{axis.at(axis.rule):.2f}%"></i>'
    lines = []
    for row in rows:
        left, right = axis.at(row.low), axis.at(row.high)
        lines.append(
            f'<li class="c{row.colour}"><span class=name>{esc(row.label)}<small>{esc(row.remark)}</small></span>'
            f'<span class=track aria-hidden=true>{rule}<i class=whisker style="left:{left:.2f}%;width:'
            f'{max(right - left, 0.5):.2f}%"></i><i class=dot style="left:{axis.at(row.value):.2f}%"></i></span>'
            f"<span class=nums><b>{esc(row.shown)}</b><small>{esc(axis.words(row.low))} to {esc(axis.words(row.high))}"
            "</small></span></li>"
        )
    ticks = "".join(f'<i style="left:{axis.at(t):.2f}%">{esc(axis.tick(t))}</i>' for t in axis.ticks)
    scale = f"<li class=scale aria-hidden=true><span></span><span class=track>{ticks}</span><span></span></li>"
    return Raw(f"<ul class=forest>{''.join(lines)}{scale}</ul>")


def legend(names: Sequence[tuple[str, int]]) -> Raw:
    """Names with their colours."""
    inner = "".join(f'<span class="c{colour}"><i class=swatch></i>{esc(name)}</span>' for name, colour in names)
    return Raw(f"<p class=legend>{inner}</p>")


def json_island(value: Any, identity: str) -> Raw:
    """JSON for the page's script, written so that no text inside can end the element or start another."""
    body = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        body = body.replace(character, f"\\u{ord(character):04x}")
    return Raw(f'<script type="application/json" id="{esc(identity)}">{body}</script>')


def smoothed(x: Sequence[float], y: Sequence[float], points: int = POINTS) -> tuple[list[float], list[float]]:
    """A curve as centred moving averages over a twelfth of its length, at most `points` of them.

    The window shrinks towards both ends so that it stays centred; values that are not finite are left out.
    """
    kept = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    half = len(kept) // 24
    last = len(kept) - 1
    count = min(points, len(kept))
    places = sorted({round(k * last / max(1, count - 1)) for k in range(count)})
    means = []
    for place in places:
        reach = min(half, place, last - place)
        window = [b for _, b in kept[place - reach : place + reach + 1]]
        means.append(sum(window) / len(window))
    return [kept[place][0] for place in places], means
