"""`finepref next`: the pairs of models whose vote would tell most."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finepref.arena.options import DEFAULTS

Column = Annotated[str | None, typer.Option(metavar="COLUMN", show_default=False)]


def command(
    votes: Annotated[list[Path], typer.Argument(help="Vote files or folders of them.", show_default=False)],
    count: Annotated[int, typer.Option(help="How many pairs.")] = 20,
    out: Annotated[Path | None, typer.Option(help="File to write (.csv, .jsonl or .parquet).")] = None,
    prior: Annotated[str, typer.Option(help="normal or empirical-bayes.")] = DEFAULTS.prior,
    seed: Annotated[int, typer.Option(help="Of which model stands on the left.")] = DEFAULTS.seed,
    left: Column = None,
    right: Column = None,
    winner: Column = None,
    group: Column = None,
    model: Column = None,
    rank: Column = None,
) -> None:
    """Ask next: the pairs of models whose vote would tell most about the ratings, best first."""
    from finepref.arena.folder import provenance_of
    from finepref.arena.nextpairs import next_pairs
    from finepref.formats.proposals import check_suffix, proposals_csv, write_proposals
    from finepref.formats.sources import find_files
    from finepref.formats.votefiles import read_votes

    if out is not None:
        check_suffix(out)
    named = {"left": left, "right": right, "winner": winner, "group": group, "model": model, "rank": rank}
    columns = {role: column for role, column in named.items() if column is not None}
    table = read_votes(votes, columns=columns)
    pairs = next_pairs(table.votes, number=count, prior=prior, seed=seed)
    if out is None:
        print(proposals_csv(pairs), end="")
    else:
        config = {"number": count, "prior": prior, "seed": seed, "columns": columns}
        write_proposals(out, pairs, provenance=provenance_of(find_files(votes), config))
