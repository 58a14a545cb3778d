"""The part of the page that says who wins, by how much, and how sure that is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from finepref.core.errors import InputError, nearest
from finepref.report.html import Raw, details, esc, heading, note, number, paragraph, section, table
from finepref.report.inputs import Evaluation
from finepref.report.pieces import Estimate, forest, percent, share_axis, significant

Row = Mapping[str, Any]


def primary_metric(evaluation: Evaluation, asked: str | None) -> str:
    """The metric of the summary: the one asked for, else the first that no training used, else the first."""
    metrics = evaluation.comparison["metrics"]
    if asked is not None:
        if asked not in metrics:
            raise InputError(f"no metric '{asked}'", where=evaluation.folder, remedy=nearest(asked, metrics))
        return asked
    return next((name for name, about in metrics.items() if not about["used_in_training"]), next(iter(metrics)))


def pairs_of(evaluation: Evaluation, **wanted: object) -> list[Row]:
    """Rows of the comparison's pairs with these values."""
    return [row for row in evaluation.comparison["pairs"] if all(row[key] == value for key, value in wanted.items())]


def verdict(row: Row) -> str:
    """What an interval of a win rate says in a word."""
    return "wins" if row["win_low"] > 0.5 else "loses" if row["win_high"] < 0.5 else "undecided"


def headline(evaluation: Evaluation, metric: str) -> str:
    """The summary sentence: the farthest model against the baseline, on the first prompt set."""
    rows = pairs_of(
        evaluation,
        metric=metric,
        against=evaluation.comparison["baseline"],
        prompt_set=evaluation.comparison["prompt_sets"][0],
    )
    if not rows:
        return f"No comparison by {metric}"
    row = max(rows, key=lambda one: one["win_rate"])
    words = {
        "wins": f"{row['model']} beats {row['against']} in {percent(row['win_rate'])} of comparisons",
        "loses": f"{row['model']} falls behind {row['against']}: it wins {percent(row['win_rate'])} of comparisons",
        "undecided": f"{row['model']} and {row['against']} cannot be told apart: {percent(row['win_rate'])} wins",
    }
    return words[verdict(row)]


def summary_sentences(evaluation: Evaluation, metric: str) -> list[str]:
    """Every model against the baseline and the best two against each other, with intervals, as sentences."""
    level = f"{100 * evaluation.comparison['level']:g} %"
    sentences = []
    for prompt_set in evaluation.comparison["prompt_sets"]:
        rows = pairs_of(evaluation, metric=metric, prompt_set=prompt_set)
        baseline = evaluation.comparison["baseline"]
        shown = [row for row in rows if row["against"] == baseline]
        others = [row for row in rows if row["against"] != baseline and row["win_rate"] >= 0.5]
        shown.sort(key=lambda row: -row["win_rate"])
        parts = [
            f"{row['model']} wins {percent(row['win_rate'])} against {row['against']} "
            f"[{percent(row['win_low'])}, {percent(row['win_high'])}]"
            for row in shown + others[:1]
        ]
        if shown:
            sentences.append(
                f"By {metric} on {prompt_set} ({shown[0]['prompts']:,} prompts, {shown[0]['n']:,} comparisons at equal "
                f"prompt and seed; {level} intervals clustered by prompt): {'; '.join(parts)}."
            )
    return sentences


def badge(evaluation: Evaluation, metric: str, models: Sequence[str]) -> Raw:
    """A mark beside a metric that the training of one of these models used."""
    used = [m for m in evaluation.comparison["metrics"][metric]["used_in_training"] if m in models]
    if not used:
        return Raw("")
    return Raw(
        f'<span class=badge title="{esc("training of " + ", ".join(used) + " used this metric")}">trained on</span>'
    )


def win_rates(evaluation: Evaluation, colours: Mapping[str, int], metric: str, *, anchor: str = "") -> Raw:
    """Win rates of every pair by metric and prompt set as intervals, and the numbers behind them; `metric` by group."""
    parts: list[str] = []
    comparison = evaluation.comparison
    for prompt_set, name in itertools.product(comparison["prompt_sets"], comparison["metrics"]):
        rows = [row for row in pairs_of(evaluation, prompt_set=prompt_set, metric=name) if _shown(row, comparison)]
        if not rows:
            continue
        estimates = [
            Estimate(
                Raw(f"<b>{esc(row['model'])}</b> over {esc(row['against'])}"),
                row["win_rate"], row["win_low"], row["win_high"], percent(row["win_rate"]),
                f"{row['wins']:,} wins, {row['ties']:,} ties, {row['losses']:,} losses", colours[row["model"]],
            )
            for row in rows
        ]  # fmt: skip
        mark = badge(evaluation, name, [row["model"] for row in rows])
        where = f" on {prompt_set}" if len(comparison["prompt_sets"]) > 1 else ""
        parts.append(heading(Raw(f"{esc(name)}{esc(where)} {mark}")))
        parts.append(forest(estimates, share_axis(estimates)))
    lead = paragraph(
        f"How often the first model's image scores higher at equal prompt and seed; ties count one half. "
        f"Whiskers are {100 * comparison['level']:g} % intervals that treat the seeds of one prompt as one cluster.",
        "soft",
    )
    more = [details("All comparisons and tests", pair_table(evaluation))]
    groups = group_charts(evaluation, metric)
    if groups:
        more.append(details(f"By kind of prompt ({metric})", groups))
    return section("Win rates", lead, *parts, *more, name=f"wins{anchor}")


def group_charts(evaluation: Evaluation, metric: str) -> Raw:
    """Win rates of the farthest model over the baseline by style, category and challenge, best first."""
    baseline = evaluation.comparison["baseline"]
    groups = [row for row in evaluation.comparison.get("groups", []) if row["metric"] == metric]
    parts: list[str] = []
    for prompt_set, tag in dict.fromkeys((row["prompt_set"], row["tag"]) for row in groups):
        pairs = pairs_of(evaluation, metric=metric, prompt_set=prompt_set, against=baseline)
        best = max(pairs, key=lambda row: row["win_rate"])["model"]
        mine = [row for row in groups if (row["prompt_set"], row["tag"], row["model"]) == (prompt_set, tag, best)]
        estimates = [
            Estimate(
                row["value"], row["win_rate"], row["win_low"], row["win_high"], percent(row["win_rate"]),
                f"{row['prompts']:,} prompts", 1,
            )
            for row in sorted(mine, key=lambda row: -row["win_rate"])
        ]  # fmt: skip
        parts += [heading(f"{best} over {baseline} by {tag}, {prompt_set}"), forest(estimates, share_axis(estimates))]
    if not parts:
        return Raw("")
    words = paragraph("For looking, not for testing: the intervals are not corrected for the number of groups.", "soft")
    return Raw(words + "".join(parts))


def _shown(row: Row, comparison: Mapping[str, Any]) -> bool:
    """Of two mirrored rows between models other than the baseline, the one that wins more."""
    return row["against"] == comparison["baseline"] or (row["win_rate"], row["model"]) > (
        1 - row["win_rate"],
        row["against"],
    )


def pair_table(evaluation: Evaluation) -> Raw:
    """All pairs in numbers."""
    head = (
        "Metric", "Prompts", "Model", "Against", "n", "Win rate", "Interval", "Mean difference", "Interval",
        "Sign test p", "Permutation p", "after Holm",
    )  # fmt: skip
    rows = [
        (
            row["metric"], row["prompt_set"], row["model"], row["against"], f"{row['n']:,}", percent(row["win_rate"]),
            f"{percent(row['win_low'])} to {percent(row['win_high'])}",
            signed(row["mean_difference"]), f"{signed(row['difference_low'])} to {signed(row['difference_high'])}",
            p_value(row["sign_p"]), p_value(row["permutation_p"]), p_value(row["permutation_holm"]),
        )
        for row in evaluation.comparison["pairs"]
        if _shown(row, evaluation.comparison)
    ]  # fmt: skip
    words = "Tests are two-sided and count a prompt once. Holm's correction is over a pair's metrics and prompt sets."
    return Raw(table(head, rows, left=(0, 1, 2, 3)) + paragraph(words, "soft"))


def signed(value: float | None) -> str:
    """A difference with its sign and three figures."""
    return significant(value, 3, sign=True)


def p_value(p: float) -> str:
    """A p-value that is never rounded to zero."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def score_table(evaluation: Evaluation, more: Raw, *, anchor: str = "") -> Raw:
    """Mean with interval and median of every model, metric and prompt set, the best mean marked; then `more`."""
    comparison = evaluation.comparison
    parts: list[str] = []
    for prompt_set in comparison["prompt_sets"]:
        rows = [row for row in comparison["models"] if row["prompt_set"] == prompt_set]
        metrics = [name for name in comparison["metrics"] if any(row["metric"] == name for row in rows)]
        lines = []
        for model in evaluation.models:
            line: list[object] = [model]
            for metric in metrics:
                line.append(_score_cell(rows, model, metric, comparison["metrics"][metric]["higher_is_better"]))
            lines.append(line)
        head = ["Model", *(Raw(f"{esc(m)} {badge(evaluation, m, evaluation.models)}") for m in metrics)]
        if len(comparison["prompt_sets"]) > 1:
            parts.append(heading(prompt_set))
        parts.append(table(head, lines))
    missing = sum(row["missing"] for row in comparison["models"])
    if missing:
        parts.append(note(f"{missing:,} scores are missing; such comparisons are left out and counted.", warn=True))
    if comparison.get("forced"):
        parts.append(note("Scores with different fingerprints were compared because --force was given.", warn=True))
    lead = paragraph(
        "Mean over prompts and seeds with its interval; below it the median and the means by seed.", "soft"
    )
    return section("Scores", lead, *parts, more, name=f"scores{anchor}")


def _score_cell(rows: Sequence[Row], model: str, metric: str, higher: bool) -> Raw:
    line = [row for row in rows if row["metric"] == metric and row["mean"] is not None]
    row = next((one for one in line if one["model"] == model), None)
    if row is None:
        return Raw("–")
    means = [one["mean"] for one in line]
    best = row["mean"] == (max(means) if higher else min(means)) and len(means) > 1
    places = decimals([one["mean_high"] - one["mean_low"] for one in line])
    seeds = ", ".join(number(value, places) for value in row["seed_means"].values())
    return Raw(
        f'<span class="score{" best" if best else ""}">{number(row["mean"], places)}</span>'
        f"<small>{number(row['mean_low'], places)} to {number(row['mean_high'], places)}</small>"
        f"<small>median {number(row['median'], places)}"
        f"{f'; seeds {seeds}' if len(row['seed_means']) > 1 else ''}</small>"
    )


def decimals(widths: Sequence[float]) -> int:
    """Decimals that show an interval of this width with two figures, the narrowest deciding; from 0 to 6."""
    narrow = min((width for width in widths if width > 0), default=1.0)
    return min(6, max(0, 1 - math.floor(math.log10(narrow))))
