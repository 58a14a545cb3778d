"""What a comparison says: who wins, by how much, and how sure that is; as sentences, tables and intervals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from finepref.core.errors import InputError, nearest
from finepref.formats.comparison import Comparison, ModelRow, PairRow
from finepref.report.charts import ridges
from finepref.report.inputs import EvaluationFolder
from finepref.report.kit import Bars, Cell, Estimate, TextTable, share_bars, table
from finepref.report.wording import NONE, decimals, difference, number, p_value, percent, span, whole


def primary_metric(evaluation: EvaluationFolder, asked: str | None) -> str | None:
    """The metric of the summary: the one asked for, else the first that no training used, else the first, if any."""
    metrics = evaluation.metrics
    if asked is not None and metrics:
        if asked not in metrics:
            raise InputError(f"no metric '{asked}'", where=evaluation.folder, remedy=nearest(asked, metrics))
        return asked
    return next((name for name, about in metrics.items() if not about.used_in_training), next(iter(metrics), None))


def side_by_side(names: Sequence[str], most: int = 3) -> str:
    """Names as the subject of a sentence."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def headline(comparison: Comparison, metric: str) -> str:
    """The summary sentence: the farthest model against the baseline, on the first prompt set."""
    rows = comparison.pairs_of(metric=metric, against=comparison.baseline, prompt_set=comparison.prompt_sets[0])
    if not rows:
        return f"No comparison by {metric}"
    row = max(rows, key=lambda one: one.win_rate)
    rate = percent(row.win_rate)
    if row.win_low is None or row.win_high is None:
        return f"{row.model} and {row.against} on one prompt: {rate} wins"
    if row.win_low > 0.5:
        return f"{row.model} beats {row.against} in {rate} of comparisons"
    if row.win_high < 0.5:
        return f"{row.model} falls behind {row.against}: it wins {rate} of comparisons"
    return f"{row.model} and {row.against} cannot be told apart: {rate} wins"


def summary_sentences(comparison: Comparison, metric: str) -> list[str]:
    """Every model against the baseline and the best two against each other, with intervals, as sentences."""
    sentences = []
    for prompt_set in comparison.prompt_sets:
        rows = comparison.pairs_of(metric=metric, prompt_set=prompt_set)
        shown = [row for row in rows if row.against == comparison.baseline]
        others = [row for row in rows if row.against != comparison.baseline and row.win_rate >= 0.5]
        shown.sort(key=lambda row: -row.win_rate)
        parts = [
            f"{r.model} wins {percent(r.win_rate)} against {r.against}"
            + (f" [{percent(r.win_low)}, {percent(r.win_high)}]" if not r.no_interval else "")
            for r in shown + others[:1]
        ]
        if shown:
            prompts = "1 prompt" if shown[0].prompts == 1 else f"{shown[0].prompts:,} prompts"
            intervals = f"{100 * comparison.level:g} % intervals clustered by prompt"
            sentences.append(
                f"By {metric} on {prompt_set} ({prompts}, {shown[0].n:,} comparisons at equal prompt and seed; "
                f"{'no interval: ' + why if (why := shown[0].no_interval) else intervals}): {'; '.join(parts)}."
            )
    return sentences


def notes(comparison: Comparison) -> list[str]:
    """What is to be said of intervals that are not there."""
    whys = dict.fromkeys([row.no_interval for row in comparison.models] + [row.no_interval for row in comparison.pairs])
    return [f"{NONE} stands where there is no interval: {why}." for why in whys if why]


def named(comparison: Comparison, metric: str, models: Sequence[str]) -> Cell:
    """A metric and its direction, with a mark where the training of one of these models used it."""
    about = comparison.metrics[metric]
    used = [m for m in about.used_in_training if m in models]
    direction = "higher is better" if about.higher_is_better else "lower is better"
    tip = f"training of {', '.join(used)} used this metric"
    return Cell(metric, (direction,), badge="trained on" * bool(used), tip=tip)


def _shown(comparison: Comparison) -> list[PairRow]:
    """Rows of pairs; of two mirrored ones between models other than the baseline, the one that wins more."""
    base = comparison.baseline
    better = [(row.win_rate, row.model) > (1 - row.win_rate, row.against) for row in comparison.pairs]
    return [row for row, ahead in zip(comparison.pairs, better, strict=True) if ahead or row.against == base]


def win_charts(comparison: Comparison, colours: Mapping[str, int]) -> list[tuple[Cell, str, Bars]]:
    """(metric, prompt set, win rates of every pair as intervals), all on one axis."""
    charts = []
    for prompt_set, metric in itertools.product(comparison.prompt_sets, comparison.metrics):
        rows = [row for row in _shown(comparison) if (row.prompt_set, row.metric) == (prompt_set, metric)]
        if rows:
            estimates = [
                Estimate(
                    row.model, row.win_rate, row.win_low, row.win_high, f"over {row.against}",
                    f"{row.wins:,} wins, {row.ties:,} ties, {row.losses:,} losses", colours[row.model],
                )
                for row in rows
            ]  # fmt: skip
            charts.append((named(comparison, metric, [row.model for row in rows]), metric, prompt_set, estimates))
    every = [each for *_, estimates in charts for each in estimates]
    return [
        (name, prompt_set, share_bars(rows, title=f"Win rates by {metric} on {prompt_set}", beside=every))
        for name, metric, prompt_set, rows in charts
    ]


def group_charts(comparison: Comparison, metric: str) -> list[tuple[str, Bars]]:
    """Win rates of the farthest model over the baseline by style, category and challenge, best first."""
    groups = [row for row in comparison.groups if row.metric == metric]
    found = []
    for prompt_set, tag in dict.fromkeys((row.prompt_set, row.tag) for row in groups):
        pairs = comparison.pairs_of(metric=metric, prompt_set=prompt_set, against=comparison.baseline)
        best = max(pairs, key=lambda row: row.win_rate).model
        mine = [row for row in groups if (row.prompt_set, row.tag, row.model) == (prompt_set, tag, best)]
        mine.sort(key=lambda row: -row.win_rate)
        title = f"{best} over {comparison.baseline} by {tag}, {prompt_set}"
        estimates = [
            Estimate(r.value, r.win_rate, r.win_low, r.win_high, remark=f"{r.prompts:,} prompts") for r in mine
        ]
        found.append((title, share_bars(estimates, title=title)))
    return found


def pair_table(comparison: Comparison) -> TextTable:
    """All pairs in numbers."""
    several = len(comparison.prompt_sets) > 1
    head = (
        "Metric", *["Prompts"] * several, "Model", "Against", "n", "Win rate", "Mean difference", "Sign test p",
        "Permutation p", "after Holm",
    )  # fmt: skip
    rows = [
        (
            named(comparison, row.metric, [row.model]), *[row.prompt_set] * several, row.model, row.against,
            whole(row.n), Cell(percent(row.win_rate), (span(row.win_low, row.win_high, percent),)),
            Cell(difference(row.mean_difference), (span(row.difference_low, row.difference_high, difference),)),
            p_value(row.sign_p), p_value(row.permutation_p), p_value(row.permutation_holm),
        )
        for row in _shown(comparison)
    ]  # fmt: skip
    return table(head, rows, left=(0, 1, 2, 3)[: 3 + several], stack=True)


def score_tables(comparison: Comparison) -> list[tuple[str, TextTable]]:
    """(prompt set, mean with interval and median of every model and metric, the best mean marked)."""
    found = []
    for prompt_set in comparison.prompt_sets:
        rows = [row for row in comparison.models if row.prompt_set == prompt_set]
        metrics = [name for name in comparison.metrics if any(row.metric == name for row in rows)]
        columns = [_score_cells(comparison, [row for row in rows if row.metric == name], name) for name in metrics]
        lines = [(model, *(cells[at] for cells in columns)) for at, model in enumerate(comparison.in_order)]
        head = ("Model", *(named(comparison, metric, comparison.in_order) for metric in metrics))
        found.append((prompt_set, table(head, lines, stack=True)))
    return found


def _score_cells(comparison: Comparison, rows: Sequence[ModelRow], metric: str) -> list[Cell]:
    there = {row.model: row for row in rows if row.mean is not None}
    means = [row.mean for row in there.values() if row.mean is not None]
    best = (max if comparison.metrics[metric].higher_is_better else min)(means, default=None)
    limits = [(row.mean_low, row.mean_high) for row in there.values()]
    widths = [high - low for low, high in limits if low is not None and high is not None]
    places = decimals(widths or [abs(mean) / 10 for mean in means])

    def cell(model: str) -> Cell:
        row = there.get(model)
        if row is None:
            return Cell(NONE)
        seeds = ", ".join(number(value, places) for value in row.seed_means.values())
        interval = span(row.mean_low, row.mean_high, lambda value: number(value, places))
        small = (interval, f"median {number(row.median, places)}, n {whole(row.n)}")
        look = "score best" if row.mean == best and len({*means}) > 1 else "score"
        return Cell(number(row.mean, places), small + ((f"seeds {seeds}",) if len(row.seed_means) > 1 else ()), look)

    return [cell(model) for model in comparison.in_order]


def spreads(evaluation: EvaluationFolder, colours: Mapping[str, int]) -> list[tuple[str, Markup]]:
    """(title, density curves of all models) of every metric and prompt set."""
    found = []
    for sheet, metric in itertools.product(evaluation.sheets, evaluation.metrics):
        series = []
        for model in evaluation.models:
            values = sheet.values.get(model, {}).get(metric, np.zeros(0))
            kept = values[np.isfinite(values)]
            if len(kept) > 1:
                series.append((model, colours[model], kept))
        if series:
            title = metric if len(evaluation.sheets) == 1 else f"{metric} on {sheet.prompt_set}"
            found.append((title, ridges(series, title=title)))
    return found
