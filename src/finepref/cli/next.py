"""`finepref next`: the pairs of models whose vote would tell most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from finepref.arena.settings import DEFAULTS
from finepref.cli.arena import Column, columns
from finepref.cli.asked import Encoding, Format, Outcomes, Question, Split, reading_of


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
    format: Format = "auto",
    outcome: Outcomes = None,
    encoding: Encoding = None,
    split: Split = None,
    question: Question = None,
) -> None:
    """Ask next: the pairs of models whose vote would tell most about the ratings, best first."""
    named = columns(command, locals())
    from finepref.arena.nextpairs import next_pairs
    from finepref.core.provenance import fingerprinted
    from finepref.formats.proposals import check_suffix, proposals_csv, write_proposals
    from finepref.formats.sources import find_files
    from finepref.formats.votefiles import read_as

    if out is not None:
        check_suffix(out)
    reading = replace(reading_of(format, None, outcome, encoding, split, question), columns=named)
    table = read_as(votes, reading)
    pairs = next_pairs(table.votes, number=count, prior=prior, seed=seed)
    if out is None:
        print(proposals_csv(pairs), end="")
    else:
        config = {"number": count, "prior": prior, "seed": seed, **reading.config()}
        write_proposals(out, pairs, provenance=fingerprinted(inputs=find_files(votes, reading), config=config))
