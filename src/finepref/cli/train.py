"""`finepref train`: a run config to a trained model; torchrun and `accelerate launch` start it on many devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from finepref.cli.config import Layers, Overrides

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
    from finepref.core.progress import is_stage, say
    from finepref.train.config import load_config
    from finepref.train.run import train_run

    words = [*(overrides or ())]
    either = resume and AUTO in words
    if either:
        words.remove(AUTO)
    config_ = load_config(config, words)
    print(train_run(config_, out, resume=AUTO if either else resume, overwrite=overwrite, verify=verify))
    if is_stage():
        return
    start = "start" if out.name != "start" else "base"
    trained = f"--negative {out}" if config_.signal.swap else f"--model {out.name}={out}"
    say(f"next: finepref generate --model {start}={out}@0 {trained} --prompts FILE --out DIR")
    say(f"      finepref report {out};  finepref export {out} --format diffusers --out DIR")
