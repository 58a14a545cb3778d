"""`finepref compare`: win rates and differences with intervals, clustered by prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(help="Scored evaluation folder.")],
    baseline: Annotated[str, typer.Option(help="Name of the model that the others are compared with.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; DIR/comparison.json by default.")] = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence level of every interval.")] = 0.95,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples and permutation draws.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of bootstrap and permutation.")] = 0,
    force: Annotated[bool, typer.Option(help="Compare scores whose fingerprints differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole comparison as JSON.")] = False,
) -> None:
    """Compare models at equal prompts and seeds."""
    from finepref.evaluate.compare import compare
    from finepref.evaluate.show import comparison_lines
    from finepref.files import read_json

    path = compare(folder, baseline, out=out, level=level, resamples=resamples, seed=seed, force=force)
    if as_json:
        print(path.read_text(encoding="utf-8"), end="")
        return
    for line in comparison_lines(read_json(path)):
        print(line)
    print(path)
