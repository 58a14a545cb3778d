"""`finepref cache`: encode images and prompts once, before training."""

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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Encode every image and prompt of a run's data; resumes where it stopped. torchrun shares the work out."""
    from finepref.build import default_device, make_cache
    from finepref.errors import ConfigError
    from finepref.train.config import load_config

    run = load_config(config, overrides or ())
    folder = out or (Path(run.cache.folder) if run.cache.folder else None)
    if folder is None:
        raise ConfigError("no cache folder is named", where="cache.folder", remedy="set it, or give --out")
    rank, size, local = (int(os.environ.get(name, default)) for name, default in _PROCESS)
    device = default_device()
    summary = make_cache(
        run,
        folder,
        rank=rank,
        size=size,
        device=f"cuda:{local}" if device == "cuda" else device,
        overwrite=overwrite,
    )
    if as_json:
        print(json.dumps(dataclasses.asdict(summary)))
    else:
        print(
            f"{summary.folder}: {summary.pairs} pairs, {summary.images} images ({summary.encoded_images} encoded now), "
            f"{summary.prompts} prompts, {summary.quarantined} pairs dropped"
        )


_PROCESS = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
