"""Charts as SVG that follow the page's colours in light and dark: lines, heat maps, density curves.

Axes take plain numbers; every text is escaped. Every chart has a `title` that a screen reader speaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from finepref.report.wording import number, shorten, significant

Floats = NDArray[np.float64]
Points = Sequence[tuple[float, float]]

COLOURS = ("accent", "second", "third", "fourth", "fifth", "sixth")
GRID = 160


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


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick with as many decimals as the step between ticks needs."""
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(value) or 1.0
    return number(value, max(0, -math.floor(math.log10(step) + 1e-9)))


def _tag(name: str, *inside: str, **attributes: object) -> Markup:
    """An element; `class_` is the attribute class, `stroke_width` stroke-width; floats get one decimal."""
    words = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), f"{value:.1f}" if isinstance(value, float) else str(value)
        )
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), words, Markup("").join(inside))


def _svg(width: float, height: float, title: str, body: Iterable[Markup]) -> Markup:
    box = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    return _tag("svg", _tag("title", title), *body, role="img", **box)


def _text(x: float, y: float, text: str, *, anchor: str = "start", class_: str = "soft", full: str = "") -> Markup:
    tip = (_tag("title", full),) if full else ()
    return _tag("text", text, *tip, x=x, y=y, text_anchor=anchor, class_=class_)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str = "grid", **more: str) -> Markup:
    return _tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, **more)


def line_chart(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]], *, title: str, x_axis: str, y_axis: str,
    x_range: tuple[float, float] | None = None, y_range: tuple[float, float] | None = None, diagonal: bool = False,
    dots: bool = False, sizes: Sequence[float] = (), marks: Sequence[tuple[float, str]] = (), width: float = 460.0,
    height: float = 320.0,
) -> Markup:  # fmt: skip
    """Lines (name, x, y), nan left out. `diagonal`: y = x too, `marks`: labelled vertical lines, `sizes`: dot areas."""
    points = [
        [(a, b) for a, b in zip(xs, ys, strict=True) if math.isfinite(a) and math.isfinite(b)] for _, xs, ys in series
    ]
    everything = [p for line in points for p in line] or [(0.0, 0.0), (1.0, 1.0)]
    x0, x1 = x_range or axis_ends([p[0] for p in everything])
    y0, y1 = y_range or axis_ends([p[1] for p in everything])
    left, top, right, bottom = 70.0, 12.0 + 18.0 * (len(series) > 1), width - 14.0, height - 44.0
    middle = (left + right) / 2

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (x - x0) / (x1 - x0) * (right - left), bottom - (y - y0) / (y1 - y0) * (bottom - top)

    body = []
    for t in (xs := nice_ticks(x0, x1, 5)):
        x, _ = at(t, y0)
        body += [_line(x, top, x, bottom), _text(x, bottom + 17, tick_text(t, xs), anchor="middle")]
    for t in (ys := nice_ticks(y0, y1, 5)):
        _, y = at(x0, t)
        body += [_line(left, y, right, y), _text(left - 6, y + 4, tick_text(t, ys), anchor="end")]
    body.append(_text(middle, height - 6, x_axis, anchor="middle"))
    turned = f"translate(13 {(top + bottom) / 2:.1f}) rotate(-90)"
    body.append(_tag("text", y_axis, transform=turned, text_anchor="middle", class_="soft"))
    if diagonal:
        a, b = max(x0, y0), min(x1, y1)
        body.append(_line(*at(a, a), *at(b, b), "axis", stroke_dasharray="4 4"))
    for value, words in marks:
        x, _ = at(value, y0)
        side, anchor = (-6, "end") if x > middle else (6, "start")
        body.append(_line(x, top, x, bottom, "axis", stroke_dasharray="3 3"))
        body.append(_text(x + side, bottom - 8, words, anchor=anchor, class_="word"))
    for place, line in enumerate(points):
        colour = f"var(--{COLOURS[place % len(COLOURS)]})"
        body += _curve([at(*p) for p in line], colour, dots or len(line) == 1, sizes if place == 0 else ())
    return _svg(width, height, title, [*body, *(_legend([name for name, _, _ in series], left) if series[1:] else ())])


def axis_ends(values: Sequence[float], share: float = 0.05) -> tuple[float, float]:
    """The ends of an axis, a share of its length beyond the values; those that differ by rounding only are one."""
    low, high = min(values), max(values)
    alike = high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300)
    pad = 0.05 * abs(high) or 0.5 if alike else share * (high - low)
    return low - pad, high + pad


def _curve(points: Points, colour: str, dots: bool, sizes: Sequence[float]) -> list[Markup]:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    body = [_tag("polyline", points=path, fill="none", stroke=colour, stroke_width="2", stroke_linejoin="round")]
    most = max(sizes, default=1.0) or 1.0
    for at, (a, b) in enumerate(points if dots else ()):
        radius = 2.5 + 5.5 * math.sqrt(sizes[at] / most) if at < len(sizes) else 3.2
        body.append(_tag("circle", cx=a, cy=b, r=radius, fill=colour))
    return body


def _legend(names: Sequence[str], left: float) -> list[Markup]:
    body, x = [], left
    for at, name in enumerate(names):
        colour = f"var(--{COLOURS[at % len(COLOURS)]})"
        body += [_tag("rect", x=x, y="6", width="12", height="4", rx="2", fill=colour), _text(x + 17, 12, name)]
        x += 30 + 6.6 * len(name)
    return body


def heat_map(
    names: Sequence[str], values: Floats, *, title: str, middle: float, reach: float, show: Callable[[float], str],
    tip: Callable[[int, int], str] | None = None,
) -> Markup:  # fmt: skip
    """[M, M] as coloured cells: above `middle` one colour, below another, full at +-`reach`; nan cells stay empty.

    Columns bear the place of their name among the rows.
    """
    labels = [f"{shorten(name, 30)}  {place}" for place, name in enumerate(names, start=1)]
    cell, top = 36.0, 22.0
    left = 12.0 + 6.8 * max((len(label) for label in labels), default=1)
    body = []
    for row, label in enumerate(labels):
        y = top + cell * row
        body.append(_text(left + cell * (row + 0.5), top - 7, str(row + 1), anchor="middle"))
        body.append(_text(left - 8, y + cell / 2 + 4, label, anchor="end", class_="word", full=names[row]))
        for column, value in enumerate(values[row].tolist()):
            x = left + cell * column
            box = {"x": x + 1, "y": y + 1, "width": cell - 2, "height": cell - 2, "rx": "4"}
            if not math.isfinite(value):
                body.append(_tag("rect", **box, fill="none", stroke="var(--line)"))
                continue
            colour = f"var(--{'heat' if value >= middle else 'cold'})"
            strength = min(abs(value - middle) / reach, 1.0) * 0.75 + 0.03
            words = tip(row, column) if tip else f"{names[row]} / {names[column]}: {show(value)}"
            body.append(_tag("rect", _tag("title", words), **box, fill=f"rgba({colour},{strength:.2f})"))
            body.append(_text(x + cell / 2, y + cell / 2 + 4, show(value), anchor="middle", class_="word"))
    return _svg(left + cell * len(names), top + cell * len(names) + 6, title, body)


def density(values: Floats, at: Floats) -> Floats:
    """Gaussian kernel density with Silverman's bandwidth; a constant sample is a narrow bump.

    h = 0.9 min(sd, IQR / 1.34) n^(-1/5).

    Args:
        values: [n] finite.
        at: [m] places.

    Returns:
        [m] density.

    References:
        Silverman, 1986, eq. 3.31.
    """
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    quartiles = np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.34
    scale = min(s for s in (spread, quartiles) if s > 0) if max(spread, quartiles) > 0 else 0.0
    width = 0.9 * scale * len(values) ** -0.2 or (at[-1] - at[0]) / 60
    z = (at[:, None] - values[None, :]) / width
    return np.exp(-0.5 * z * z).mean(1) / (width * np.sqrt(2 * np.pi))


def ridges(series: Sequence[tuple[str, int, Floats]], *, title: str) -> Markup:
    """Density curves of named samples (name, colour, values) one above the other, with median and quartiles marked."""
    width, row, left, right = 460.0, 58.0, 92.0, 12.0
    everything = np.concatenate([values for _, _, values in series])
    at = np.linspace(*axis_ends(np.quantile(everything, [0.002, 0.998]).tolist(), 0.06), GRID)
    curves = [density(values, at) for _, _, values in series]
    top, height = max(float(curve.max()) for curve in curves), row * len(series) + 40

    def x(value: float) -> float:
        return float(left + (value - at[0]) / (at[-1] - at[0]) * (width - left - right))

    body, medians = [], []
    for place, ((name, colour, values), curve) in enumerate(zip(series, curves, strict=True), start=1):
        base = row * place
        line = [f"{x(a):.1f},{base - 0.9 * row * d / top:.1f}" for a, d in zip(at, curve, strict=True)]
        path = " ".join([f"{x(at[0]):.1f},{base}", *line, f"{x(at[-1]):.1f},{base}"])
        first, median, third = (float(v) for v in np.quantile(values, [0.25, 0.5, 0.75]))
        medians.append(f"{name} median {significant(median)}")
        body.append(
            _tag(
                "g", _tag("polygon", points=path, class_="ridge"), _line(x(first), base, x(third), base, "box"),
                _tag("circle", cx=x(median), cy=base, r="4", class_="mid"),
                _text(left - 8, base - 6, shorten(name, 12), anchor="end", class_="word", full=name),
                class_=f"c{colour}",
            )
        )  # fmt: skip
    ticks = nice_ticks(float(at[0]), float(at[-1]), 4)
    body += [_text(x(tick), height - 10, significant(tick, 3), anchor="middle") for tick in ticks]
    return _svg(width, height, f"{title}: {'; '.join(medians)}", body)
