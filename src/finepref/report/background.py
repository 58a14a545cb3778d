"""The parts of the page behind the result: training, arena, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr

from finepref.arena.folder import leaderboard_rows
from finepref.arena.gap import gap_table
from finepref.report import charts
from finepref.report.html import Raw, details, esc, figure, heading, note, number, pair, paragraph, section, table
from finepref.report.inputs import Arena, Inputs, Run
from finepref.report.pieces import significant, smoothed
from finepref.report.strips import strips_block

FIRST = ("loss", "implicit_accuracy", "u")
LAST = ("learning_rate", "lr", "grad_norm")
WHAT = "Moving averages of what every run logged. Losses of different methods are on different scales."
HIDDEN = ("step", "pairs", "epoch", "by_t")
WORDS = {
    "loss": "Loss",
    "implicit_accuracy": "Pairs that the model ranks as the votes do",
    "u": "Pair logit u (margin taken off)",
    "A_w": "Gain over the reference, winners (A_w)",
    "A_l": "Gain over the reference, losers (A_l)",
    "L_w": "Error of the model, winners (L_w)",
    "L_l": "Error of the model, losers (L_l)",
    "sigmoid_minus_u": "Weight of a pair's gradient",
    "lr": "Learning rate",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
}


def training(runs: Sequence[Run]) -> Raw:
    """Curves of every number that the runs logged, and what each run cost."""
    names = _metric_names(runs)
    drawn = []
    for name in names:
        series = []
        for run in runs:
            points = [(r["step"], r[name]) for r in run.metrics if _is_number(r.get(name)) and "step" in r]
            if points:
                x, y = smoothed([float(p[0]) for p in points], [float(p[1]) for p in points])
                series.append((run.name, x, y))
        if series:
            title = WORDS.get(name, name.replace("_", " ").capitalize())
            series, power = readable(series)
            title += f" (times 10^{power})" if power else ""
            drawn.append(
                figure(
                    charts.line_chart(series, title=title, x_axis="step", y_axis=title if len(title) < 22 else ""),
                    title,
                )
            )
    head, rest = drawn[:3], drawn[3:]
    more = details("More curves", pair(*rest)) if rest else Raw("")
    return section(
        "Training",
        paragraph(WHAT, "soft") if drawn else Raw(""),
        pair(*head) if head else note("These runs have no metrics.jsonl."),
        more,
        strips_block(runs),
        heading("Runs"),
        run_table(runs),
        name="training",
    )


def readable(
    series: list[tuple[str, list[float], list[float]]],
) -> tuple[list[tuple[str, list[float], list[float]]], int]:
    """Curves of very small numbers times a power of ten, so that their axis can be read; and that power."""
    most = max((abs(value) for _, _, y in series for value in y), default=0.0)
    if most == 0 or most >= 0.01:
        return series, 0
    power = -math.floor(math.log10(most))
    return [(name, x, [value * 10**power for value in y]) for name, x, y in series], power


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _metric_names(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(key for run in runs for record in run.metrics for key in record if _is_number(record[key]))
    kept = [name for name in names if name not in HIDDEN]
    return (
        [name for name in FIRST if name in kept]
        + [name for name in kept if name not in FIRST + LAST]
        + [name for name in LAST if name in kept]
    )


def run_table(runs: Sequence[Run]) -> Raw:
    """What every run is and what it cost."""
    head = (
        "Run",
        "Method",
        "Signal",
        "Steps",
        "Pairs",
        "Network calls",
        "Device time",
        "Device",
        "Peak memory",
        "Seed",
    )
    rows = []
    for run in runs:
        about = run.about
        calls = about.get("network_calls") or {}
        rows.append(
            (
                run.name,
                about.get("method", "–"),
                signal_words(about.get("signals")),
                _count(about.get("steps")),
                _count(about.get("pairs")),
                _count(sum(value for value in calls.values() if _is_number(value))) if calls else "–",
                duration(about.get("device_seconds")),
                about.get("device", "–"),
                f"{about['peak_memory_mb']:,.0f} MB" if _is_number(about.get("peak_memory_mb")) else "–",
                about.get("seed", "–"),
            )
        )
    words = paragraph(
        "Device time includes labelling: the time it took to make the rewards a run was trained with.", "soft"
    )
    return Raw(table(head, rows, left=(0, 1, 2, 7)) + words)


def signal_words(signals: Mapping[str, Any] | None) -> str:
    """The training signal of a run in words."""
    if not signals:
        return "labels"
    rewards = signals.get("rewards") or []
    rewards = [rewards] if isinstance(rewards, str) else rewards
    return str(signals.get("kind", "–")) + (f" ({', '.join(map(str, rewards))})" if rewards else "")


def _count(value: Any) -> str:
    return f"{value:,.0f}" if _is_number(value) else "–"


def duration(seconds: Any) -> str:
    """Seconds as h, min or s."""
    if not _is_number(seconds):
        return "–"
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"


def arena_section(arena: Arena, name: str) -> Raw:
    """Leaderboard with intervals, win matrix, and the gap table that margins are made of."""
    ratings = arena.ratings
    rows = leaderboard_rows(ratings)
    order = ratings.order()
    labels = [ratings.models[k] for k in order]
    chart = charts.interval_chart(
        [(r["model"], r["low"], r["mu"], r["high"]) for r in rows], title="Ratings with 95 % intervals", axis="rating μ"
    )
    board = table(
        ("Rank", "Model", "μ", "95 % interval", "Possible ranks", "Wins", "Losses", "Ties"),
        [
            (
                r["rank"], r["model"], number(r["mu"]), f"{number(r['low'])} – {number(r['high'])}",
                f"{r['rank_low']}–{r['rank_high']}", f"{r['wins']:,}", f"{r['losses']:,}", f"{r['ties']:,}",
            )
            for r in rows
        ],
        left=(1,),
    )  # fmt: skip
    lead = np.subtract.outer(ratings.mu[order], ratings.mu[order])
    wins = np.asarray(ndtr(lead / ratings.c))
    np.fill_diagonal(wins, np.nan)
    matrix = charts.heat_map(
        labels, wins, title="Probability that the row's image is better than the column's", middle=0.5, reach=0.4,
        show=lambda v: f"{100 * v:.0f}",
    )  # fmt: skip
    gap = gap_table(ratings, "paper")[np.ix_(order, order)]
    off = gap[~np.eye(len(order), dtype=bool)]
    gap_map = charts.heat_map(
        labels, np.where(np.eye(len(order), dtype=bool), np.nan, gap), middle=0.0,
        title="Expected gap when the row beats the column",
        reach=float(np.max(off, initial=1e-9)), show=lambda v: number(v, 1),
    )  # fmt: skip
    return section(
        "Arena",
        paragraph(
            f"{len(labels)} image makers rated from {int(ratings.wins.sum() + ratings.ties.sum() // 2):,} votes by the "
            f"{ratings.engine} engine. The gap is what a vote for the row over the column is worth as a margin.",
            "soft",
        ),
        *(note(warning, warn=True) for warning in ratings.warnings),
        figure(chart, wide=True),
        pair(
            Raw(heading("Win matrix") + figure(matrix, "Chance in percent that the row's image is better.")),
            Raw(heading("Gap table") + figure(gap_map, "Expected quality gap if the row wins (ArenaPO, Eq. 12).")),
        ),
        details("Leaderboard in numbers", board),
        name=name,
    )


def provenance_section(inputs: Inputs, made: Mapping[str, Any]) -> Raw:
    """Where every number comes from: folders, weights, settings, versions."""
    parts: list[str] = []
    for evaluation in inputs.evaluations:
        models = evaluation.record.get("models", {})
        sampling = evaluation.record.get("sampling", {})
        rows = [
            (
                name,
                about.get("origin", "–"),
                Raw(f"<code>{esc(str(about.get('fingerprint', ''))[:16])}</code>"),
                _sampling_words(next((s for slot, s in sampling.items() if slot.split("/")[0] == name), {})),
            )
            for name, about in models.items()
        ]
        parts += [heading("Models"), table(("Model", "From", "Weights", "Sampling"), rows, left=(0, 1, 2, 3))]
        scorers = [
            (name, Raw(f"<code>{esc(', '.join(p[:16] for p in about['fingerprints']))}</code>"))
            for name, about in evaluation.comparison["metrics"].items()
        ]
        parts += [heading("Scorers"), table(("Metric", "Fingerprint"), scorers, left=(0, 1))]
    files = {
        str(path): digest
        for source in [e.comparison for e in inputs.evaluations]
        for path, digest in source.get("provenance", {}).get("inputs", {}).items()
    }
    if files:
        hashes = [(path, Raw(f"<code>{esc(digest[:16])}</code>")) for path, digest in files.items()]
        parts += [heading("Files"), table(("File", "SHA-256"), hashes, left=(0, 1))]
    versions = [(name, version) for name, version in made.get("versions", {}).items()]
    parts += [heading("Versions"), table(("Library", "Version"), versions, left=(0, 1))]
    return section("Provenance", *parts, name="provenance")


def _sampling_words(settings: Mapping[str, Any]) -> str:
    if not settings:
        return "–"
    words = [f"{settings['steps']} steps", f"guidance {significant(settings['guidance'], 3)}"]
    if settings.get("scheduler"):
        words.append(str(settings["scheduler"]))
    if settings.get("size"):
        words.append("x".join(str(side) for side in settings["size"]))
    return ", ".join(words)
