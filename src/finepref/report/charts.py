"""Charts as SVG strings that follow the page's colours in light and dark: intervals, lines, bars, heat maps.

Axes take plain numbers; labels are escaped. Every chart has a `title` that a screen reader speaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from finepref.report.html import Raw, esc, number

COLOURS = ("accent", "second", "third", "fourth", "fifth", "sixth")
LABEL_CHARACTERS = 34


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high] in about `count` steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1.0, 2.0, 5.0, 10.0) if power * f >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [step * k for k in range(first, last + 1)]


def _tick_text(value: float, ticks: Sequence[float]) -> str:
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(value) or 1.0
    return number(value, max(0, -math.floor(math.log10(step) + 1e-9)))


def shorten(label: str, most: int = LABEL_CHARACTERS) -> str:
    """A label of at most `most` characters, its middle left out."""
    if len(label) <= most:
        return label
    head = (most - 1) * 2 // 3
    return f"{label[:head]}…{label[len(label) - (most - 1 - head) :]}"


def _svg(width: float, height: float, title: str, body: Sequence[str]) -> Raw:
    return Raw(
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img">'
        f"<title>{esc(title)}</title>{''.join(body)}</svg>"
    )


def _text(x: float, y: float, text: object, *, anchor: str = "start", kind: str = "", full: str = "") -> str:
    tip = f"<title>{esc(full)}</title>" if full else ""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{esc(text)}{tip}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid", extra: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"{extra}/>'


def interval_chart(
    rows: Sequence[tuple[str, float, float, float]],
    *,
    title: str,
    axis: str,
    strong: Sequence[bool] = (),
    digits: int = 2,
) -> Raw:
    """A dot with a whisker per row: (label, low, middle, high); rows that are not `strong` are grey.

    Made of HTML boxes instead of SVG, so that a phone shows labels above the bars.
    """
    values = [v for row in rows for v in row[1:] if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(values), max(values)
    pad = 0.03 * (high - low) or 1.0
    low, high = low - pad, high + pad

    def at(value: float) -> float:
        return 100.0 * (value - low) / (high - low)

    ticks = nice_ticks(low, high, 6)
    grid = "".join(f'<s style="left:{at(t):.2f}%"></s>' for t in ticks)
    body = []
    for row, (label, a, mid, b) in enumerate(rows):
        plain = "" if not strong or strong[row] else " plain"
        bar = f'<i style="left:{at(a):.2f}%;width:{at(b) - at(a):.2f}%"></i><b style="left:{at(mid):.2f}%"></b>'
        tip = f"{label}: {number(mid, digits)} ({number(a, digits)} to {number(b, digits)})"
        body.append(
            f'<div class="iv{plain}" title="{esc(tip)}"><span>{esc(shorten(label, 44))}</span>'
            f"<div>{grid}{bar}</div><em>{number(mid, digits)}</em></div>"
        )
    scale = "".join(f'<s style="left:{at(t):.2f}%">{_tick_text(t, ticks)}</s>' for t in ticks)
    foot = f'<div class="iv scale"><span></span><div>{scale}</div><em></em></div><p class=ivname>{esc(axis)}</p>'
    longest = min(44, max((len(row[0]) for row in rows), default=1))
    label = f'style="--label:{0.56 * longest + 0.5:.1f}em"'
    return Raw(f'<div role="img" aria-label="{esc(title)}" {label}>{"".join(body)}{foot}</div>')


def line_chart(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_axis: str,
    y_axis: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
    dots: bool = False,
    sizes: Sequence[float] = (),
    marks: Sequence[tuple[float, str]] = (),
    log_x: bool = False,
    log_y: bool = False,
    width: float = 460.0,
    height: float = 320.0,
) -> Raw:
    """Lines (name, x, y), nan left out. `diagonal`: y = x too, `marks`: labelled vertical lines, `sizes`: dot areas."""
    fx: Callable[[float], float] = math.log10 if log_x else float
    fy: Callable[[float], float] = math.log10 if log_y else float
    points = [
        [(fx(a), fy(b)) for a, b in zip(xs, ys, strict=True) if _drawable(a, log_x) and _drawable(b, log_y)]
        for _, xs, ys in series
    ]
    everything = [p for line in points for p in line] or [(0.0, 0.0), (1.0, 1.0)]
    x0, x1 = _span([p[0] for p in everything], x_range, fx)
    y0, y1 = _span([p[1] for p in everything], y_range, fy)
    left, top, right, bottom = 70.0, 12.0 + 18.0 * (len(series) > 1), width - 14.0, height - 44.0

    def sx(value: float) -> float:
        return left + (value - x0) / (x1 - x0) * (right - left)

    def sy(value: float) -> float:
        return bottom - (value - y0) / (y1 - y0) * (bottom - top)

    body = _frame(x0, x1, y0, y1, sx, sy, (left, top, right, bottom), log_x=log_x, log_y=log_y)
    body.append(_text((left + right) / 2, height - 6, x_axis, anchor="middle", kind="soft"))
    turned = f'transform="translate(13 {(top + bottom) / 2:.1f}) rotate(-90)"'
    body.append(f'<text {turned} text-anchor="middle" class="soft">{esc(y_axis)}</text>')
    if diagonal:
        a, b = max(x0, y0), min(x1, y1)
        body.append(_line(sx(a), sy(a), sx(b), sy(b), "axis", ' stroke-dasharray="4 4"'))
    for value, words in marks:
        at = sx(fx(value))
        body.append(_line(at, top, at, bottom, "axis", ' stroke-dasharray="3 3"'))
        on_left = at > (left + right) / 2
        body.append(_text(at + (-6 if on_left else 6), bottom - 8, words, anchor="end" if on_left else "start"))
    for at, line in enumerate(points):
        body += _curve([(sx(a), sy(b)) for a, b in line], COLOURS[at % len(COLOURS)], dots, sizes if at == 0 else ())
    if len(series) > 1:
        body += _legend([name for name, _, _ in series], left)
    return _svg(width, height, title, body)


def _drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (not log or value > 0)


def _span(values: list[float], given: tuple[float, float] | None, f: Callable[[float], float]) -> tuple[float, float]:
    if given is not None:
        return f(given[0]), f(given[1])
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or 0.5
    return low - pad, high + pad


def _frame(
    x0: float, x1: float, y0: float, y1: float, sx: Callable[[float], float], sy: Callable[[float], float],
    box: tuple[float, float, float, float], *, log_x: bool, log_y: bool,
) -> list[str]:  # fmt: skip
    left, top, right, bottom = box
    xs = [float(k) for k in range(math.ceil(x0), math.floor(x1) + 1)] if log_x else nice_ticks(x0, x1, 5)
    ys = [float(k) for k in range(math.ceil(y0), math.floor(y1) + 1)] if log_y else nice_ticks(y0, y1, 5)
    body = [_line(sx(t), top, sx(t), bottom) for t in xs] + [_line(left, sy(t), right, sy(t)) for t in ys]
    for t in xs:
        body.append(
            _text(sx(t), bottom + 17, f"1e{t:.0f}" if log_x else _tick_text(t, xs), anchor="middle", kind="soft")
        )
    for t in ys:
        body.append(_text(left - 6, sy(t) + 4, f"1e{t:.0f}" if log_y else _tick_text(t, ys), anchor="end", kind="soft"))
    return body


def _curve(points: list[tuple[float, float]], colour: str, dots: bool, sizes: Sequence[float]) -> list[str]:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    body = [
        f'<polyline points="{path}" fill="none" stroke="var(--{colour})" stroke-width="2" stroke-linejoin="round"/>'
    ]
    if dots or len(points) == 1:
        most = max(sizes, default=1.0) or 1.0
        for at, (a, b) in enumerate(points):
            radius = 2.5 + 5.5 * math.sqrt(sizes[at] / most) if at < len(sizes) else 3.2
            body.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{radius:.1f}" fill="var(--{colour})"/>')
    return body


def _legend(names: Sequence[str], left: float) -> list[str]:
    body, x = [], left
    for at, name in enumerate(names):
        body.append(
            f'<rect x="{x:.1f}" y="6" width="12" height="4" rx="2" fill="var(--{COLOURS[at % len(COLOURS)]})"/>'
        )
        body.append(_text(x + 17, 12, name, kind="soft"))
        x += 30 + 6.6 * len(name)
    return body


def bar_chart(
    rows: Sequence[tuple[str, float]],
    *,
    title: str,
    axis: str,
    digits: int = 2,
    base: float = 0.0,
    width: float = 460.0,
) -> Raw:
    """Horizontal bars (label, value) from `base`, with the value written at the end; nan rows have no bar."""
    label_width = 12.0 + 7.1 * min(LABEL_CHARACTERS, max((len(row[0]) for row in rows), default=1))
    step, bottom = 24.0, 24.0
    height = step * len(rows) + bottom
    values = [v for _, v in rows if math.isfinite(v)] or [1.0]
    low, high = min(base, *values), max(base, *values)
    right = width - 62.0
    scale = (right - label_width) / ((high - low) or 1.0)
    body = []
    for at, (label, value) in enumerate(rows):
        y = step * at + 4
        body.append(_text(label_width - 8, y + 12, shorten(label), anchor="end", full=label))
        end = label_width
        if math.isfinite(value):
            a, b = sorted((label_width + (base - low) * scale, label_width + (value - low) * scale))
            end = b
            body.append(
                f'<rect x="{a:.1f}" y="{y:.1f}" width="{max(b - a, 1):.1f}" height="16" rx="3" fill="var(--accent)"/>'
            )
        body.append(_text(end + 6, y + 12, number(value, digits), kind="soft"))
    body.append(_text((label_width + right) / 2, height - 6, axis, anchor="middle", kind="soft"))
    return _svg(width, height, title, body)


def heat_map(
    labels: Sequence[str], values: npt.NDArray[np.float64], *, title: str, middle: float, reach: float,
    show: Callable[[float], str], tips: Callable[[int, int], str] | None = None, across: Sequence[str] | None = None,
) -> Raw:  # fmt: skip
    """A square of coloured cells: above `middle` one colour, below another, full at +-`reach`; nan cells stay empty."""
    across = labels if across is None else across
    cell = 36.0 if len(across) <= 24 else 22.0
    longest = max((len(x) for x in across), default=1)
    label_width = 12.0 + 6.8 * min(LABEL_CHARACTERS, max((len(x) for x in labels), default=1))
    turned = longest > 4
    head = 14.0 + 4.9 * min(LABEL_CHARACTERS, longest) if turned else 22.0
    width, height = label_width + cell * len(across) + head * 0.75 * turned, head + cell * len(labels) + 6
    body = []
    for at, label in enumerate(across):
        x = label_width + cell * (at + 0.5)
        if turned:
            place = f'transform="translate({x + 3:.1f} {head - 6:.1f}) rotate(-45)"'
            body.append(f'<text {place} class="soft">{esc(shorten(label))}</text>')
        else:
            body.append(_text(x, head - 7, label, anchor="middle", kind="soft"))
    for row, label in enumerate(labels):
        y = head + cell * row
        body.append(_text(label_width - 8, y + cell / 2 + 4, shorten(label), anchor="end", full=label))
        for column in range(len(across)):
            value = float(values[row, column])
            x = label_width + cell * column
            if not math.isfinite(value):
                body.append(_cell(x, y, cell, 'fill="none" stroke="var(--line)"', ""))
                continue
            strength = min(abs(value - middle) / reach, 1.0) * 0.75 + 0.03
            colour = f'fill="rgba(var(--{"heat" if value >= middle else "cold"}),{strength:.2f})"'
            body.append(
                _cell(x, y, cell, colour, tips(row, column) if tips else f"{label} / {across[column]}: {show(value)}")
            )
            if cell >= 30:
                body.append(_text(x + cell / 2, y + cell / 2 + 4, show(value), anchor="middle"))
    return _svg(width, height, title, body)


def _cell(x: float, y: float, cell: float, look: str, tip: str) -> str:
    size = cell - 2
    box = f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{size:.0f}" height="{size:.0f}" rx="4" {look}>'
    return f"{box}<title>{esc(tip)}</title></rect>"
