"""`finepref arena`: votes to ratings, gaps and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finepref.arena.options import DEFAULTS, RatingOptions

Votes = Annotated[
    list[Path], typer.Argument(help="Vote files (csv, jsonl, parquet) or folders of them.", show_default=False)
]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Engine = Annotated[str, typer.Option(help="batch (all votes at once) or online (vote by vote).")]
Preset = Annotated[str, typer.Option(help="online: ksort or appendix_a.")]
Link = Annotated[str, typer.Option(help="batch: probit or logit.")]
Prior = Annotated[str, typer.Option(help="batch: normal, flat or empirical-bayes.")]
Ties = Annotated[str, typer.Option(help="batch: fit, half, drop; online: fit (as the preset does), draw, skip, half.")]
Interval = Annotated[str, typer.Option(help="batch: auto, laplace, sandwich or bootstrap.")]
Cluster = Annotated[str | None, typer.Option(help="Votes that go together: game, prompt or voter.")]
Rho = Annotated[float | None, typer.Option(help="Share of the noise that is the images' own; estimated if absent.")]
Normalise = Annotated[str, typer.Option(help="none, or mean: every kind of gap divided by its mean.")]
Validate = Annotated[int | None, typer.Option(metavar="K", help="Held-out scores over K folds: validation.json.")]
Board = Annotated[
    str | None,
    typer.Option(metavar="BOARD", help="arenapo-pickapic, arenapo-hpdv3, a ratings.json or a csv (model, mu)."),
]
Order = Annotated[str, typer.Option(help="online: given, or shuffled by --seed.")]
Column = Annotated[str | None, typer.Option(metavar="COLUMN", show_default=False, rich_help_panel="Columns")]


def command(
    votes: Votes,
    out: Out = Path("arena"),
    engine: Engine = DEFAULTS.engine,
    preset: Preset = DEFAULTS.preset,
    link: Link = DEFAULTS.link,
    prior: Prior = DEFAULTS.prior,
    ties: Ties = DEFAULTS.ties,
    interval: Interval = DEFAULTS.interval,
    cluster: Cluster = DEFAULTS.cluster,
    rho: Rho = None,
    normalise: Normalise = "none",
    validate: Validate = None,
    compare_board: Board = None,
    order: Order = DEFAULTS.order,
    passes: Annotated[int, typer.Option(help="online: how often to go through the votes.")] = DEFAULTS.passes,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = DEFAULTS.seed,
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
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="List bad rows instead of stopping.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another arena in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ratings as JSON.")] = False,
) -> None:
    """Rate models from votes: ratings.json, leaderboard.csv, gaps.parquet and arena.html."""
    from finepref.arena.run import Options, run_arena
    from finepref.arena.terminal import print_result
    from finepref.report.arena_page import write_page

    named = {
        "left": left, "right": right, "winner": winner, "left_image": left_image, "right_image": right_image,
        "prompt": prompt, "voter": voter, "id": id, "group": group, "model": model, "rank": rank, "image": image,
    }  # fmt: skip
    rating = RatingOptions(
        engine=engine, preset=preset, link=link, prior=prior, ties=ties, interval=interval, cluster=cluster,
        order=order, passes=passes, seed=seed,
    )  # fmt: skip
    options = Options(
        columns={role: column for role, column in named.items() if column is not None}, rating=rating, rho=rho,
        normalise=normalise, validate=validate, compare_board=compare_board, skip_bad_rows=skip_bad_rows,
        overwrite=overwrite,
    )  # fmt: skip
    run_arena(votes, out, options, page=write_page)
    print_result(out, as_json=as_json)
