"""A comparison as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def comparison_lines(comparison: Mapping[str, Any]) -> list[str]:
    """One line per prompt set, metric and pair: win rate with interval, mean difference with interval, adjusted p."""
    header = (
        "prompts",
        "metric",
        "model",
        "against",
        "n",
        "win rate",
        "interval",
        "mean difference",
        "its interval",
        "p (Holm)",
    )
    table = [header]
    for row in comparison["pairs"]:
        table.append(
            (
                row["prompt_set"],
                row["metric"] + (" (trained on)" if _trained(comparison, row) else ""),
                row["model"],
                row["against"],
                str(row["n"]),
                f"{100 * row['win_rate']:.1f} %",
                f"{100 * row['win_low']:.1f} to {100 * row['win_high']:.1f}",
                f"{row['mean_difference']:+.4g}",
                f"{row['difference_low']:+.4g} to {row['difference_high']:+.4g}",
                f"{row['permutation_holm']:.4f}",
            )
        )
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _trained(comparison: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    used = comparison["metrics"][row["metric"]]["used_in_training"]
    return row["model"] in used or row["against"] in used
