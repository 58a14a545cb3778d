"""Paired comparison of models: `scores.parquet` -> `comparison.json`.

Images are paired by (prompt set, prompt row, seed), never by prompt text; everything uncertain is clustered by prompt.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finepref.core.errors import InputError, nearest
from finepref.core.files import read_json, read_parquet, write_json
from finepref.core.provenance import provenance
from finepref.evaluate import stats
from finepref.evaluate.groups import group_rows, tags_of
from finepref.evaluate.score import SCORES
from finepref.evaluate.sheets import Floats, Sheet, read_scores
from finepref.formats.manifest import LINES, ImageRow, read_record, read_rows

COMPARISON = "comparison.json"


def compare(
    folder: str | Path,
    baseline: str,
    *,
    out: str | Path | None = None,
    level: float = 0.95,
    resamples: int = stats.RESAMPLES,
    seed: int = 0,
    force: bool = False,
) -> Path:
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
        Path of the file.

    Raises:
        InputError: an unknown baseline, only one model, or unusable scores.
    """
    folder = Path(folder)
    scores = read_scores(folder, force=force)
    if baseline not in scores.models:
        raise InputError(f"no model '{baseline}'", where=folder / SCORES, remedy=nearest(baseline, scores.models))
    if len(scores.models) < 2:
        raise InputError("only one model is scored", where=folder / SCORES, remedy="generate and score another one")
    trained = {name: about.get("rewards", []) for name, about in read_record(folder).get("models", {}).items()}
    metrics = {
        name: {**about, "used_in_training": [m for m in scores.models if name in trained.get(m, [])]}
        for name, about in scores.metrics.items()
    }
    models: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    rows = read_rows(folder) if (folder / LINES).is_file() else []
    check_current(folder, rows)
    tags = tags_of(rows)
    for sheet in scores.sheets:
        found = compare_sheet(
            sheet, scores.models, metrics, baseline=baseline, level=level, resamples=resamples, seed=seed
        )
        models += found[0]
        pairs += found[1]
        groups += group_rows(sheet, scores.models, metrics, tags, baseline=baseline, level=level)
    adjust(pairs)
    target = Path(out) if out is not None else folder / COMPARISON
    write_json(
        target,
        {
            "baseline": baseline,
            "model_names": list(scores.models),
            "prompt_sets": [sheet.prompt_set for sheet in scores.sheets],
            "metrics": metrics,
            "level": level,
            "resamples": resamples,
            "forced": force,
            "models": models,
            "pairs": pairs,
            "groups": groups,
            "provenance": provenance(inputs=[folder / SCORES], seed=seed),
        },
    )
    return target


def check_current(folder: Path, rows: Sequence[ImageRow]) -> None:
    """Refuse scores of images that the manifest no longer lists; a folder without a manifest is taken as it is."""
    if not rows:
        return
    listed = {row.key: row.image_sha256 for row in rows}
    table = read_parquet(folder / SCORES, ["model", "prompt_set", "prompt_index", "seed", "image_sha256"])
    columns = [table[name].to_pylist() for name in table.column_names]
    for model, prompt_set, index, seed, digest in zip(*columns, strict=True):
        if listed.get((model, prompt_set, index, seed)) != digest:
            raise InputError(
                f"the score of {model}, {prompt_set} {index}, seed {seed} is of an image that is no longer there",
                where=folder / SCORES,
                remedy="run `finepref score` on the folder again",
            )


def model_pairs(models: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """Ordered pairs of a comparison: every other model against the baseline, then the others in both orders."""
    others = [name for name in models if name != baseline]
    return [(name, baseline) for name in others] + list(itertools.permutations(others, 2))


def compare_sheet(
    sheet: Sheet,
    models: Sequence[str],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    baseline: str,
    level: float = 0.95,
    resamples: int = stats.RESAMPLES,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows per (model, metric) and per (pair, metric) of one prompt set; one bootstrap serves all of them."""
    singles = [
        (model, metric, sheet.values[model][metric])
        for metric, model in itertools.product(metrics, models)
        if metric in sheet.values.get(model, {})
    ]
    lines = {(model, metric): values for model, metric, values in singles}
    paired = [
        (a, b, metric, lines[(a, metric)] - lines[(b, metric)])
        for metric, (a, b) in itertools.product(metrics, model_pairs(models, baseline))
        if (a, metric) in lines and (b, metric) in lines
    ]
    columns = [values for *_, values in singles] + [difference for *_, difference in paired]
    means = stats.bootstrap_means(np.stack(columns, axis=1), sheet.cluster, level=level, resamples=resamples, seed=seed)
    model_rows = [
        _model_row(sheet, model, metric, values, mean)
        for (model, metric, values), mean in zip(singles, means, strict=False)
    ]
    differences = np.stack(columns[len(singles) :], axis=1) if paired else np.zeros((len(sheet.row), 0))
    p_values = stats.permutation_tests(differences, sheet.cluster, draws=resamples, seed=seed)
    pair_rows = [
        _pair_row(sheet, entry, mean, float(p), bool(metrics[entry[2]]["higher_is_better"]), level)
        for entry, mean, p in zip(paired, means[len(singles) :], p_values, strict=True)
        if np.isfinite(entry[3]).any()
    ]
    return model_rows, pair_rows


def _model_row(sheet: Sheet, model: str, metric: str, values: Floats, mean: stats.Interval) -> dict[str, Any]:
    there = np.isfinite(values)
    kept = values[there]
    seeds = [int(seed) for seed in np.unique(sheet.seed[there])]
    return {
        "prompt_set": sheet.prompt_set,
        "metric": metric,
        "model": model,
        "n": len(kept),
        "prompts": len(np.unique(sheet.cluster[there])),
        "missing": int((~there).sum()),
        "mean": mean.value,
        "mean_low": mean.low,
        "mean_high": mean.high,
        "median": float(np.median(kept)) if len(kept) else None,
        "sd": float(kept.std(ddof=1)) if len(kept) > 1 else None,
        "seed_means": {str(seed): float(kept[sheet.seed[there] == seed].mean()) for seed in seeds},
    }


def _pair_row(
    sheet: Sheet,
    entry: tuple[str, str, str, Floats],
    mean: stats.Interval,
    permutation_p: float,
    higher_is_better: bool,
    level: float,
) -> dict[str, Any]:
    model, against, metric, difference = entry
    there = np.isfinite(difference)
    cluster = stats.cluster_codes(sheet.cluster[there])
    better = difference[there] if higher_is_better else -difference[there]
    rate = stats.win_rate(better, cluster, level=level)
    return {
        "prompt_set": sheet.prompt_set,
        "metric": metric,
        "model": model,
        "against": against,
        "n": len(better),
        "prompts": int(cluster.max()) + 1,
        "missing": int((~there).sum()),
        "mean_difference": mean.value,
        "difference_low": mean.low,
        "difference_high": mean.high,
        "win_rate": rate.value,
        "win_low": rate.low,
        "win_high": rate.high,
        "wins": int((better > 0).sum()),
        "ties": int((better == 0).sum()),
        "losses": int((better < 0).sum()),
        "sign_p": stats.sign_test(better, cluster),
        "permutation_p": permutation_p,
    }


def adjust(pairs: Sequence[dict[str, Any]]) -> None:
    """Add Holm's adjusted p-values; the family of a model pair is its metrics x prompt sets. In place."""
    for key in {(row["model"], row["against"]) for row in pairs}:
        family = [row for row in pairs if (row["model"], row["against"]) == key]
        for test in ("sign", "permutation"):
            for row, adjusted in zip(family, stats.holm([row[f"{test}_p"] for row in family]), strict=True):
                row[f"{test}_holm"] = float(adjusted)
        for row in family:
            row["family"] = len(family)


def read_comparison(folder: str | Path) -> dict[str, Any]:
    """`comparison.json` of an evaluation folder."""
    return read_json(Path(folder) / COMPARISON)


def find_pair(
    comparison: Mapping[str, Any], model: str, against: str, metric: str, prompt_set: str | None = None
) -> dict[str, Any]:
    """The row of one comparison; `prompt_set` may be left out where there is one."""
    rows = [
        row
        for row in comparison["pairs"]
        if (row["model"], row["against"], row["metric"]) == (model, against, metric)
        and prompt_set in (None, row["prompt_set"])
    ]
    if len(rows) != 1:
        raise InputError(f"{len(rows)} comparisons of {model} with {against} by {metric}", where="comparison")
    return dict(rows[0])
