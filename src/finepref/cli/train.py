"""`finepref train`: a run config to a trained model; torchrun and `accelerate launch` start it on many devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finepref.cli.config import Layers, Overrides


def command(
    config: Layers,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/run"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last complete checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove what is in the run folder and start again.")
    ] = False,
) -> None:
    """Train a model on preferences. The cache is made first where it is missing."""
    from finepref.train.config import load_config
    from finepref.train.run import train_run

    print(train_run(load_config(config, overrides or ()), out, resume=resume, overwrite=overwrite))
