"""Guidance away from a second network: what the prompt is compared with is not the network's own empty prompt.

The second network was trained on losers (Diffusion-NPO, ICLR 2025; G-U-N/Diffusion-NPO, its pipelines with two UNets).
`guided_pipelines` has the formula, and the pipelines of a folder that holds both networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from finepref.core.errors import InputError
from finepref.core.progress import say
from finepref.models.family import family_of
from finepref.models.pipeline_parts import check_parts, check_tokenizers
from finepref.models.source import Source, load_module, load_part, part_class, pipeline_class, quiet

PARTS = {
    "StableDiffusionPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "StableDiffusion3Pipeline": "transformer",
}
"""Pipelines that call their denoiser once with negative and prompt, one below the other -> the denoiser's name."""
MODULE = "pipeline"


def negative_network(pipeline: Any, negative: Any) -> Any:
    """The denoiser of another pipeline, ready to stand for the negative half of this one's guidance.

    Raises:
        InputError: as `negative_part`.
    """
    part = negative_part(pipeline, negative)
    return getattr(negative, part).to(pipeline.device, pipeline.dtype)


def guide_by(pipeline: Any, network: Any) -> None:
    """Lead the guidance of a pipeline away from a denoiser, in place and for good."""
    from finepref.models.guided_pipelines import guided_forward

    denoiser = getattr(pipeline, PARTS[type(pipeline).__name__])
    denoiser.forward = guided_forward(pipeline, denoiser, network)
    denoiser.forward.guided = True


def is_led(network: Any) -> bool:
    """Whether a denoiser stands for two."""
    return bool(getattr(getattr(network, "forward", None), "guided", False))


def negative_part(pipeline: Any, negative: Any) -> str:
    """The name of the denoiser that a pipeline takes from another one.

    Raises:
        InputError: a pipeline whose denoiser is not called with both halves, two of other shapes or another
            parametrisation, or a second network that was trained together with its text encoders, which the pipeline
            would leave out.
    """
    name = type(pipeline).__name__
    part = PARTS.get(name)
    if part is None:
        what = f"a {name} is not guided by two halves of one call"
        raise InputError(what, where="negative", remedy=f"use it with {', '.join(PARTS)}")
    network, other = getattr(pipeline, part), getattr(negative, part, None)
    if is_led(network) or is_led(other):
        what = f"the {'model' if is_led(network) else 'negative model'} is led away from a second network already"
        raise InputError(what, where="negative", remedy="leave it out, or give the run that the folder was made of")
    if other is None or _shapes(other) != _shapes(network):
        what = f"the {part} of the negative model is not like that of the model"
        raise InputError(what, where="negative", remedy="give a run of the same base")
    said, asked = (getattr(each.scheduler.config, "prediction_type", None) for each in (negative, pipeline))
    if said != asked:
        what = f"the negative model predicts {said}, and the model {asked}"
        raise InputError(what, where="negative", remedy="give a run of the same base")
    texts = [each for each in negative.components if each.startswith("text_encoder") and getattr(negative, each)]
    trained = [
        each for each in texts if any(".lora_" in name for name, _ in getattr(negative, each).named_parameters())
    ]
    if trained:
        what = f"the {trained[0]} of the negative model was trained too, and the model's own encodes prompts for both"
        raise InputError(what, where="negative", remedy="give a run without lora.text_encoder")
    other_texts = [each for each in texts if not _alike(getattr(pipeline, each, None), getattr(negative, each))]
    if other_texts:
        say(f"the {other_texts[0]} of the negative model is another; prompts are encoded by the model's own for both")
    return part


def is_guided(index: Mapping[str, Any]) -> bool:
    """Whether a model_index.json is that of a folder with two networks."""
    return any(index.get("_class_name") == [MODULE, f"Negative{name}"] for name in PARTS)


def plain_class(index: Mapping[str, Any]) -> str:
    """The pipeline class of a model_index.json; of a folder with two networks that of its parent."""
    written = index.get("_class_name", "")
    return str(written[1]).removeprefix("Negative") if is_guided(index) else str(written)


def open_guided(source: Source, *, device: str | torch.device, dtype: torch.dtype) -> Any:
    """The pipeline of a folder with two networks. Its pipeline.py is not run: it is this package's own.

    Raises:
        InputError: a part that is missing or does not fit.
    """
    index = {**source.index, "_class_name": plain_class(source.index)}
    plain = replace(source, index={name: value for name, value in index.items() if not name.startswith("negative_")})
    kind = family_of(plain)
    check_parts(plain, kind)
    tokenizers = check_tokenizers(plain, kind)
    parts = [part for part in plain.index if plain.has(part) and part not in tokenizers]
    networks = [part for part in parts if issubclass(part_class(plain, part), torch.nn.Module)]
    held = {part: load_part(plain, part, dtype=dtype) for part in networks}
    with quiet():
        scheduler = part_class(plain, "scheduler").from_pretrained(str(source.folder / "scheduler"))
    said = {name: value for name, value in plain.index.items() if not (name.startswith("_") or isinstance(value, list))}
    pipe = pipeline_class(plain)(**said, **plain.absent(), **held, **tokenizers, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    folder = source.folder / f"negative_{kind.part}"
    away = load_module(part_class(plain, kind.part), folder, dtype=dtype, variant=source.variant)
    with quiet():
        pipe = pipe.to(torch.device(device))
    guide_by(pipe, away.to(torch.device(device)))
    return pipe


def guided_index(index: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The model_index.json of a folder with two networks."""
    name = f"Negative{index['_class_name']}"
    return {**index, "_class_name": [MODULE, name], f"negative_{part}": index[part]}


def _alike(one: Any, other: Any) -> bool:
    """Whether two text encoders have equal weights, adapters left out."""
    if one is None or type(one) is not type(other):
        return False
    first, second = _own(one), _own(other)
    return first.keys() == second.keys() and all(torch.equal(first[name].cpu(), second[name].cpu()) for name in first)


def _own(network: Any) -> dict[str, Any]:
    """A network's own weights, an adapter on it or not."""
    own = {name: value for name, value in network.state_dict().items() if ".lora_" not in name}
    return {name.replace(".base_layer.", "."): value for name, value in own.items()}


def _shapes(network: Any) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in _own(network).items()}
