"""`finepref export`: a run for diffusers, ComfyUI, kohya's trainers, WebUI, or as one whole pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finepref.cli.ending import beside, ends


def command(
    run: Annotated[Path, typer.Argument(help="Run folder, or RUN@STEP: its checkpoint after so many steps.")],
    format: Annotated[str, typer.Option("--format", help="diffusers | kohya | comfyui | merged | single-file.")],
    out: Annotated[Path, typer.Option(help="Folder; for kohya, comfyui, single-file a .safetensors file or a folder.")],
    base: Annotated[str | None, typer.Option(help="Where the base model of the run lies now, if it moved.")] = None,
    half: Annotated[bool, typer.Option("--half", help="merged, single-file: all weights in float16.")] = False,
    negative: Annotated[
        str | None,
        typer.Option(help="merged: a run trained on losers (signal.swap) that guidance leads away from."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a run's trained part for another tool."""
    from finepref.core.progress import say
    from finepref.formats.run import at_step, is_the_base
    from finepref.models.export import export

    written = export(run, base, out, format=format, half=half, negative=negative, overwrite=overwrite)
    if is_the_base(Path(at_step(run))):
        say(f"note: {run} left the base as it was, and {written} is that base")
        ends(written)
        return
    ends(written, ("publish", run, "--to", beside(run, "published")))
