"""`finepref generate`: images of models x prompts x seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from finepref.cli.asked import share_of
from finepref.cli.ending import ends
from finepref.cli.following import judging
from finepref.core.errors import InputError


def command(
    model: Annotated[
        list[str],
        typer.Option(
            help="NAME=PATH, repeatable; PATH: run folder, RUN@STEP, RUN@0 (its start), diffusers folder, hub id, lab."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Evaluation folder to write.")],
    prompts: Annotated[
        list[str] | None,
        typer.Option(help="Prompt file, lab-eval, lab-train, or papv2, hpsv2, partiprompts (=FILE), repeatable."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds with commas; 0 by default.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps; 50 by default.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance as in diffusers; 7.5 by default.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="ddim, euler, dpm++, ... ; the model's own by default.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; the model's own by default.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="Negative prompt of every image.")] = None,
    noise: Annotated[str | None, typer.Option(help="per-prompt (default) or shared by all prompts.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="sdpo-2025, smpo-2025 or recommended: fixes all of the above but the model.")
    ] = None,
    controlnet: Annotated[str | None, typer.Option(help="ControlNet folder or hub id.")] = None,
    control_images: Annotated[Path | None, typer.Option(help="Folder of control maps: 00012.png of row 12.")] = None,
    control_scale: Annotated[float | None, typer.Option(min=0, help="Conditioning scale; 1 by default.")] = None,
    refiner: Annotated[str | None, typer.Option(help="SDXL refiner folder or hub id.")] = None,
    refiner_start: Annotated[float | None, typer.Option(help="Share of steps before the refiner; 0.8.")] = None,
    negative: Annotated[
        str | None,
        typer.Option(
            help="A run trained on losers (signal.swap) that all models are guided away from (Diffusion-NPO)."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="no (float32), bf16 or fp16, of all networks.")] = "no",
    quantize: Annotated[str | None, typer.Option(help="int8 or nf4: the denoiser's weights in fewer bits.")] = None,
    offload: Annotated[bool, typer.Option(help="Only the network at work on the GPU: less memory, slower.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call; does not change the noise.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first prompts of each set.")] = None,
    shard: Annotated[str, typer.Option(help="INDEX/COUNT: this share of each model's images alone.")] = "0/1",
    overwrite: Annotated[bool, typer.Option(help="Replace images that were made in another way.")] = False,
) -> None:
    """Generate images of every model at equal prompts and seeds.

    And from equal initial noise.
    """
    from finepref.core.outfolders import check_folder
    from finepref.data.prompt_sets import load_prompt_set
    from finepref.evaluate.generate import check_loading, generate
    from finepref.evaluate.named_models import as_source, parse_models, parse_size
    from finepref.evaluate.protocols import family_of, load_protocol
    from finepref.formats.folders import EVALUATION
    from finepref.formats.manifest import LINES

    own = {
        "seeds": seeds, "steps": steps, "guidance": guidance, "scheduler": scheduler, "size": parse_size(size),
        "negative_prompt": negative_prompt, "noise": noise,
    }  # fmt: skip
    settings: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    extras = _extras(controlnet, control_images, control_scale, refiner, refiner_start)
    extras |= {"precision": precision, "quantize": quantize, "offload": offload}
    named = parse_models(model)
    check_loading(named, precision, quantize, offload=offload)  # before a model is loaded to be known
    read: list[Any] = [*named.values(), *filter(None, [control_images, negative])]
    check_folder(out, EVALUATION, inputs=[*read, *(name.partition("=")[2] or name for name in prompts or ())])
    fixed = None if protocol is None else load_protocol(protocol)
    numbers, chosen = _asked(fixed, protocol, settings, prompts or [])
    sets = [load_prompt_set(name).head(limit) for name in chosen]
    models = _sources(named)
    extras |= {"negative": None if negative is None else as_source(negative), "shard": share_of(shard)}
    if fixed is not None:
        settings = fixed.sampling(family_of({name: source.pipeline for name, source in models.items()}))
    for prompt_set in sets:
        generate(models, prompt_set, numbers, out, batch_size=batch_size, overwrite=overwrite, **settings, **extras)
    ends(out / LINES, *judging(out, protocol, chosen, models=len(models)))


def _sources(named: dict[str, str]) -> dict[str, Any]:
    """What pictures are made of; a run that left its base as it was is said to be that base."""
    from finepref.core.progress import say
    from finepref.evaluate.named_models import as_source
    from finepref.formats.run import is_the_base

    for name, path in named.items():
        if is_the_base(Path(path)):
            say(f"note: {name} is the base, which {path} left as it was")
    return {name: as_source(path) for name, path in named.items()}


def _asked(
    fixed: Any, protocol: str | None, settings: dict[str, Any], prompts: list[str]
) -> tuple[list[int], list[str]]:
    """(seeds, prompts) of a protocol, or as they were given; the seeds are taken out of the settings."""
    from finepref.evaluate.named_models import parse_integers
    from finepref.evaluate.protocols import choose_prompts

    if fixed is not None and settings:
        option = f"--{next(iter(settings)).replace('_', '-')}"
        raise InputError(f"the protocol {protocol} fixes it", where=option, remedy="leave it out, or --protocol")
    if fixed is not None:
        return list(fixed.seeds), list(choose_prompts(fixed, prompts))
    numbers = parse_integers(settings.pop("seeds", "0"), "--seeds")
    if not prompts:
        raise InputError("no prompts", where="--prompts", remedy="give a prompt file or a set, or --protocol")
    return numbers, prompts


def _extras(
    controlnet: str | None, images: Path | None, scale: float | None, refiner: str | None, start: float | None
) -> dict[str, Any]:
    from finepref.evaluate.sampling import Control, Refiner

    if (controlnet is None) != (images is None):
        raise InputError("a ControlNet needs its maps", where="--controlnet", remedy="give --control-images too")
    for option, value, needs, there in (
        ("--control-scale", scale, "--controlnet", controlnet),
        ("--refiner-start", start, "--refiner", refiner),
    ):
        if value is not None and there is None:
            raise InputError(f"it has no effect without {needs}", where=option, remedy="leave it out")
    return {
        "control": Control(controlnet, images, 1.0 if scale is None else scale) if controlnet and images else None,
        "refiner": Refiner(refiner, 0.8 if start is None else start) if refiner else None,
    }
