"""`finepref cache`: encode images and prompts once, before training; fill the caches of the frozen reference."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from finepref.cli.config import Layers, Overrides
from finepref.cli.ending import ends


def command(
    config: Layers,
    overrides: Overrides = None,
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
    offload: Annotated[
        bool, typer.Option(help="The VAE is gone before the text encoders are read: less memory (cache.offload).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Encode every image and prompt of a run's data.

    Resumes where it stopped. torchrun shares the work out.

    Images that are files are read again each time, to see whether they changed; only new content is encoded.
    """
    from finepref.core.errors import ConfigError
    from finepref.core.outfolders import check_folder
    from finepref.core.progress import say
    from finepref.formats.sources import named_inputs
    from finepref.train.config import load_config, parse_config
    from finepref.train.frozen import ERRORS, NOISE
    from finepref.train.opened import make_cache
    from finepref.train.processes import launched
    from finepref.train.run import fill_run

    run = load_config(config, [*(overrides or ()), *(["cache.offload=true"] if offload else [])])
    folder = out or (Path(run.cache.folder) if run.cache.folder else None)
    if folder is None:
        raise ConfigError("no cache folder is named", where="cache.folder", remedy="set it, or give --out")
    if reference and run.train.reference_cache is None and run.train.trajectory_cache is None:
        raise ConfigError("no folder is named", where="train.reference_cache", remedy="name one to fill")
    if reference:
        for content in (NOISE, ERRORS):
            if (named := getattr(run.train, content.option)) is not None:
                check_folder(named, content.folder, inputs=[folder, *named_inputs(run.data.paths)])
    world = launched()
    summary = make_cache(run, folder, world=world, recheck=True, overwrite=overwrite and not reference)
    record = dataclasses.asdict(summary)
    lines = [
        f"{summary.folder}: {summary.pairs} pairs, {summary.images} images ({summary.encoded_images} encoded now), "
        f"{summary.prompts} prompts, {summary.quarantined} pairs dropped"
    ]
    if reference:
        placed = parse_config({**run.as_dict(), "cache": {**run.cache.model_dump(), "folder": str(folder)}})
        for name, content in (("trajectories", NOISE), ("reference", ERRORS)):
            if getattr(placed.train, content.option) is not None:
                filled = fill_run(placed, content, overwrite=overwrite)
                record[name] = dataclasses.asdict(filled)
                lines.append(
                    f"{filled.folder}: {content.name} of {filled.draws} draws ({filled.computed} computed now: "
                    f"{filled.images} reference images, {filled.device_seconds:.1f} device seconds)"
                )
    if summary.complete and as_json:
        print(json.dumps(record))
    elif summary.complete:
        words = [*(overrides or ()), *(["cache.offload=true"] if offload else [])]
        words += [f"cache.folder={out}"] if out is not None else []
        layers = [word for layer in config for word in ("-c", layer)]
        ends("\n".join(lines), ("train", *layers, *words, "--out", Path("runs") / Path(config[-1]).stem))
    else:
        encoded = f"{summary.encoded_images} images and {summary.encoded_prompts} prompts encoded"
        say(f"this process is done: {encoded}; another speaks for all")
