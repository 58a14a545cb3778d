"""`finepref train`: a run config to a trained model; torchrun and `accelerate launch` start it on many devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from finepref.cli.config import Layers, Overrides
from finepref.cli.ending import Words, beside, ends
from finepref.cli.following import exporting

if TYPE_CHECKING:
    from finepref.train.config import RunConfig

AUTO: Literal["auto"] = "auto"


def command(
    config: Layers,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/run"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the last checkpoint; `--resume auto`: or start, where no run is."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove what is in the run folder and start again.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read base, caches and checkpoints again and compare every hash.")
    ] = False,
) -> None:
    """Train a model on preferences. The cache is made first where it is missing.

    Ctrl-C ends it after the step, with a checkpoint. Each checkpoint can be used as OUT@STEP.
    """
    from finepref.train.config import load_config
    from finepref.train.run import train_run

    words = [*(overrides or ())]
    either = resume and AUTO in words
    if either:
        words.remove(AUTO)
    config_ = load_config(config, words)
    run = train_run(config_, out, resume=AUTO if either else resume, overwrite=overwrite, verify=verify)
    ends(run, *_following(out, config_))


def _following(out: Path, config: RunConfig) -> list[Words]:
    """Pictures before and after, the report of the run, and its weights for other tools."""
    start = "start" if out.name != "start" else "base"
    trained = ("--negative", out) if config.signal.swap else ("--model", f"{out.name}={out}")
    prompts = "lab-eval" if config.model.base == "lab" else "partiprompts"
    models = ("--model", f"{start}={out}@0", *trained)
    return [
        ("generate", *models, "--prompts", prompts, "--out", beside(out, "eval")),
        ("report", out),
        exporting(out),
    ]
