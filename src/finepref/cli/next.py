"""`finepref next`: the pairs of models whose vote would tell most."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Column = Annotated[str | None, typer.Option(metavar="COLUMN", show_default=False)]


def command(
    votes: Annotated[list[Path], typer.Argument(help="Vote files or folders of them.", show_default=False)],
    count: Annotated[int, typer.Option(help="How many pairs.")] = 20,
    out: Annotated[Path | None, typer.Option(help="File to write (.csv, .jsonl or .parquet).")] = None,
    prior: Annotated[str, typer.Option(help="normal or empirical-bayes.")] = "normal",
    seed: Annotated[int, typer.Option(help="Of which model stands on the left.")] = 0,
    left: Column = None,
    right: Column = None,
    winner: Column = None,
    group: Column = None,
    model: Column = None,
    rank: Column = None,
) -> None:
    """Ask next: the pairs of models whose vote would tell most about the ratings, best first."""
    from finepref.arena.nextfile import run_next

    named = {"left": left, "right": right, "winner": winner, "group": group, "model": model, "rank": rank}
    columns = {role: column for role, column in named.items() if column is not None}
    run_next(votes, out, columns=columns, number=count, prior=prior, seed=seed)
