"""`finepref cache`: encode images and prompts once, before training; fill the caches of the frozen reference."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[str, typer.Option("-c", "--config", help="Run config: a YAML file, or a shipped one by name.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="section.key=value, repeatable; values are YAML.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Cache folder; without it, cache.folder of the config.")] = None,
    reference: Annotated[
        bool,
        typer.Option(
            "--reference",
            help="Also compute what the frozen reference does with every draw: train.trajectory_cache, its inversions, "
            "and train.reference_cache, its errors; those that are named.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again (with --reference, the reference's caches alone).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Encode every image and prompt of a run's data; resumes where it stopped. torchrun shares the work out.

    Images that are files are read again each time, to see whether they changed; only new content is encoded.
    """
    from finepref import build
    from finepref.core.device import default_device
    from finepref.core.errors import ConfigError
    from finepref.core.progress import say
    from finepref.train.config import load_config, parse_config

    run = load_config(config, overrides or ())
    folder = out or (Path(run.cache.folder) if run.cache.folder else None)
    if folder is None:
        raise ConfigError("no cache folder is named", where="cache.folder", remedy="set it, or give --out")
    if reference and run.train.reference_cache is None and run.train.trajectory_cache is None:
        raise ConfigError("no folder is named", where="train.reference_cache", remedy="name one to fill")
    rank, size, local = (int(os.environ.get(name, default)) for name, default in _PROCESS)
    device = default_device()
    summary = build.make_cache(
        run,
        folder,
        rank=rank,
        size=size,
        device=f"cuda:{local}" if device == "cuda" else device,
        recheck=True,
        overwrite=overwrite and not reference,
    )
    record = dataclasses.asdict(summary)
    lines = [
        f"{summary.folder}: {summary.pairs} pairs, {summary.images} images ({summary.encoded_images} encoded now), "
        f"{summary.prompts} prompts, {summary.quarantined} pairs dropped"
    ]
    if reference:
        placed = parse_config({**run.as_dict(), "cache": {**run.cache.model_dump(), "folder": str(folder)}})
        wanted = (
            ("trajectories", placed.train.trajectory_cache, build.fill_trajectories, "inversions by the reference"),
            ("reference", placed.train.reference_cache, build.fill_reference, "reference errors"),
        )
        for name, named, fill, what in wanted:
            if named is not None:
                filled = fill(placed, overwrite=overwrite)
                record[name] = dataclasses.asdict(filled)
                lines.append(
                    f"{filled.folder}: {what} of {filled.draws} draws ({filled.computed} computed now: "
                    f"{filled.images} reference images, {filled.device_seconds:.1f} device seconds)"
                )
    if summary.complete:
        print(json.dumps(record) if as_json else "\n".join(lines))
    else:
        encoded = f"{summary.encoded_images} images and {summary.encoded_prompts} prompts encoded"
        say(f"process {rank} of {size} is done: {encoded}; one process speaks for all")


_PROCESS = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
