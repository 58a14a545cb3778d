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
from finepref.cli.asked import with_reading
from finepref.formats.reading import AS_IT_IS, Reading

if TYPE_CHECKING:
    from finepref.formats.questions import QuestionsRecord
    from finepref.formats.ratings import RatingsRecord

Column = Annotated[str | None, Option(metavar="COLUMN", show_default=False, rich_help_panel="Columns")]
VOTES = "Vote files (csv, jsonl, parquet) or folders; addresses (s3://...); .duckdb, .sql."
TIES = "batch: fit, half, drop; online: fit (as the preset does), draw, skip, half."
BOARD = "arenapo-pickapic, arenapo-hpdv3, a ratings.json or a csv (model, mu)."
SIDE = "batch: test whether the side that a model is shown on decides votes, or fit a side term."
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
    """Rate models from votes: ratings.json, leaderboard.csv, gaps.parquet and arena.html."""
    given = dict(locals())
    from finepref.arena.whole import ArenaRequest, run_arena
    from finepref.formats.votebatch import EVERY
    from finepref.report.arena_page import write_page

    options = ArenaRequest(
        reading=replace(reading, columns={**reading.columns, **columns(command, given)}),
        rating=RatingOptions(**{field.name: given[field.name] for field in fields(RatingOptions)}),
        rho=rho, normalise=normalise, validate=validate, compare_board=compare_board, skip_bad_rows=skip_bad_rows,
        overwrite=overwrite, gaps=gaps, drop_voter=tuple(drop_voter or ()), merge=tuple(merge or ()),
    )  # fmt: skip
    if reading.question == EVERY:
        from finepref.arena.side_by_side import run_arenas
        from finepref.report.questions_page import write_index

        record = run_arenas(votes, out, options, page=write_page, index=write_index)
        _print_boards(out, record, as_json=as_json)
        return
    run_arena(votes, out, options, page=write_page)
    _print(out, as_json=as_json)


def _leaderboard(record: RatingsRecord) -> str:
    """A table of ranks, models, mu with interval and votes."""
    width = min(36, max(len("model"), *(len(row.name) for row in record.models)))
    head = f"{'rank':>4}  {'model':<{width}}  {'mu':>7}  {'95% interval':>15}  {'ranks':>7}  {'tier':>4}  {'votes':>8}"
    lines = [head]
    for rank, row in enumerate(record.models, start=1):
        name = row.name if len(row.name) <= width else row.name[: width - 1] + "…"
        none = "the anchor" if row.name == record.settings.anchor else "none"
        interval = none if row.low is None or row.high is None else f"{row.low:.2f} - {row.high:.2f}"
        ranks, votes = f"{row.rank_low}-{row.rank_high}", row.wins + row.losses + row.ties
        lines.append(
            f"{rank:>4}  {name:<{width}}  {row.mu:7.2f}  {interval:>15}  {ranks:>7}  {row.tier:>4}  {votes:>8g}"
        )
    return "\n".join(lines)


def _counted(record: RatingsRecord) -> str:
    """Where the votes went, and how far voters agree."""
    lines, count = [], record.votes
    if count is not None and count.used < count.read:
        out = "".join(f"; {rows:,} left out: {reason}" for reason, rows in count.left_out.items())
        own = f", {count.self:,} of a model against itself" if count.self else ""
        lines.append(f"votes: {count.read:,} read, {count.used:,} used{own}{out}\n")
    agreed = record.agreement
    if agreed is not None:
        span = "" if agreed.interval is None else f" ({agreed.interval[0]:.2f} to {agreed.interval[1]:.2f})"
        many = f"{agreed.comparisons:,} comparisons (same {agreed.unit}) judged more than once"
        lines.append(f"agreement of voters: Krippendorff's alpha {agreed.alpha:.2f}{span}, {many}\n")
    return "".join(lines)


def _print(out: Path, *, as_json: bool) -> None:
    """Print the arena in this folder: ratings.json as it is, or the table, the warnings and where the page is."""
    from finepref.arena.whole import PAGE
    from finepref.formats.ratings import RATINGS, read_ratings

    if as_json:
        sys.stdout.write((out / RATINGS).read_text(encoding="utf-8"))
        return
    record = read_ratings(out)
    notes = "".join(f"note: {warning}\n" for warning in record.warnings)
    sys.stdout.write(f"{_leaderboard(record)}\n{_counted(record)}{notes}page: {out / PAGE}\n")


def _print_boards(out: Path, record: QuestionsRecord, *, as_json: bool) -> None:
    """Print the arena of every question, as JSON: question -> ratings, null where it has none."""
    import json

    from finepref.arena.whole import PAGE
    from finepref.core.text import visible
    from finepref.formats.ratings import RATINGS

    if as_json:
        held = {each.question: json.loads((out / each.folder / RATINGS).read_text("utf-8")) for each in record.boards}
        held |= {each.question: None for each in record.refused}
        sys.stdout.write(json.dumps(held, ensure_ascii=False) + "\n")
        return
    for each in record.boards:
        sys.stdout.write(f"{visible(each.question)}\n")
        _print(out / each.folder, as_json=False)
    for refused in record.refused:
        sys.stdout.write(f"{visible(refused.question)}: no board, because {visible(refused.reason)}\n")
    sys.stdout.write(f"all boards: {out / PAGE}\n")
