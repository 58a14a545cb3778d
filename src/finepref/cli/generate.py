"""`finepref generate`: images of models x prompts x seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping


def command(
    model: Annotated[
        list[str],
        typer.Option(help="NAME=PATH, repeatable; PATH: run folder, diffusers folder, hub id, lab or lab:early."),
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
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call; does not change the noise.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first prompts of each set.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace images that were made in another way.")] = False,
) -> None:
    """Generate images of every model at equal prompts, seeds and initial noise."""
    from finepref.data.prompt_sets import load_prompt_set
    from finepref.evaluate.generate import generate
    from finepref.evaluate.named_models import as_source, parse_integers, parse_models, parse_size
    from finepref.evaluate.protocols import choose_prompts, family_of, load_protocol
    from finepref.formats.manifest import LINES

    fixed = {
        "--seeds": seeds, "--steps": steps, "--guidance": guidance, "--scheduler": scheduler, "--size": size,
        "--negative-prompt": negative_prompt, "--noise": noise,
    }  # fmt: skip
    extras = _extras(controlnet, control_images, control_scale, refiner, refiner_start)
    named = parse_models(model)
    if protocol is None:
        settings: dict[str, Any] = {
            "steps": 50 if steps is None else steps,
            "guidance": 7.5 if guidance is None else guidance,
            "scheduler": scheduler,
            "size": parse_size(size),
            "negative_prompt": negative_prompt,
            "noise": noise or "per-prompt",
        }
        numbers = parse_integers(seeds if seeds is not None else "0", "--seeds")
        sets = [load_prompt_set(name).head(limit) for name in _required(prompts)]
        models = {name: as_source(path) for name, path in named.items()}
    else:
        chosen = load_protocol(protocol)
        _refuse(fixed, protocol)
        numbers = list(chosen.seeds)
        sets = [load_prompt_set(name).head(limit) for name in choose_prompts(chosen, prompts or [])]
        models = {name: as_source(path) for name, path in named.items()}
        settings = chosen.sampling(family_of({name: source.pipeline for name, source in models.items()}))
    for prompt_set in sets:
        generate(models, prompt_set, numbers, out, batch_size=batch_size, overwrite=overwrite, **settings, **extras)
    print(out / LINES)


def _required(prompts: list[str] | None) -> list[str]:
    from finepref.core.errors import InputError

    if not prompts:
        raise InputError("no prompts", where="--prompts", remedy="give a prompt file or a set, or --protocol")
    return prompts


def _refuse(fixed: Mapping[str, object], protocol: str) -> None:
    from finepref.core.errors import InputError

    given = [option for option, value in fixed.items() if value is not None]
    if given:
        raise InputError(f"the protocol {protocol} fixes it", where=given[0], remedy="leave it out, or --protocol")


def _extras(
    controlnet: str | None, images: Path | None, scale: float | None, refiner: str | None, start: float | None
) -> dict[str, Any]:
    from finepref.core.errors import InputError
    from finepref.evaluate.sampling import Control, Refiner

    if (controlnet is None) != (images is None):
        raise InputError("a ControlNet needs its maps", where="--controlnet", remedy="give --control-images too")
    if controlnet is None and scale is not None:
        raise InputError("it has no effect without --controlnet", where="--control-scale", remedy="leave it out")
    if refiner is None and start is not None:
        raise InputError("it has no effect without --refiner", where="--refiner-start", remedy="leave it out")
    extras: dict[str, Any] = {}
    if controlnet is not None and images is not None:
        extras["control"] = Control(controlnet, images, 1.0 if scale is None else scale)
    if refiner is not None:
        extras["refiner"] = Refiner(refiner) if start is None else Refiner(refiner, start)
    return extras
