"""Printed win rates read again with their uncertainty: `finepref compare --from-counts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from finepref.core.errors import InputError
from finepref.core.terminal import table_lines
from finepref.evaluate import stats
from finepref.formats.records import read_csv


@dataclass(frozen=True, slots=True)
class CountRow:
    """A printed win rate and what it is worth.

    n: number of prompts. win_rate, low, high: percent. p: exact two-sided binomial test of 50 %. p_holm: p after
    Holm over the rows of the same comparison. verdict: win, loss or no evidence, by the interval.
    """

    comparison: str
    metric: str
    prompts: str
    n: int
    win_rate: float
    low: float
    high: float
    p: float
    p_holm: float
    verdict: str


COLUMNS = tuple(field.name for field in fields(CountRow))[:5]


MOST = 1_000_000_000  # prompts


def read_counts(path: str | Path, *, level: float = 0.95) -> list[CountRow]:
    """Read a csv of printed win rates (comparison, metric, prompts, n, win_rate in percent) and judge every row.

    The printed rate is taken for the share of wins among n independent prompts, ties half: Wilson interval, exact
    binomial test of the nearest whole count.

    Raises:
        InputError: a missing column, a value out of range, or rates that look like shares instead of percent.
    """
    rows = [[row[name] for name in COLUMNS] for row in read_csv(path, COLUMNS)]
    values = []
    for number, (*_, n, rate) in enumerate(rows):
        try:
            values.append((int(n), float(rate)))
        except (TypeError, ValueError):
            raise InputError(f"n '{n}' or win_rate '{rate}' is no number", where=f"{path}, row {number}") from None
        if not 1 <= values[-1][0] <= MOST or not 0 <= values[-1][1] <= 100:
            what = f"a win rate of {rate} % of {n} prompts"
            raise InputError(what, where=f"{path}, row {number}", remedy=f"use 0 to 100 % of 1 to {MOST:,}")
    if all(rate <= 1 for _, rate in values):
        raise InputError("every win rate is at most 1", where=path, remedy="write percent: 56.2, not 0.562")
    p_values = [stats.binomial_test(rate / 100 * n, n) for n, rate in values]
    adjusted = stats.holm_by([row[0] for row in rows], p_values)
    found = []
    for row, (count, percent), p, p_holm in zip(rows, values, p_values, adjusted, strict=True):
        low, high = stats.wilson(percent / 100 * count, count, level=level)
        verdict = "win" if low > 0.5 else "loss" if high < 0.5 else "no evidence"
        found.append(CountRow(row[0], row[1], row[2], count, percent, 100 * low, 100 * high, p, p_holm, verdict))
    return found


def counts_lines(rows: Sequence[CountRow]) -> list[str]:
    """The judged rows as a table."""
    head = ("comparison", "metric", "prompts", "n", "win rate", "interval", "p", "after Holm", "verdict")
    table = [
        (
            row.comparison, row.metric, row.prompts, str(row.n), f"{row.win_rate:.1f} %",
            f"{row.low:.1f} to {row.high:.1f}", _small(row.p), _small(row.p_holm), row.verdict,
        )
        for row in rows
    ]  # fmt: skip
    return table_lines(head, table)


def _small(p: float) -> str:
    return "< 1e-99" if p < 1e-99 else f"{p:.2g}"
