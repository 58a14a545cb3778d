"""`finepref next`: the pairs of models, and of images, whose vote would tell most."""

from __future__ import annotations

import csv
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from finepref.arena.settings import DEFAULTS
from finepref.cli.arena import Column, columns
from finepref.cli.asked import with_reading, words_of
from finepref.cli.ending import beside, ends
from finepref.core.terminal import table_lines, width
from finepref.formats.reading import AS_IT_IS, Reading

ASKED = "File of an earlier `next` whose votes are not there yet; repeatable."


@with_reading(images=False)
def command(
    votes: Annotated[list[Path], typer.Argument(help="Vote files or folders of them.", show_default=False)],
    count: Annotated[int, typer.Option(help="How many pairs.")] = 20,
    out: Annotated[Path | None, typer.Option(help="File to write (.csv, .jsonl or .parquet).")] = None,
    images: Annotated[bool, typer.Option("--images", help="Choose images too, of a common prompt.")] = False,
    asked: Annotated[list[Path] | None, typer.Option(metavar="FILE", help=ASKED, show_default=False)] = None,
    prior: Annotated[str, typer.Option(help="normal or empirical-bayes.")] = DEFAULTS.prior,
    seed: Annotated[int, typer.Option(help="Of sides, and of whatever is equally good.")] = DEFAULTS.seed,
    left: Column = None,
    right: Column = None,
    winner: Column = None,
    left_image: Column = None,
    right_image: Column = None,
    prompt: Column = None,
    group: Column = None,
    model: Column = None,
    rank: Column = None,
    image: Column = None,
    reading: Reading = AS_IT_IS,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out.")] = False,
) -> None:
    """The votes to ask for next, best first.

    Those that would tell most about an order that is not certain yet.
    """
    named = columns(command, locals())
    from finepref.arena.nextvotes import NextRequest, run_next
    from finepref.core.progress import say
    from finepref.formats.proposals import own_proposals, proposals_csv
    from finepref.formats.sources import named_inputs

    reading = replace(reading, columns={**reading.columns, **named})
    options = NextRequest(
        count=count, images=images, asked=asked or (), prior=prior, seed=seed, reading=reading,
        skip_bad_rows=skip_bad_rows,
    )  # fmt: skip
    with nullcontext() if out is None else own_proposals(out, inputs=[*named_inputs(votes), *options.asked]):
        found, said = run_next(votes, out, options)
    if out is None:
        _show(proposals_csv(found, options.kind))
    for sentence in said:
        say(sentence)
    if out is not None:
        bad = ["--skip-bad-rows"] if skip_bad_rows else []
        again = ("arena", *votes, *words_of(reading), *bad, "--out", beside(out.with_suffix(""), "arena"))
        ends(out, *([again] if found else []), when="when their votes are in the files of votes" if found else "")


def _show(text: str) -> None:
    """The csv as it is, or a table where a person looks."""
    if not width():
        print(text, end="")
        return
    names, *rows = csv.reader(text.splitlines())
    numbers = {names.index(name) for name in ("rank", "gain", "votes")}
    print("\n".join(table_lines(names, rows, right=numbers)))
