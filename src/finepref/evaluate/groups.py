"""Win rates by style, category and challenge of the prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finepref.evaluate import stats
from finepref.evaluate.sheets import Sheet
from finepref.formats.manifest import ImageRow

LEAST_PROMPTS = 8

Tags = Mapping[tuple[str, int], Mapping[str, str]]


def tags_of(rows: Sequence[ImageRow]) -> Tags:
    """(prompt set, prompt row) -> tags, from a manifest."""
    return {(row.prompt_set, row.prompt_index): row.tags for row in rows if row.tags}


def group_rows(
    sheet: Sheet,
    models: Sequence[str],
    metrics: Mapping[str, Mapping[str, Any]],
    tags: Tags,
    *,
    baseline: str,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Win rate of every model against the baseline on the prompts of every tag value with at least 8 prompts.

    These intervals are for looking: they are not corrected for the number of groups.
    """
    own = [tags.get((sheet.prompt_set, int(row)), {}) for row in sheet.row]
    names = dict.fromkeys(name for found in own for name in found)
    found: list[dict[str, Any]] = []
    for metric, about in metrics.items():
        sign = 1.0 if about["higher_is_better"] else -1.0
        base = sheet.values.get(baseline, {}).get(metric)
        for model in models:
            line = sheet.values.get(model, {}).get(metric)
            if model == baseline or line is None or base is None:
                continue
            for name in names:
                labels = np.array([tag.get(name, "") for tag in own], dtype=object)
                for value in dict.fromkeys(labels):
                    there = (labels == value) & np.isfinite(line - base)
                    cluster = stats.cluster_codes(sheet.cluster[there])
                    if not value or not len(cluster) or cluster.max() + 1 < LEAST_PROMPTS:
                        continue
                    rate = stats.win_rate(sign * (line - base)[there], cluster, level=level)
                    found.append(
                        {
                            "prompt_set": sheet.prompt_set,
                            "metric": metric,
                            "model": model,
                            "against": baseline,
                            "tag": name,
                            "value": str(value),
                            "n": int(there.sum()),
                            "prompts": int(cluster.max()) + 1,
                            "win_rate": rate.value,
                            "win_low": rate.low,
                            "win_high": rate.high,
                        }
                    )
    return found
