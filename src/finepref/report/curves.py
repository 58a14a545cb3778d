"""Curves of every number that runs logged, and what each run cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from finepref.formats.heldout import WORDS as HELD_OUT
from finepref.formats.metrics import WORDS
from finepref.formats.run import RunSignals
from finepref.report.charts import line_chart
from finepref.report.inputs import EvaluationFolder, RunFolder
from finepref.report.kit import Cell, TextTable, table
from finepref.report.wording import NONE, duration, whole
from finepref.train.diagnose import RunFinding, diagnose

POINTS = 80
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
FIRST = ("heldout/lead", "loss", "implicit_accuracy", "u")

Series = list[tuple[str, list[float], list[float]]]


def curves(runs: Sequence[RunFolder]) -> list[tuple[str, Markup]]:
    """(title, moving averages of every run) of every number that was logged, the most telling first."""
    kept = list(dict.fromkeys(name for run in runs for name in run.curves))
    drawn = []
    for name in [*(name for name in FIRST if name in kept), *(name for name in kept if name not in FIRST)]:
        series, power = readable([(run.name, *smoothed(*run.curves[name])) for run in runs if name in run.curves])
        title = (WORDS | HELD_OUT).get(name, name.replace("_", " ").capitalize())
        if power:
            units = f"units of 10{str(-power).translate(RAISED)}"
            title = f"{title[:-1]}, {units})" if title.endswith(")") else f"{title} ({units})"
        chart = line_chart(series, title=title, x_axis="step", y_axis=title if len(title) < 22 else "")
        drawn.append((title, chart))
    return drawn


def readable(series: Series) -> tuple[Series, int]:
    """Curves of very small numbers times a power of ten, so that their axis can be read; and that power."""
    most = max((abs(value) for _, _, y in series for value in y), default=0.0)
    if most == 0 or most >= 0.01:
        return series, 0
    power = min(300, -math.floor(math.log10(most)))
    return [(name, x, [value * 10.0**power for value in y]) for name, x, y in series], power


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


def run_table(runs: Sequence[RunFolder]) -> TextTable:
    """What every run is and what it cost; of one that is not finished no more than its steps is known."""
    head = (
        "Run", "Method", "Signal", "Steps", "Draws of pairs", "Network calls", "Device time", "Device", "Peak memory",
        "Seed",
    )  # fmt: skip
    return table(head, map(_run_cells, runs), left=(0, 1, 2, 7), stack=True)


def findings(runs: Sequence[RunFolder], evaluations: Sequence[EvaluationFolder]) -> list[tuple[str, RunFinding]]:
    """What every finished run learned, and what is wrong with it."""
    found = []
    for run in runs:
        if run.record is not None and run.until is None:
            shown = [(each.comparison, name) for each in evaluations if (name := _shown_as(run, each)) is not None]
            compared, name = shown[0] if shown else (None, run.name)
            found += [(run.name, each) for each in diagnose(run.folder, compared, model=name)]
    return found


def _shown_as(run: RunFolder, evaluation: EvaluationFolder) -> str | None:
    """What a run is called in an evaluation that was compared: the name of the model that lies in its folder."""
    if evaluation.comparison is None:
        return None
    models = evaluation.manifest.about.models
    return next((name for name, each in models.items() if Path(each.origin).resolve() == run.folder.resolve()), None)


def _run_cells(run: RunFolder) -> tuple[object, ...]:
    about = run.record
    if about is None:
        state = "not finished" if run.until is None else "a checkpoint"
        return (Cell(run.name, badge=state), NONE, NONE, whole(run.step), *[NONE] * 6)
    calls = [count for count in about.network_calls.values() if count is not None]
    return (
        run.name, about.method, _signal(about.signals), whole(about.steps), whole(about.pairs),
        whole(sum(calls) if calls else None), duration(about.device_seconds), about.device,
        f"{whole(about.peak_memory_mb)} MB", about.seed,
    )  # fmt: skip


def _signal(about: RunSignals) -> str:
    """The training signal of a run in words."""
    return about.kind + (f" ({', '.join(about.rewards)})" if about.rewards else "")
