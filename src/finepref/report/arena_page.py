"""arena.html: the page that people read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finepref.arena.findings import Findings, tie_share
from finepref.core import files
from finepref.report import arena_checks as checks
from finepref.report import arena_panels as panels
from finepref.report import html


def write_page(path: Path, found: Findings, made: Mapping[str, Any]) -> None:
    """Write the page of this arena."""
    cards = [
        ("ratings", "Ratings", panels.interval_card(found)),
        ("leaderboard", "Leaderboard", panels.leaderboard_card(found)),
        ("matrix", "Who beats whom", panels.matrix_card(found)),
        ("board", "Other board", panels.board_card(found)),
        ("prediction", "Prediction", checks.prediction_card(found)),
        ("gaps", "Gaps", panels.gap_card(found)),
        ("connections", "Connections", checks.connection_card(found)),
        ("order", "Order", checks.order_card(found)),
        ("voters", "Voters", checks.voter_card(found)),
        ("method", "How this was made", checks.method_card(found, made)),
    ]
    alone = () if len(found.ratings.models) > 1 else ("ratings", "leaderboard", "matrix", "prediction", "connections")
    shown = [(name, words, card) for name, words, card in cards if card is not None and name not in alone]
    text = html.page(
        "Model arena", lead(found), html.contents((name, words) for name, words, _ in shown), tiles(found),
        *(html.note(w, warn=True) for w in found.ratings.warnings), *(card for _, _, card in shown),
        footer=f"finepref {made['versions'].get('finepref', '')} · {made['created']} · {made['command']}",
    )  # fmt: skip
    files.write_text(path, text)


def lead(found: Findings) -> str:
    """The result in a sentence or two."""
    ratings, n = found.ratings, len(found.table.votes)
    order = ratings.order()
    best, _ = ratings.rank_interval()
    first = [ratings.models[k] for k in order if best[k] == 1]
    if len(order) < 2:
        return f"{n:,} votes that name no more than one model: nothing to rank, but images can be compared."
    start = f"{len(order)} models, {n:,} votes. "
    if len(first) == 1:
        return f"{start}{first[0]} is ahead of all others beyond doubt (95 %)."
    names = ", ".join(first[:3]) + (f" and {len(first) - 3} more" if len(first) > 3 else "")
    return f"{start}{ratings.models[order[0]]} leads, but {len(first)} models may be the best: {names}."


def tiles(found: Findings) -> html.Raw:
    """The arena in figures."""
    votes = found.table.votes
    rows: list[tuple[object, object]] = [
        (f"{len(votes):,}", "votes"), (f"{len(votes.models):,}", "models"),
        (f"{100 * tie_share(found.table):.0f} %", "ties"),
    ]  # fmt: skip
    for codes, word in ((votes.voter, "voters"), (votes.prompt, "prompts"), (votes.game, "K-wise games")):
        if codes is not None:
            rows.append((f"{int(codes.max()) + 1:,}", word))
    if votes.left_image is not None and votes.right_image is not None:
        rows.append((f"{1 + max(int(votes.left_image.max()), int(votes.right_image.max())):,}", "images"))
    if found.table.unlabelled:
        rows.append((f"{found.table.unlabelled:,}", "rows without a vote"))
    if found.table.rejected:
        rows.append((f"{len(found.table.rejected):,}", "bad rows left out"))
    return html.tiles(rows)
