"""`finepref train`: a run config to a trained model; torchrun and `accelerate launch` start it on many devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[
        list[str], typer.Option("-c", "--config", help="Layer, repeatable: a YAML file, or a shipped name.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="section.key=value, repeatable; values are YAML.")
    ] = None,
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
