"""`finepref report`: one page of everything, from files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folders: Annotated[
        list[Path], typer.Argument(help="Arena, run and evaluation folders, RUN@STEP, or what holds them.")
    ],
    out: Annotated[Path, typer.Option(help="Page to write; its text goes beside it as .md.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(help="Heading; the result itself by default.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric of the summary; the first no training used by default.")
    ] = None,
    megabytes: Annotated[float, typer.Option(min=0.1, help="Room for pictures in the page.")] = 8.0,
) -> None:
    """Write the report: summary, win rates, images side by side, training, arena, provenance."""
    from finepref.report import report

    print(report(folders, out, title=title, metric=metric, budget=int(megabytes * 1e6)))
