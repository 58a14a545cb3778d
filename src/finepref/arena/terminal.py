"""The leaderboard as text, for a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from finepref.arena.whole import PAGE
from finepref.formats.ratings import RATINGS, RatingsRecord, read_ratings


def leaderboard_text(record: RatingsRecord) -> str:
    """A table of ranks, models, mu with interval and votes."""
    width = min(44, max(len("model"), *(len(row.name) for row in record.models)))
    lines = [f"{'rank':>4}  {'model':<{width}}  {'mu':>7}  {'95% interval':>15}  {'ranks':>7}  {'votes':>8}"]
    for rank, row in enumerate(record.models, start=1):
        name = row.name if len(row.name) <= width else row.name[: width - 1] + "…"
        interval, ranks = f"{row.low:.2f} - {row.high:.2f}", f"{row.rank_low}-{row.rank_high}"
        votes = row.wins + row.losses + row.ties
        lines.append(f"{rank:>4}  {name:<{width}}  {row.mu:7.2f}  {interval:>15}  {ranks:>7}  {votes:>8}")
    return "\n".join(lines)


def print_result(out: Path, *, as_json: bool) -> None:
    """Print the arena in this folder: ratings.json as it is, or the table, the warnings and where the page is."""
    if as_json:
        sys.stdout.write((out / RATINGS).read_text(encoding="utf-8"))
        return
    record = read_ratings(out)
    notes = "".join(f"note: {warning}\n" for warning in record.warnings)
    sys.stdout.write(f"{leaderboard_text(record)}\n{notes}page: {out / PAGE}\n")
