"""arena.html: the page that people read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finepref import files
from finepref.arena import charts, html
from finepref.arena.folder import leaderboard_rows
from finepref.arena.ratings import Ratings
from finepref.arena.read import VoteTable


def write_page(path: Path, table: VoteTable, ratings: Ratings, made: Mapping[str, Any]) -> None:
    """Write the page of this arena."""
    rows = leaderboard_rows(ratings)
    n, tied = len(table.votes), int((table.votes.outcome == 0).sum())
    head = ("Rank", "Model", "μ", "95 % interval", "Possible ranks", "μ − 3σ", "Wins", "Losses", "Ties")
    cells = [
        (
            r["rank"], r["model"], html.number(r["mu"]), f"{html.number(r['low'])} – {html.number(r['high'])}",
            f"{r['rank_low']}–{r['rank_high']}", html.number(r["score"]), r["wins"], r["losses"], r["ties"],
        )
        for r in rows
    ]  # fmt: skip
    chart = charts.interval_chart(
        [(r["model"], r["low"], r["mu"], r["high"]) for r in rows], title="Ratings with 95 % intervals", axis="rating μ"
    )
    figures = ((f"{n:,}", "votes"), (len(rows), "models"), (f"{100 * tied / n:.0f} %", "ties"))
    text = html.page(
        "Model arena", f"{len(rows)} models rated from {n:,} votes.", html.tiles(figures),
        *(html.note(w, warn=True) for w in ratings.warnings),
        html.section("Ratings", html.figure(chart, wide=True)),
        html.section("Leaderboard", html.table(head, cells, left=(1,), marked=[r["rank_low"] == 1 for r in rows])),
        footer=f"finepref {made['versions'].get('finepref', '')} · {made['created']} · {made['command']}",
    )  # fmt: skip
    files.write_text(path, text)
