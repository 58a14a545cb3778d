"""`finepref data`: look at preference data, check it, convert it, or make it from scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finepref.cli.asked import share_of, with_reading, words_of
from finepref.cli.ending import Words, ends
from finepref.core.device import launched_as
from finepref.formats.reading import AS_IT_IS, Reading

if TYPE_CHECKING:
    from finepref.data.inspect import DataReport

command = typer.Typer(help="Preference data: inspect, validate, convert, pair.", no_args_is_help=True)

Data = Annotated[list[str], typer.Argument(help="Files, folders or patterns of one preference data set.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Look at this many pairs only.")]
Shard = Annotated[str, typer.Option(help="INDEX/COUNT: this share of the data alone.")]
Parts = Annotated[
    Path | None,
    typer.Option(help="Folder in which any number of processes share the reading, each a part; all report the whole."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@command.command("inspect")
@with_reading()
def inspect_command(
    data: Data,
    reading: Reading = AS_IT_IS,
    limit: Limit = None,
    shard: Shard = "0/1",
    parts: Parts = None,
    as_json: AsJson = False,
) -> None:
    """Counts, ties, models, voters and image sizes.

    Images are opened but not decoded.
    """
    following = ("data", "validate", *data, *words_of(reading))
    _report(data, reading, limit, shard, parts, as_json, full=False, following=lambda report: following)


@command.command("validate")
@with_reading()
def validate_command(
    data: Data,
    reading: Reading = AS_IT_IS,
    limit: Limit = None,
    shard: Shard = "0/1",
    parts: Parts = None,
    as_json: AsJson = False,
) -> None:
    """Decode every image and list what is unusable.

    Exit 1 if anything is.
    """
    from finepref.align.choice import is_named
    from finepref.cli.following import aligning
    from finepref.core.errors import CheckFailed

    def following(report: DataReport) -> Words | None:
        if report.problems:
            return None
        if is_named(report):
            return ("arena", *data, *words_of(replace(reading, images=None)))
        return aligning(data, reading)

    report = _report(data, reading, limit, shard, parts, as_json, full=True, following=following)
    if report is not None and report.problems:
        raise CheckFailed(
            f"{len(report.problems)} pairs are unusable",
            where=", ".join(data),
            remedy="`finepref cache` and `finepref data convert` leave them out and list them",
        )


@command.command("convert")
@with_reading()
def convert_command(
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Parquet file to write.")] = None,
    parts: Annotated[
        Path | None,
        typer.Option(help="Instead of --out: folder of parquet files that any number of processes make, each a part."),
    ] = None,
    shard: Shard = "0/1",
    reading: Reading = AS_IT_IS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file or folder.")] = False,
) -> None:
    """Write the house format.

    One parquet, or with --parts several, with pair_id, prompt, both images' bytes, label, models, voter.
    """
    from finepref.core.errors import ConfigError
    from finepref.core.progress import say

    mine = share_of(shard)
    if (out is None) == (parts is None):
        raise ConfigError("one of --out and --parts is needed", where="convert", remedy="name a file with --out")
    found: tuple[int, int] | None
    if out is not None:
        from finepref.data.convert import convert

        if launched_as()[0] > 1 or mine != (0, 1):
            raise ConfigError("a file is written by one process", where="--out", remedy="name a folder with --parts")
        found = convert(data, out, reading=reading, overwrite=overwrite)
    elif parts is not None:
        from finepref.data.convertedparts import convert_together

        found = convert_together(data, parts, reading=reading, overwrite=overwrite, shard=mine)
    if found is None:
        say(f"share {shard} is converted; who converts the last of them writes {parts}")
    elif launched_as()[1] == 0:
        ends(f"{out or parts}: {found[0]} pairs, {found[1]} left out", ("data", "inspect", out or parts))


@command.command("pair")
def pair_command(
    folder: Annotated[Path, typer.Argument(help="Evaluation folder with manifest.jsonl and scores.parquet.")],
    scorer: Annotated[str, typer.Option(help="Whose scores decide.")],
    out: Annotated[Path, typer.Option(help="Folder for pairs.parquet and rewards.parquet.")],
    choose: Annotated[str, typer.Option(help="all | best_worst pairs of a prompt's images.")] = "all",
    min_gap: Annotated[float, typer.Option(min=0.0, help="Leave out pairs whose scores differ by less.")] = 0.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files.")] = False,
) -> None:
    """Make a preference set from images and their scores.

    No human votes are needed.
    """
    from finepref.data.pairing import pair_from_scores

    counts = pair_from_scores(folder, out, scorer=scorer, choose=choose, min_gap=min_gap, overwrite=overwrite)
    pairs, rewards, signals = (out / f"{name}.parquet" for name in ("pairs", "rewards", "signals"))
    ends(
        f"{out}: {counts['pairs']} pairs of {counts['prompts']} prompts, {counts['skipped']} images without a score",
        ("signals", pairs, "--kind", "smoothed", "--rewards", rewards, "--out", signals),
    )


def _report(
    data: list[str], reading: Reading, limit: int | None, shard: str, parts: Path | None, as_json: bool, *, full: bool,
    following: Callable[[DataReport], Words | None],
) -> DataReport | None:  # fmt: skip
    """Print what the data hold, and what may follow; None where a share of them is still to be read."""
    from finepref.core.errors import ConfigError
    from finepref.core.progress import say
    from finepref.data.inspect import inspect, inspect_together

    mine = share_of(shard)
    if parts is None:
        if launched_as()[0] > 1:
            raise ConfigError("several processes would each read all", where="--parts", remedy="name a folder")
        report = inspect(data, reading=reading, limit=limit, full=full, shard=mine)
    else:
        if limit is not None:
            raise ConfigError("a limit is of one process", where="--limit", remedy="leave it or --parts out")
        found = inspect_together(data, parts, reading=reading, full=full, shard=mine)
        if found is None:
            say(f"share {shard} is read; who reads the last of them with --parts {parts} reports the whole")
            return None
        report = found
    lines = _text(report)
    if parts is None and mine[1] > 1:
        lines = f"share {shard} of the data alone; pairs that recur in another are not seen\n{lines}"
    if launched_as()[1] == 0 and as_json:
        print(json.dumps(asdict(report)))
    elif launched_as()[1] == 0:
        ends(lines, *filter(None, [following(report)]))
    return report


def _text(report: DataReport) -> str:
    from finepref.core.terminal import folded, table_lines

    share = {name: f"{count} ({count / max(1, report.pairs):.1%})" for name, count in report.labels.items()}
    lines = [
        f"format {report.format}: {report.pairs} pairs, {report.prompts} prompts, {report.images} distinct images, "
        f"{report.voters} voters",
        "labels: " + ", ".join(f"{name} {text}" for name, text in share.items()),
        f"repeated pairs {report.repeated} (votes disagree in {report.contradicted}), "
        f"pairs of two identical images {report.identical}",
        "image sizes: " + (", ".join(f"{size}: {n}" for size, n in list(report.sizes.items())[:12]) or "none"),
    ]
    changed = [f"{what}: {n}" for what, n in report.conversions.items()]
    lines.append("image conversions: " + (", ".join(changed) or "none"))
    table = list[str]()
    if report.models:
        names = ("shown", "won", "tied", "lost")
        rows = [(model, *(str(row[name]) for name in names)) for model, row in report.models.items()]
        table = table_lines(("model", *names), rows, right=(1, 2, 3, 4))
    after = [f"read {file}: {rows} rows" for file, rows in report.sources.items()]
    after += [f"outcome {word!r} is {taken}" for word, taken in list(report.outcome_words.items())[:20]]
    after += [f"note: {note}" for note in report.notes]
    after.append(f"unusable pairs: {len(report.problems)}")
    after += [
        f"  {each.where or f'row {each.row}'}, pair {each.pair_id or '-'}: {each.reason}"
        for each in report.problems[:20]
    ]
    if len(report.problems) > 20:
        after.append(f"  and {len(report.problems) - 20} more (--json lists all)")
    above, below = ([part for text in texts for part in folded(text, indent="    ")] for texts in (lines, after))
    return "\n".join([*above, *table, *below])
