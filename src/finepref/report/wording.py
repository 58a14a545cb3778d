"""How every page and text writes a number: one function for each kind of number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

NONE = "–"


def is_number(value: object) -> bool:
    """Whether it is a finite number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A number with that many decimals and a real minus; a dash for None, nan and infinity."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def whole(value: Any) -> str:
    """A count with commas between thousands; a dash for what is no number."""
    return number(value, 0) if is_number(value) else NONE


def weight(value: float) -> str:
    """A sum of weights of votes: a count where it is whole, else with one decimal."""
    return number(value, 0 if float(value).is_integer() else 1)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for None and nan."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def significant(value: float | None, digits: int = 4, *, sign: bool = False) -> str:
    """A number with that many significant figures and a real minus; a dash for None and nan."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:{'+' if sign else ''}.{digits}g}"
    if "e" in text and 1e-6 < abs(value) < 1e7:
        text = f"{value:{'+' if sign else ''}.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return text.replace("-", "−")


def difference(value: float | None) -> str:
    """A difference with its sign and three figures."""
    return significant(value, 3, sign=True)


def span(low: Any, high: Any, write: Callable[[Any], str] = number) -> str:
    """An interval, its ends as `write` writes them; a dash where there is none."""
    return NONE if low is None or high is None else f"{write(low)} to {write(high)}"


def p_value(p: float) -> str:
    """A p-value that is never rounded to zero."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def decimals(widths: Sequence[float]) -> int:
    """Decimals that show an interval of this width with two figures, the narrowest deciding; from 0 to 6."""
    narrow = min((width for width in widths if width > 0), default=1.0)
    return min(6, max(0, 1 - math.floor(math.log10(narrow))))


def duration(seconds: Any) -> str:
    """Seconds as h, min or s."""
    if not is_number(seconds):
        return NONE
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"


def shorten(label: str, most: int = 34) -> str:
    """A label of at most `most` characters, its middle left out."""
    if len(label) <= most:
        return label
    head = (most - 1) * 2 // 3
    return f"{label[:head]}…{label[len(label) - (most - 1 - head) :]}"
