"""`finepref compare`: win rates and differences with intervals, clustered by prompt."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from finepref.cli.ending import ends
from finepref.core.errors import InputError


def command(
    folder: Annotated[Path | None, typer.Argument(help="Scored evaluation folder.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Name of the model the others are compared with.")] = None,
    from_counts: Annotated[
        Path | None,
        typer.Option(help="Instead of a folder: csv of printed win rates (comparison,metric,prompts,n,win_rate)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; DIR/comparison.json by default.")] = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence level of every interval.")] = 0.95,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples and permutation draws.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of bootstrap and permutation.")] = 0,
    force: Annotated[bool, typer.Option(help="Compare scores whose fingerprints differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole comparison as JSON.")] = False,
) -> None:
    """Compare models at equal prompts and seeds.

    Or judge printed win rates, with --from-counts.
    """
    if from_counts is not None:
        if folder is not None or baseline is not None:
            raise InputError("it stands alone", where="--from-counts", remedy="leave out the folder and --baseline")
        _counts(from_counts, out, level, as_json)
        return
    if folder is None or baseline is None:
        raise InputError("a folder and its --baseline are needed", where="compare", remedy="or give --from-counts")
    from finepref.evaluate.compare import compare, comparison_lines
    from finepref.formats.comparison import COMPARISON

    found = compare(folder, baseline, out=out, level=level, resamples=resamples, seed=seed, force=force)
    path = folder / COMPARISON if out is None else out
    if as_json:
        print(path.read_text(encoding="utf-8"), end="")
        return
    for line in comparison_lines(found):
        print(line)
    ends(path, ("report", folder))


def _counts(path: Path, out: Path | None, level: float, as_json: bool) -> None:
    from finepref.core.files import read_json, write_json
    from finepref.core.ownership import own_file
    from finepref.evaluate.published_counts import CountRow, counts_lines, read_counts

    def ours(file: Path) -> bool:
        held, names = read_json(file), {field.name for field in fields(CountRow)}
        return {*held} == {"level", "rows"} and bool(held["rows"]) and all({*row} == names for row in held["rows"])

    with nullcontext() if out is None else own_file(out, ours, inputs=[path], what="judged win rates"):
        rows = read_counts(path, level=level)
        record = {"level": level, "rows": [asdict(row) for row in rows]}
        if out is not None:
            write_json(out, record)
    if as_json:
        print(json.dumps(record, indent=2))
        return
    for line in counts_lines(rows):
        print(line)
