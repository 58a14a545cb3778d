"""`finepref demo`: the main job on the embedded world, as the commands that a user would type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option(help="Folder of the demo; stages that are finished in it are skipped.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of votes and training.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Stages side by side; 0 = by the number of cores.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps only: to see the stages, not to judge them.")
    ] = False,
) -> None:
    """The whole journey on a tiny world, in minutes.

    Votes -> arena -> posterior -> training, beside DPO -> report, without network.
    """
    from finepref.study.demo import run_demo

    summary = run_demo(out, seed=seed, workers=workers, quick=quick)
    for line in summary:
        print(line)
