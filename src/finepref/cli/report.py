"""`finepref report`: one page of everything, from files alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from finepref.cli.ending import ends
from finepref.cli.following import exporting


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
    """Write the report, one page.

    Summary, win rates, images side by side, training, arena, provenance.
    """
    from finepref.formats.run import is_finished
    from finepref.report import report

    page = report(folders, out, title=title, metric=metric, budget=int(megabytes * 1e6))
    run = next((each for folder in folders for each in _below(folder) if is_finished(each)), None)
    ends(page, *([] if run is None else [exporting(run)]))


def _below(folder: Path) -> Iterator[Path]:
    """A folder and those in it, as deep as a report looks."""
    yield folder
    for pattern in ("*", "*/*"):
        yield from sorted(folder.glob(pattern))
