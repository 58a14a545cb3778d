"""`finepref publish`: a run with a model card, in a folder or on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="Run folder, or RUN@STEP.")],
    repo: Annotated[str | None, typer.Option(help="NAME or OWNER/NAME on the hub; also the title of the card.")] = None,
    to: Annotated[Path | None, typer.Option(help="Write into this folder; nothing is uploaded.")] = None,
    format: Annotated[
        list[str] | None, typer.Option("--format", help="As of `finepref export`, repeatable; by default what fits.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="The hub's identifier; by default that of a known base.")] = None,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="Pictures before and after; by default `eval` beside the run.")
    ] = None,
    private: Annotated[bool, typer.Option(help="A private repository.")] = False,
    half: Annotated[bool, typer.Option("--half", help="merged, single-file: all weights in float16.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was published into --to.")] = False,
) -> None:
    """A run with a model card, in a folder or on the hub.

    Weights in the chosen formats, a card with results and limits, and pictures.
    """
    from finepref.align.publish import publish

    given = {"formats": format or (), "licence": license, "evaluation": evaluation, "private": private, "half": half}
    given["overwrite"] = overwrite
    print(publish(run, repository=repo, folder=to, **given))  # type: ignore[arg-type]
