"""`finepref arena`: votes to ratings, gaps and a page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from finepref.arena.settings import DEFAULTS, RatingOptions
from finepref.cli.asked import with_reading, words_of
from finepref.cli.ending import Words, ends
from finepref.formats.reading import AS_IT_IS, Reading

if TYPE_CHECKING:
    from finepref.arena.whole import ArenaRequest
    from finepref.formats.questions import QuestionsRecord
    from finepref.formats.ratings import RatingsRecord

Column = Annotated[str | None, Option(metavar="COLUMN", show_default=False, rich_help_panel="Columns")]
VOTES = "Vote files (csv, jsonl, parquet) or folders; addresses (s3://...); .duckdb, .sql."
TIES = "batch: fit, half, drop; online: fit (as the preset does), draw, skip, half."
BOARD = "arenapo-pickapic, arenapo-hpdv3, a ratings.json or a csv (model, mu)."
SIDE = "batch: test whether the side that a model is shown on decides votes, or fit a side term."
LONGEST = 36  # characters of a model's name in the table
RHO = "Share of the noise that is the images' own; estimated if absent."


def columns(command: Callable[..., None], given: Mapping[str, Any]) -> dict[str, str]:
    """Role -> column, of those options of a command that name a column and are given."""
    roles = [name for name, each in signature(command, eval_str=True).parameters.items() if each.annotation == Column]
    return {role: given[role] for role in roles if given[role] is not None}


@with_reading(images=False)
def command(
    votes: Annotated[list[Path], Argument(help=VOTES, show_default=False)],
    out: Annotated[Path, Option(help="Folder to write.")] = Path("arena"),
    engine: Annotated[str, Option(help="batch (all votes at once) or online (vote by vote).")] = DEFAULTS.engine,
    preset: Annotated[str, Option(help="online: ksort or appendix_a.")] = DEFAULTS.preset,
    link: Annotated[str, Option(help="batch: probit or logit.")] = DEFAULTS.link,
    prior: Annotated[str, Option(help="batch: normal, flat or empirical-bayes.")] = DEFAULTS.prior,
    ties: Annotated[str, Option(help=TIES)] = DEFAULTS.ties,
    interval: Annotated[str, Option(help="batch: auto, laplace, sandwich or bootstrap.")] = DEFAULTS.interval,
    cluster: Annotated[str | None, Option(help="Votes that go together: game, prompt or voter.")] = DEFAULTS.cluster,
    side: Annotated[str, Option(help=SIDE)] = DEFAULTS.side,
    anchor: Annotated[str | None, Option(metavar="MODEL", help="Measure intervals from this model.")] = DEFAULTS.anchor,
    drop_voter: Annotated[list[str] | None, Option(metavar="VOTER", help="Leave this voter's votes out.")] = None,
    merge: Annotated[list[str] | None, Option(metavar="OLD=NEW", help="Rename a model, or join two.")] = None,
    rho: Annotated[float | None, Option(help=RHO)] = None,
    normalise: Annotated[str, Option(help="none, or mean: every kind of gap divided by its mean.")] = "none",
    validate: Annotated[int | None, Option(metavar="K", help="Held-out scores over K folds: validation.json.")] = None,
    compare_board: Annotated[str | None, Option(metavar="BOARD", help=BOARD)] = None,
    order: Annotated[str, Option(help="online: given, or shuffled by --seed.")] = DEFAULTS.order,
    passes: Annotated[int, Option(help="online: how often to go through the votes.")] = DEFAULTS.passes,
    seed: Annotated[int, Option(help="Of every random draw.")] = DEFAULTS.seed,
    left: Column = None,
    right: Column = None,
    winner: Column = None,
    left_image: Column = None,
    right_image: Column = None,
    prompt: Column = None,
    voter: Column = None,
    id: Column = None,
    group: Column = None,
    model: Column = None,
    rank: Column = None,
    image: Column = None,
    reading: Reading = AS_IT_IS,
    skip_bad_rows: Annotated[bool, Option("--skip-bad-rows", help="List bad rows instead of stopping.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace another arena in --out.")] = False,
    gaps: Annotated[bool, Option("--gaps/--no-gaps", help="Write gaps.parquet: one row a vote.")] = True,
    as_json: Annotated[bool, Option("--json", help="Print the ratings as JSON.")] = False,
) -> None:
    """Rate models from votes.

    Writes ratings.json, leaderboard.csv, gaps.parquet and arena.html.
    """
    given = dict(locals())
    from finepref.arena.whole import PAGE, ArenaRequest, run_arena
    from finepref.formats.votebatch import EVERY
    from finepref.report.arena_page import write_page

    options = ArenaRequest(
        reading=replace(reading, columns={**reading.columns, **columns(command, given)}),
        rating=RatingOptions(**{field.name: given[field.name] for field in fields(RatingOptions)}),
        rho=rho, normalise=normalise, validate=validate, compare_board=compare_board, skip_bad_rows=skip_bad_rows,
        overwrite=overwrite, gaps=gaps, drop_voter=tuple(drop_voter or ()), merge=tuple(merge or ()),
    )  # fmt: skip
    every = reading.question == EVERY
    if every:
        from finepref.arena.side_by_side import run_arenas
        from finepref.report.questions_page import write_index

        record = run_arenas(votes, out, options, page=write_page, index=write_index)
        _print_boards(out, record, as_json=as_json)
    else:
        run_arena(votes, out, options, page=write_page)
        _print(out, as_json=as_json)
    if not as_json:
        ends(f"{'all boards' if every else 'page'}: {out / PAGE}", *_following(votes, out, options, every=every))


def _following(votes: list[Path], out: Path, options: ArenaRequest, *, every: bool) -> list[Words]:
    """Margins for training, where the votes are of pictures that have these ratings; and what to ask next."""
    from finepref.formats.preferences import has_pictures

    if every:
        return [("report", out)]
    read = [*votes, *words_of(options.reading)]
    rated_as_named = not (options.merge or options.drop_voter or options.skip_bad_rows)
    signals = ("signals", *read, "--kind", "truncated", "--arena", out, "--out", "signals.parquet")
    found: list[Words] = [signals] if rated_as_named and has_pictures(votes, options.reading) else []
    return [*found, ("next", *read, *(["--skip-bad-rows"] if options.skip_bad_rows else []), "--out", "next.csv")]


def _leaderboard(record: RatingsRecord) -> list[str]:
    """A table of ranks, models, mu with interval and votes."""
    from finepref.core.terminal import table_lines

    rows = []
    for rank, row in enumerate(record.models, start=1):
        name = row.name if len(row.name) <= LONGEST else row.name[: LONGEST - 1] + "…"
        none = "the anchor" if row.name == record.settings.anchor else "none"
        interval = none if row.low is None or row.high is None else f"{row.low:.2f} - {row.high:.2f}"
        ranks, votes = f"{row.rank_low}-{row.rank_high}", row.wins + row.losses + row.ties
        rows.append((str(rank), name, f"{row.mu:.2f}", interval, ranks, str(row.tier), f"{votes:g}"))
    names = ("rank", "model", "mu", "95% interval", "ranks", "tier", "votes")
    return table_lines(names, rows, right=(0, 2, 3, 4, 5, 6))


def _counted(record: RatingsRecord) -> list[str]:
    """Where the votes went, and how far voters agree."""
    lines, count = [], record.votes
    if count is not None and count.used < count.read:
        out = "".join(f"; {rows:,} left out: {reason}" for reason, rows in count.left_out.items())
        own = f", {count.self:,} of a model against itself" if count.self else ""
        lines.append(f"votes: {count.read:,} read, {count.used:,} used{own}{out}")
    agreed = record.agreement
    if agreed is not None:
        span = "" if agreed.interval is None else f" ({agreed.interval[0]:.2f} to {agreed.interval[1]:.2f})"
        many = f"{agreed.comparisons:,} comparisons (same {agreed.unit}) judged more than once"
        lines.append(f"agreement of voters: Krippendorff's alpha {agreed.alpha:.2f}{span}, {many}")
    return lines


def _print(out: Path, *, as_json: bool) -> None:
    """Print the arena in this folder: ratings.json as it is, or the table and the warnings."""
    from finepref.core.terminal import folded_text
    from finepref.formats.ratings import RATINGS, read_ratings

    if as_json:
        sys.stdout.write((out / RATINGS).read_text(encoding="utf-8"))
        return
    record = read_ratings(out)
    print("\n".join(_leaderboard(record)))
    for line in [*_counted(record), *(f"note: {warning}" for warning in record.warnings)]:
        print(folded_text(line, indent="  "))


def _print_boards(out: Path, record: QuestionsRecord, *, as_json: bool) -> None:
    """Print the arena of every question, as JSON: question -> ratings, null where it has none."""
    import json

    from finepref.arena.whole import PAGE
    from finepref.core.terminal import folded_text
    from finepref.core.text import visible
    from finepref.formats.ratings import RATINGS

    if as_json:
        held = {each.question: json.loads((out / each.folder / RATINGS).read_text("utf-8")) for each in record.boards}
        held |= {each.question: None for each in record.refused}
        sys.stdout.write(json.dumps(held, ensure_ascii=False) + "\n")
        return
    for each in record.boards:
        print(folded_text(visible(each.question)))
        _print(out / each.folder, as_json=False)
        print(f"page: {out / each.folder / PAGE}")
    for refused in record.refused:
        print(folded_text(f"{visible(refused.question)}: no board, because {visible(refused.reason)}", indent="  "))
