"""The leaderboard as text, for a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from finepref.arena.folder import leaderboard_rows
from finepref.arena.ratings import Ratings, load_ratings


def leaderboard_text(ratings: Ratings) -> str:
    """A table of ranks, models, mu with interval and votes."""
    rows = leaderboard_rows(ratings)
    width = min(44, max(len("model"), *(len(row["model"]) for row in rows)))
    lines = [f"{'rank':>4}  {'model':<{width}}  {'mu':>7}  {'95% interval':>15}  {'ranks':>7}  {'votes':>8}"]
    for row in rows:
        name = row["model"] if len(row["model"]) <= width else row["model"][: width - 1] + "…"
        interval = f"{row['low']:.2f} - {row['high']:.2f}"
        ranks = f"{row['rank_low']}-{row['rank_high']}"
        votes = row["wins"] + row["losses"] + row["ties"]
        lines.append(f"{row['rank']:>4}  {name:<{width}}  {row['mu']:7.2f}  {interval:>15}  {ranks:>7}  {votes:>8}")
    return "\n".join(lines)


def print_result(out: Path, *, as_json: bool) -> None:
    """Print the arena in this folder: ratings.json as it is, or the table, the warnings and where the page is."""
    if as_json:
        sys.stdout.write((out / "ratings.json").read_text(encoding="utf-8"))
        return
    ratings = load_ratings(out)
    sys.stdout.write(leaderboard_text(ratings) + "\n")
    for warning in ratings.warnings:
        sys.stdout.write(f"note: {warning}\n")
    sys.stdout.write(f"page: {out / 'arena.html'}\n")
