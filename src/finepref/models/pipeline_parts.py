"""Whether the parts of a pipeline were made for each other: from configs, headers and tokenizers, before any work."""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from finepref.core.errors import InputError
from finepref.core.files import read_object, reading
from finepref.models.family import Family, text_parts
from finepref.models.header import COUNTED, part_header, plain_name
from finepref.models.prediction import SPEC, check_schedule, said_in
from finepref.models.source import SCHEDULER, Source, part_class, quiet, vae_class, vae_folder
from finepref.models.text import check_tokenizer

Shapes = dict[str, tuple[int, ...]]
ONE_MODEL = "take all parts from one model"
_SCALES = {
    "scaling_factor": (1, 0.0),
    "shift_factor": (0, -math.inf),
    "latents_mean": (0, -math.inf),
    "latents_std": (1, 0.0),
}
"""What a VAE's config may say of the scale of latents -> (the number that changes nothing, what all are above)."""


def check_parts(source: Source, kind: Family, vae: str | Path | None = None) -> None:
    """Refuse a pipeline whose configs do not fit each other: channels, widths, latent scale, prediction type.

    vae: another VAE than the pipeline's own.

    Raises:
        InputError: they do not. ConfigError: a noise schedule or prediction type that is not known.
    """
    file = source.folder / kind.part / "config.json"
    denoiser = config_of(part_class(source, kind.part), file)
    place = vae_folder(source, vae)
    _check_fixed(denoiser, kind, file)
    config = config_of(vae_class(source, place), place / "config.json")
    _check_channels(denoiser, config, kind, file)
    _check_scale(config, kind, place / "config.json")
    _check_widths(denoiser, _encoders(source, kind), kind, file)
    _check_scheduler(source, kind)


def check_weights(source: Source, kind: Family, vae: str | Path | None = None) -> None:
    """Refuse weights whose header does not have the shapes that their config gives; no tensor is read.

    Raises:
        InputError: another shape, a name that is missing or has no place, or weights that are no safetensors.
    """
    place = vae_folder(source, vae)
    networks = {source.folder / kind.part: part_class(source, kind.part), place: vae_class(source, place)}
    for folder, cls in networks.items():
        check_header(folder, cls, source.variant if folder.parent == source.folder else None)
    for _, part in kind.texts:
        if source.has(part):
            _check_embedding(source.folder / part, part_class(source, part), source.variant)
    if kind.part == "unet":
        _check_said(source)


def check_tokenizers(source: Source, kind: Family) -> dict[str, Any]:
    """The pipeline's tokenizers by part, each loaded and held against its text encoder.

    Raises:
        InputError: one that is missing, does not work, or does not fit; see `models.text`.
    """
    found = {}
    for part, encoder in kind.texts:
        if not source.has(encoder):
            continue
        cls, folder = part_class(source, part), source.folder / part
        with quiet(), reading(folder, "a tokenizer that works", remedy="fetch the model again"):
            found[part] = cls.from_pretrained(str(folder))
        config = config_of(part_class(source, encoder), source.folder / encoder / "config.json")
        clip = config.model_type == "clip_text_model"
        check_tokenizer(
            found[part],
            config.get_text_config().vocab_size,
            where=folder,
            positions=config.max_position_embeddings if clip else None,
        )
    return found


def config_of(cls: Any, file: Path) -> Any:
    """A part's config with the defaults of its class filled in, by attribute.

    Raises:
        InputError: no config of this class.
    """
    written = read_object(file)
    with reading(file, f"a config of {cls.__name__}", remedy="fetch it again"):
        if cls.__module__.startswith("transformers."):
            return cls.config_class.from_dict(written)
        taken = inspect.signature(cls.__init__).parameters.items()
        defaults = {name: each.default for name, each in taken if each.default is not inspect.Parameter.empty}
        return SimpleNamespace(**defaults | written)


def _encoders(source: Source, kind: Family) -> dict[str, Any]:
    held = text_parts(kind, source)
    return {part: config_of(part_class(source, part), source.folder / part / "config.json") for part in held}


def _check_fixed(denoiser: Any, kind: Family, file: Path) -> None:
    """What a family's denoiser must say, so that it is called with all that it takes."""
    for key, wanted in kind.fixed.items():
        found = getattr(denoiser, key, None)
        if found != wanted:
            what = f"{key} is {found!r}, a {kind.part} of {kind.name} has {wanted!r}"
            raise InputError(what, where=file, remedy=ONE_MODEL)


def _latent(vae: Any) -> Any:
    return getattr(vae, "latent_channels", None) or getattr(vae, "z_dim", None)


def _check_channels(denoiser: Any, vae: Any, kind: Family, file: Path) -> None:
    latent = _latent(vae)
    if not isinstance(latent, int):
        raise InputError("its VAE's config.json names no latent channels", where=file, remedy=ONE_MODEL)
    wanted = latent * kind.packed
    if denoiser.in_channels == wanted and getattr(denoiser, "out_channels", None) in (None, wanted, latent):
        return
    packed = f" ({kind.packed} a token: {wanted})" if kind.packed > 1 else ""
    what = f"its {kind.part} takes {denoiser.in_channels} channels, its VAE makes latents of {latent}{packed}"
    remedy = ONE_MODEL
    if kind.part == "unet" and denoiser.in_channels in (2 * wanted, 2 * wanted + 1):
        what, remedy = f"{what}: it is one for inpainting or editing", "use the text-to-image model it was made from"
    elif denoiser.in_channels == wanted:
        what = f"its {kind.part} makes {denoiser.out_channels} channels of {denoiser.in_channels}"
    raise InputError(what, where=file, remedy=remedy)


def _check_scale(vae: Any, kind: Family, file: Path) -> None:
    """The numbers that latents are shifted and scaled by stand in the config: a class's default is another model's.

    They are those that the pipeline undoes when it decodes, and no others.
    """
    written, remedy = read_object(file), "take config.json from the original model"
    for key in kind.scale:
        if written.get(key) is None:
            what = f"it does not say {key}, by which the latents of {kind.name} are scaled"
            raise InputError(what, where=file, remedy=remedy)
    for key, (idle, above) in _SCALES.items():
        value, many = getattr(vae, key, None), key.startswith("latents_")
        if value is None and (many or key not in kind.undone):
            continue
        numbers: list[Any] = [*value] if many and isinstance(value, list | tuple) else [value]
        count = _latent(vae) if many else 1
        if len(numbers) != count or not all(type(each) in (int, float) and above < each < math.inf for each in numbers):
            kinds = f"{count} numbers" if many else "a number"
            what = f"{key} is {value!r}, not {kinds}{' above 0' if above == 0 else ''}"
            raise InputError(what, where=file, remedy=remedy)
        if key not in kind.undone and any(each != idle for each in numbers):
            what = f"{key} is {value!r}, and the pipeline of {kind.name} does not undo it when it decodes"
            raise InputError(what, where=file, remedy=remedy)
    if (getattr(vae, "latents_mean", None) is None) != (getattr(vae, "latents_std", None) is None):
        what = "it says one of latents_mean and latents_std, and they are undone together or not at all"
        raise InputError(what, where=file, remedy=remedy)


def _check_widths(denoiser: Any, encoders: Mapping[str, Any], kind: Family, file: Path) -> None:
    try:
        taken = {name: shape[-1] for name, shape in kind.shapes(denoiser).items()}
    except (AttributeError, TypeError):
        raise InputError(f"not the config of a {kind.part} of {kind.name}", where=file, remedy=ONE_MODEL) from None
    try:
        made = kind.widths(encoders)
    except KeyError as error:
        raise InputError(f"the pipeline has no {error.args[0]}", where=file, remedy="use a complete pipeline") from None
    except AttributeError:
        names = ", ".join(type(config).__name__ for config in encoders.values())
        raise InputError(f"its text encoders ({names}) are not {kind.name}'s", where=file, remedy=ONE_MODEL) from None
    for name, width in made.items():
        if taken[name] != width:
            what = f"its {kind.part} takes {name} {taken[name]} wide, its text encoders make {width}"
            raise InputError(what, where=file, remedy=ONE_MODEL)


def _check_scheduler(source: Source, kind: Family) -> None:
    file = source.folder / SCHEDULER
    config = read_object(file)
    if "FlowMatch" in str(config.get("_class_name")) or config.get("prediction_type") == "flow_prediction":
        if kind.part == "unet":
            what = f"a scheduler of flow matching, and {kind.name} predicts noise or velocity at discrete levels"
            raise InputError(what, where=file, remedy=ONE_MODEL)
    elif kind.part != "unet":
        name = config.get("prediction_type") or config.get("_class_name")
        raise InputError(f"{name!r}, and {kind.name} is a model of flow matching", where=file, remedy=ONE_MODEL)
    check_schedule(config, file)
    with reading(file, "the config of a scheduler", remedy="fetch it again"):
        kind.path(config)


def check_header(folder: Path, cls: Any, variant: str | None) -> None:
    """Refuse a weights file whose header has not the names and shapes of its config.json.

    Raises:
        InputError: another shape, a name that is missing, or one without place.
    """
    held = part_header(folder, cls, variant).shapes
    file = folder / "config.json"
    wanted = _skeleton(cls, json.dumps(read_object(file)), str(file))
    held = {plain_name(name, cls) if name not in wanted else name: shape for name, shape in held.items()}
    held = {name: shape for name, shape in held.items() if not name.endswith(COUNTED)}
    for name in (name for name in wanted if held.get(name, wanted[name]) != wanted[name]):
        what = f"its weights hold {name} as {list(held[name])}, its config.json wants {list(wanted[name])}"
        raise InputError(what, where=folder, remedy="take both from one model")
    for names, what in ((wanted.keys() - held.keys(), "are missing"), (held.keys() - wanted.keys(), "have no place")):
        if names:
            what = f"{len(names)} of its weights {what} in the {cls.__name__} of its config.json, as {min(names)}"
            raise InputError(what, where=folder, remedy="take both from one model")


@functools.lru_cache(maxsize=16)
def _skeleton(cls: Any, config: str, file: str) -> Shapes:
    """The shapes of a network by name, from its config alone."""
    with quiet(), torch.device("meta"), reading(file, f"a config of {cls.__name__}", remedy="fetch it again"):
        return {name: tuple(value.shape) for name, value in cls.from_config(json.loads(config)).state_dict().items()}


def _check_said(source: Source) -> None:
    """A weights file may say in its header what the network predicts (`modelspec`); the scheduler must say the same."""
    held = part_header(source.folder / "unet", part_class(source, "unet"), source.variant)
    said = said_in(held)
    file = source.folder / SCHEDULER
    found = read_object(file).get("prediction_type", "epsilon")
    if said is not None and said != found:
        what = f"prediction_type is {found!r}, the UNet's weights say that they predict {held.metadata[SPEC]!r}"
        raise InputError(what, where=file, remedy="correct prediction_type if the weights are right")


def _check_embedding(folder: Path, cls: Any, variant: str | None) -> None:
    """A text encoder's table of words, as high and wide as its config says."""
    held = part_header(folder, cls, variant).shapes
    config = config_of(cls, folder / "config.json").get_text_config()
    wanted = (config.vocab_size, config.hidden_size)
    ends = ("token_embedding.weight", "embed_tokens.weight", "shared.weight")
    shape = next((shape for name, shape in held.items() if name.endswith(ends)), None)
    if shape != wanted:
        what = f"its words' table is {None if shape is None else list(shape)}, its config.json wants {list(wanted)}"
        raise InputError(what, where=folder, remedy="take both from one model")
