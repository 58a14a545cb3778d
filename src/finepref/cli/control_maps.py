"""`finepref control-maps`: edges or depth of pictures, for `generate --control-images`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finepref.cli.asked import share_of
from finepref.core.device import launched_as


def command(
    images: Annotated[Path, typer.Argument(help="Evaluation folder, or a folder of pictures.")],
    kind: Annotated[str, typer.Option(help="canny (edges; needs finepref[control]) or depth.")],
    out: Annotated[Path, typer.Option(help="Folder to write: 00012.png of row 12, and maps.json.")],
    model: Annotated[str | None, typer.Option(help="Evaluation folder: whose images, where it has several.")] = None,
    prompts: Annotated[str | None, typer.Option(help="Evaluation folder: of which prompt set.")] = None,
    seed: Annotated[int | None, typer.Option(help="Evaluation folder: of which seed.")] = None,
    low: Annotated[int | None, typer.Option(help="canny: lower threshold; 100 by default.")] = None,
    high: Annotated[int | None, typer.Option(help="canny: upper threshold; 200 by default.")] = None,
    depth_model: Annotated[
        str | None, typer.Option(help="depth: folder or hub id of a DPT or Depth Anything; Intel/dpt-hybrid-midas.")
    ] = None,
    shard: Annotated[str, typer.Option(help="INDEX/COUNT: this share of the pictures alone.")] = "0/1",
) -> None:
    """Make a control map of every picture.

    In a plain folder the row is a picture's number, else its place by name.
    """
    from finepref.core.errors import InputError
    from finepref.core.progress import say
    from finepref.evaluate.control_maps import Chosen, control_maps

    given = {"low": low, "high": high, "depth_model": depth_model}
    settings = {name: value for name, value in given.items() if value is not None}
    for name in settings:
        if (name == "depth_model") != (kind == "depth"):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"no effect on {kind} maps", where=option, remedy="leave it out")
    chosen = Chosen(model, prompts, seed)
    share = share_of(shard)
    record = control_maps(images, out, kind=kind, chosen=chosen, shard=share, **settings)  # type: ignore[arg-type]
    if record is None:
        say(f"share {shard} is made; who makes the last of them writes {out}")
    elif launched_as()[1] == 0:
        print(f"{out}: {len(record.maps)} {record.kind} maps")
