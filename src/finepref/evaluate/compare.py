"""Paired comparison of models: `scores.parquet` -> `comparison.json`.

Images are paired by (prompt set, prompt row, seed), never by prompt text; everything uncertain is clustered by prompt.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from finepref.core.errors import InputError, nearest
from finepref.core.interval import Interval
from finepref.core.provenance import provenance
from finepref.core.terminal import table_lines
from finepref.evaluate import stats
from finepref.evaluate.sheets import Floats, Sheet, Sheets, read_sheets
from finepref.formats.comparison import (
    COMPARISON,
    Comparison,
    GroupRow,
    Metric,
    ModelRow,
    PairRow,
    own_comparison,
    write_comparison,
)
from finepref.formats.manifest import LINES
from finepref.formats.scores import SCORES

LEAST_PROMPTS = 8
"""Prompts that a tag's value needs for a win rate of its own."""

ONE_PROMPT = "one prompt cannot say how far others would differ"


def compare(
    folder: str | Path,
    baseline: str,
    *,
    out: str | Path | None = None,
    level: float = 0.95,
    resamples: int = stats.RESAMPLES,
    seed: int = 0,
    force: bool = False,
) -> Comparison:
    """Compare every model with the baseline and the others with each other; write `comparison.json`.

    Args:
        folder: scored evaluation folder.
        baseline: name of a model in it.
        out: the file; `folder/comparison.json` by default.
        level: confidence level of every interval.
        resamples: bootstrap resamples and permutation draws.
        seed: of bootstrap and permutation; equal inputs give an equal file but for the time.
        force: compare scores with different fingerprints.

    Returns:
        The comparison, as it is in the file.

    Raises:
        InputError: an unknown baseline, only one model, or unusable scores.
    """
    path = Path(folder) / SCORES
    target = Path(out) if out is not None else Path(folder) / COMPARISON
    with own_comparison(target, inputs=[path, Path(folder) / LINES]):
        found = read_sheets(folder, force=force)
        if baseline not in found.models:
            raise InputError(f"no model '{baseline}'", where=path, remedy=nearest(baseline, found.models))
        if len(found.models) < 2:
            raise InputError("only one model is scored", where=path, remedy="generate and score another one")
        between = model_pairs(found.models, baseline)
        models: list[ModelRow] = []
        pairs: list[PairRow] = []
        groups: list[GroupRow] = []
        for sheet in found.sheets:
            rows = compare_sheet(sheet, found, between, level=level, resamples=resamples, seed=seed)
            models += rows[0]
            pairs += rows[1]
            for metric, (model, _) in itertools.product(found.metrics, between[: len(found.models) - 1]):
                groups += group_rows(sheet, model, baseline, metric, found.metrics[metric], level=level)
        comparison = Comparison(
            baseline, found.models, tuple(sheet.prompt_set for sheet in found.sheets), found.metrics, level, resamples,
            force, tuple(models), adjust(pairs), tuple(groups), provenance(inputs=[path], seed=seed),
        )  # fmt: skip
        return write_comparison(target, comparison)


def model_pairs(models: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """Ordered pairs of a comparison: every other model against the baseline, then the others in both orders."""
    others = [name for name in models if name != baseline]
    return [(name, baseline) for name in others] + list(itertools.permutations(others, 2))


def compare_sheet(
    sheet: Sheet, found: Sheets, between: Sequence[tuple[str, str]], *, level: float, resamples: int, seed: int
) -> tuple[list[ModelRow], list[PairRow]]:
    """Rows per (model, metric) and per (pair, metric) of one prompt set; one bootstrap serves all of them."""
    lines = {
        (metric, model): sheet.values[model][metric]
        for metric, model in itertools.product(found.metrics, found.models)
        if metric in sheet.values.get(model, {})
    }
    paired = {
        (metric, a, b): lines[metric, a] - lines[metric, b]
        for metric, (a, b) in itertools.product(found.metrics, between)
        if (metric, a) in lines and (metric, b) in lines
    }
    columns = np.stack([*lines.values(), *paired.values()], axis=1)
    means = stats.bootstrap_means(columns, sheet.cluster, level=level, resamples=resamples, seed=seed)
    p_values = stats.permutation_tests(columns[:, len(lines) :], sheet.cluster, draws=resamples, seed=seed)
    models = [_model_row(sheet, *key, values, mean) for (key, values), mean in zip(lines.items(), means, strict=False)]
    pairs = []
    for (key, difference), mean, p in zip(paired.items(), means[len(lines) :], p_values, strict=True):
        there = np.isfinite(difference)
        if not there.any():
            continue
        cluster = stats.cluster_codes(sheet.cluster[there])
        better = difference[there] if found.metrics[key[0]].higher_is_better else -difference[there]
        rate, prompts = stats.win_rate(better, cluster, level=level), int(cluster.max()) + 1
        pairs.append(
            PairRow(
                sheet.prompt_set, *key, len(better), prompts, int((~there).sum()),
                mean.value, mean.low, mean.high, rate.value, rate.low, rate.high,
                wins=int((better > 0).sum()), ties=int((better == 0).sum()), losses=int((better < 0).sum()),
                sign_p=stats.sign_test(better, cluster), permutation_p=float(p), no_interval=_why_none(prompts),
            )
        )  # fmt: skip
    return models, pairs


def _model_row(sheet: Sheet, metric: str, model: str, values: Floats, mean: Interval) -> ModelRow:
    there = np.isfinite(values)
    kept, seeds, prompts = values[there], sheet.seed[there], len(np.unique(sheet.cluster[there]))
    return ModelRow(
        sheet.prompt_set, metric, model, len(kept), prompts, int((~there).sum()),
        mean.value, mean.low, mean.high,
        median=float(np.median(kept)) if len(kept) else None,
        sd=float(kept.std(ddof=1)) if len(kept) > 1 else None,
        seed_means={str(seed): float(kept[seeds == seed].mean()) for seed in np.unique(seeds).tolist()},
        no_interval=_why_none(prompts),
    )  # fmt: skip


def _why_none(prompts: int) -> str:
    """Why there is no interval over so many prompts; empty where there is one."""
    return "" if prompts >= stats.LEAST_CLUSTERS else ONE_PROMPT if prompts else "no score"


def adjust(pairs: Sequence[PairRow]) -> tuple[PairRow, ...]:
    """With Holm's adjusted p-values; the family of a model pair is its metrics x prompt sets."""
    families = [(row.model, row.against) for row in pairs]
    sign = stats.holm_by(families, [row.sign_p for row in pairs])
    permutation = stats.holm_by(families, [row.permutation_p for row in pairs])
    return tuple(
        replace(row, sign_holm=s, permutation_holm=p, family=families.count((row.model, row.against)))
        for row, s, p in zip(pairs, sign, permutation, strict=True)
    )


def group_rows(
    sheet: Sheet, model: str, baseline: str, metric: str, about: Metric, *, level: float = 0.95
) -> Iterator[GroupRow]:
    """Win rate against the baseline on the prompts of every tag value with at least 8 prompts.

    These intervals are for looking: they are not corrected for the number of groups.
    """
    lines = [sheet.values.get(name, {}).get(metric) for name in (model, baseline)]
    if lines[0] is None or lines[1] is None:
        return
    better = lines[0] - lines[1] if about.higher_is_better else lines[1] - lines[0]
    for tag in dict.fromkeys(tag for tags in sheet.tags for tag in tags):
        labels = np.array([tags.get(tag, "") for tags in sheet.tags], dtype=object)
        for value in filter(None, dict.fromkeys(labels)):
            there = (labels == value) & np.isfinite(better)
            cluster = stats.cluster_codes(sheet.cluster[there])
            prompts = len(set(cluster))
            if prompts >= LEAST_PROMPTS:
                rate = stats.win_rate(better[there], cluster, level=level)
                yield GroupRow(
                    sheet.prompt_set, metric, model, baseline, tag, value, int(there.sum()), prompts,
                    rate.value, rate.low, rate.high,
                )  # fmt: skip


def comparison_lines(comparison: Comparison) -> list[str]:
    """One line per prompt set, metric and pair: win rate with interval, mean difference with interval, adjusted p."""
    head = (
        "prompts", "metric", "model", "against", "n", "win rate", "interval", "mean difference", "its interval",
        "p (Holm)",
    )  # fmt: skip
    rows = [
        (
            row.prompt_set, row.metric + " (trained on)" * comparison.trained(row), row.model, row.against, str(row.n),
            f"{100 * row.win_rate:.1f} %", _limits(row.win_low, row.win_high, lambda share: f"{100 * share:.1f}"),
            f"{row.mean_difference:+.4g}", _limits(row.difference_low, row.difference_high, "{:+.4g}".format),
            f"{row.permutation_holm:.4f}",
        )
        for row in comparison.pairs
    ]  # fmt: skip
    better: dict[bool, list[str]] = {}
    for name, metric in comparison.metrics.items():
        better.setdefault(metric.higher_is_better, []).append(name)
    notes = [f"- {'higher' if up else 'lower'} is better: {', '.join(names)}" for up, names in better.items()]
    notes += [f"- no interval: {why}" for why in dict.fromkeys(row.no_interval for row in comparison.pairs) if why]
    return table_lines(head, rows) + notes


def _limits(low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    return "-" if low is None or high is None else f"{write(low)} to {write(high)}"
