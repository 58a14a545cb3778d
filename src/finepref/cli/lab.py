"""`finepref lab`: the embedded world - its votes, its model, its study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

command = typer.Typer(help="The embedded world, whose true quality is known.", no_args_is_help=True)


@command.command("votes")
def votes(
    out: Annotated[Path, typer.Option(help="The parquet file, in the Pick-a-Pic v2 schema.")] = Path("votes.parquet"),
    count: Annotated[int, typer.Option(min=1, help="Number of votes.")] = 4200,
    seed: Annotated[int, typer.Option(help="Decides images, pairs, voters and their noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make the votes again.")] = False,
) -> None:
    """Make preference data: image makers of different strength, noisy voters, ties."""
    from finepref.files import parquet_meta
    from finepref.lab.votes import make_votes
    from finepref.progress import say

    if out.is_file() and not overwrite and parquet_meta(out).get("seed") == seed:
        say(f"{out} is there already (--overwrite makes it again)")
    else:
        make_votes(out, seed=seed, votes=count)
    print(out)


@command.command("model")
def model(
    out: Annotated[Path, typer.Option(help="The diffusers folder to write.")] = Path("lab-model"),
    variant: Annotated[str, typer.Option(help="base or early.")] = "base",
) -> None:
    """Write the lab's model as a plain diffusers pipeline folder."""
    from finepref.lab.model import materialise

    print(materialise(out, variant))
