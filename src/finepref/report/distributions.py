"""How the scores of every model are spread: one density curve per model, the same axis for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from finepref.report.charts import nice_ticks
from finepref.report.html import Raw, details, esc, figure, pair, paragraph
from finepref.report.inputs import Evaluation
from finepref.report.pieces import significant

Floats = NDArray[np.float64]

WIDTH, ROW, LEFT, RIGHT, FOOT = 460.0, 58.0, 92.0, 12.0, 40.0
GRID = 160


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


def ridges(series: Sequence[tuple[str, int, Floats]], *, title: str) -> Raw:
    """Density curves of named samples (name, colour, values) one above the other, with median and quartiles marked."""
    everything = np.concatenate([values for _, _, values in series])
    low, high = (float(v) for v in np.quantile(everything, [0.002, 0.998]))
    pad = 0.06 * (high - low) or max(abs(low) * 0.01, 1e-6)
    at = np.linspace(low - pad, high + pad, GRID)
    curves = [density(values, at) for _, _, values in series]
    top = max(float(curve.max()) for curve in curves)
    height = ROW * len(series) + FOOT

    def x(value: float) -> float:
        return LEFT + (value - at[0]) / (at[-1] - at[0]) * (WIDTH - LEFT - RIGHT)

    body = []
    for place, ((name, colour, values), curve) in enumerate(zip(series, curves, strict=True)):
        base = ROW * (place + 1)
        line = " ".join(f"{x(a):.1f},{base - 0.9 * ROW * d / top:.1f}" for a, d in zip(at, curve, strict=True))
        quartiles = np.quantile(values, [0.25, 0.5, 0.75])
        body.append(
            f'<g class="c{colour}"><polygon points="{x(at[0]):.1f},{base} {line} {x(at[-1]):.1f},{base}" class=ridge />'
            f'<line x1="{x(quartiles[0]):.1f}" x2="{x(quartiles[2]):.1f}" y1="{base}" y2="{base}" class=box />'
            f'<circle cx="{x(quartiles[1]):.1f}" cy="{base}" r="4" class=mid />'
            f'<text x="{LEFT - 8}" y="{base - 6}" text-anchor="end">{esc(name[:13])}<title>{esc(name)}</title></text>'
            "</g>"
        )
    for tick in nice_ticks(float(at[0]), float(at[-1]), 4):
        words = significant(tick, 3)
        body.append(f'<text x="{x(tick):.1f}" y="{height - 10}" text-anchor="middle" class=soft>{words}</text>')
    words = f"{title}: " + "; ".join(f"{name} median {significant(float(np.median(v)))}" for name, _, v in series)
    return Raw(
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" height="{height:.0f}" role="img">'
        f"<title>{esc(words)}</title>{''.join(body)}</svg>"
    )


def distributions(evaluation: Evaluation, colours: Mapping[str, int]) -> Raw:
    """The spread of every metric and prompt set."""
    drawn = []
    for sheet in evaluation.scores.sheets:
        for metric in evaluation.comparison["metrics"]:
            series = []
            for model in evaluation.models:
                values = sheet.values.get(model, {}).get(metric)
                kept = values[np.isfinite(values)] if values is not None else np.zeros(0)
                if len(kept) > 1:
                    series.append((model, colours[model], kept))
            if series:
                title = metric if len(evaluation.scores.sheets) == 1 else f"{metric} on {sheet.prompt_set}"
                drawn.append(figure(ridges(series, title=title), title))
    if not drawn:
        return Raw("")
    words = paragraph(
        "Density of the scores; the dot is the median, the bar holds the middle half of the images.", "soft"
    )
    return details("How the scores are spread", words, pair(*drawn))
