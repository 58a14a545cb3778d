"""`finepref generate`: images of models x prompts x seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from finepref.data.prompts import PromptSet


def command(
    model: Annotated[
        list[str],
        typer.Option(help="NAME=PATH, repeatable; PATH: run folder, diffusers folder, hub id, lab or lab:early."),
    ],
    prompts: Annotated[list[str], typer.Option(help="Prompt file (txt, json, jsonl, csv, tsv, parquet) or set name.")],
    out: Annotated[Path, typer.Option(help="Evaluation folder to write.")],
    seeds: Annotated[str, typer.Option(help="Seeds, with commas: 0,1,2.")] = "0",
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 50,
    guidance: Annotated[float, typer.Option(min=0, help="Guidance scale as in diffusers.")] = 7.5,
    scheduler: Annotated[str | None, typer.Option(help="ddim, euler, dpm++, ... ; the model's own by default.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; the model's own by default.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call; does not change the noise.")] = 8,
    base: Annotated[str | None, typer.Option(help="Base model of runs whose recorded base has moved.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first prompts of each set.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace images that were made in another way.")] = False,
) -> None:
    """Generate images of every model at equal prompts, seeds and initial noise."""
    import functools

    from finepref.build import load_pipeline
    from finepref.evaluate.generate import generate
    from finepref.evaluate.sources import parse_integers, parse_size, sources

    numbers, pixels = parse_integers(seeds, "--seeds"), parse_size(size)
    sets = [_prompts(name).head(limit) for name in prompts]
    load = functools.partial(load_pipeline, base=base) if base else load_pipeline
    models = sources(model, load, extra=[("base", base)] if base else [])
    for chosen in sets:
        manifest = generate(
            models,
            chosen,
            numbers,
            out,
            steps=steps,
            guidance=guidance,
            scheduler=scheduler,
            size=pixels,
            batch_size=batch_size,
            overwrite=overwrite,
        )
    print(manifest)


def _prompts(name: str) -> PromptSet:
    from finepref.data.prompt_sets import load_prompt_set
    from finepref.data.prompts import as_prompt_set

    if name.startswith("lab-"):
        from finepref.build import prompt_set

        return as_prompt_set(prompt_set(name), name)
    return load_prompt_set(name)
