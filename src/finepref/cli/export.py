"""`finepref export`: a run for diffusers, ComfyUI, kohya's trainers, WebUI, or as one whole pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="Run folder, or RUN@STEP: its checkpoint after so many steps.")],
    format: Annotated[str, typer.Option("--format", help="diffusers | kohya | comfyui | merged | single-file.")],
    out: Annotated[Path, typer.Option(help="Folder; for kohya, comfyui, single-file a .safetensors file or a folder.")],
    base: Annotated[str | None, typer.Option(help="Base model; without it, the one of the run.")] = None,
    half: Annotated[bool, typer.Option("--half", help="merged, single-file: float16 weights.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a run's trained part for another tool."""
    from finepref.core.errors import InputError
    from finepref.formats.run import RUN, at_step, is_finished, read_run
    from finepref.models.export import export

    run = Path(at_step(run))
    if base is None and not is_finished(run):
        raise InputError("no base model is known", where=run / RUN, remedy="give --base")
    record = read_run(run) if base is None else None
    name, revision = (record.base, record.revision) if record is not None else (str(base), None)
    print(export(run, name, out, format=format, revision=revision, half=half, overwrite=overwrite))
