"""A single-file checkpoint by its header: what it is, which part each of its tensors belongs to, what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from finepref.core.errors import InputError
from finepref.core.files import read_json, reading
from finepref.models.header import Header, refuse_types
from finepref.models.layouts import LEFT_OUT, FilePart
from finepref.models.original import Piece, pieces
from finepref.models.source import Source, empty_part, part_class

_DENOISERS = ("model.diffusion_model.", "double_blocks.", "joint_blocks.")
_VAES = ("encoder.", "decoder.", "first_stage_model.", "vae.")
_LORAS = ("lora_", "_lora.", "hada_w", "lokr_w", ".lora.", ".boft_", ".oft_", ".ia3_", ".vera_", ".hra_")
_FAMILIES = {
    "conditioner.embedders.": "StableDiffusionXLPipeline",
    "cond_stage_model.": "StableDiffusionPipeline",
    "joint_blocks.": "StableDiffusion3Pipeline",
    "double_blocks.": "FluxPipeline",
}
OWN = "name a diffusers folder of its own family as model.config"


@dataclass(frozen=True, slots=True)
class Held:
    """A part of a pipeline that a file holds. prefix: of its names there. pieces: as in `original.pieces`.

    shapes: of its tensors in diffusers.
    """

    part: FilePart
    prefix: str
    pieces: Mapping[str, Piece]
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Accounted:
    """Every tensor of a file: the parts that it holds, those that it lacks, and what is left out, reason -> names."""

    held: Sequence[Held]
    lacking: Sequence[str]
    left_out: Mapping[str, Sequence[str]]


def is_lora(header: Header) -> bool:
    """Whether a file holds a LoRA, by the names of its tensors."""
    return any(mark in name for name in header.shapes for mark in _LORAS)


def require_checkpoint(header: Header) -> None:
    """Refuse a file that is no text-to-image checkpoint in an original layout.

    Raises:
        InputError: a LoRA, a VAE, a part of a diffusers folder, a checkpoint of another task, or something else.
    """
    if is_lora(header):
        raise InputError("it is a LoRA, not a base model", where=header.path, remedy="give it as model.init_from")
    if not header.any(*_DENOISERS):
        if header.any("first_stage_model.", "vae.", "encoder.down", "decoder.up"):
            raise InputError("it is a VAE, not a base model", where=header.path, remedy="give it as model.vae")
        if header.any("down_blocks.", "transformer_blocks.", "text_model."):
            remedy = "give the whole folder that it came in"
            raise InputError(
                "it is one part of a diffusers pipeline, not a base model", where=header.path, remedy=remedy
            )
        first = min(header.shapes)
        remedy = "give a checkpoint of SD1.5, SD2, SDXL, SD3 or FLUX.1 in its original layout"
        raise InputError(f"no denoiser is in it; its first tensor is {first!r}", where=header.path, remedy=remedy)
    channels = header.shapes.get("model.diffusion_model.input_blocks.0.0.weight", (0, 4))[1]
    if channels in (8, 9):
        task = "inpainting" if channels == 9 else "editing pictures"
        what = f"its UNet reads {channels} channels: a checkpoint for {task}"
        raise InputError(what, where=header.path, remedy="give one that makes pictures from text alone")


def account(header: Header, source: Source, parts: Sequence[FilePart]) -> Accounted:
    """Which part of the pipeline `source` every tensor of a file belongs to.

    source: configs of the parts.

    Raises:
        InputError: a file of another pipeline; a tensor that belongs nowhere, or lacks, or has another shape.
    """
    pipeline = source.index.get("_class_name")
    begins = {name.removeprefix("model.diffusion_model.") for name in header.shapes}
    other = next((cls for mark, cls in _FAMILIES.items() if any(name.startswith(mark) for name in begins)), pipeline)
    if other != pipeline:
        what = f"it is a checkpoint of a {other}, and {source.name} is a {pipeline}"
        raise InputError(what, where=header.path, remedy=OWN)
    held, lacking, left = [], [], dict(LEFT_OUT)
    for part in parts:
        config = read_json(source.folder / part.name / "config.json") if source.has(part.name) else None
        if config is None or not part.when(config):
            continue
        found = hold(header, part, source, config)
        if found is None:
            lacking.append(part.name)
            continue
        held.append(found)
        if part.prefixes == ("cond_stage_model.model.",):  # SD2 conditions on the last but one layer
            unread = f"{part.prefixes[0]}transformer.resblocks.{config['num_hidden_layers']}.*"
            left["the last layer of the text encoder, which SD2 does not read"] = (unread,)
    used = {each.prefix + name for each in held for name in [*each.pieces, *dict(each.part.tied)]}
    rest = [name for name in header.shapes if name not in used]
    return Accounted(held, lacking, left_out(header, rest, source, left))


def refuse_others(header: Header, held: Held, source: Source, parts: Sequence[FilePart], *, option: str) -> list[Held]:
    """The other parts of the pipeline that a file holds beside one that is asked for.

    Raises:
        InputError: there are tensors of no part.
    """
    others = []
    for part in parts:
        if part.name != held.part.name and source.has(part.name):
            config = read_json(source.folder / part.name / "config.json")
            found = hold(header, part, source, config) if part.when(config) else None
            others += [found] if found is not None else []
    used = {each.prefix + name for each in (held, *others) for name in [*each.pieces, *dict(each.part.tied)]}
    left_out(header, [name for name in header.shapes if name not in used], source)
    return others


def left_out(
    header: Header, names: Sequence[str], source: Source, known: Mapping[str, Sequence[str]] = LEFT_OUT
) -> dict[str, list[str]]:
    """Reason -> names, of tensors that are no weights of a part.

    Raises:
        InputError: one that has no reason.
    """
    found: dict[str, list[str]] = {}
    strange = []
    for name in sorted(names):
        reason = next((why for why, ends in known.items() if any(fnmatchcase(name, end) for end in ends)), None)
        found.setdefault(reason, []).append(name) if reason is not None else strange.append(name)
    if strange:
        what = f"{len(strange)} of its tensors have no place in the {source.index.get('_class_name')} {source.name}"
        what = f"{what}, the first is {strange[0]!r}"
        raise InputError(what, where=header.path, remedy=OWN)
    return found


def likest(header: Header, parts: Sequence[FilePart], source: Source, config: Mapping[str, Any]) -> FilePart:
    """The one of several layouts of a part in which a file has most names."""
    names = list(empty_network(source, parts[0].name).state_dict())
    return max(parts, key=lambda part: _prefix(header, part, pieces(part.layout(config, names), names))[1])


def _prefix(header: Header, part: FilePart, names: Iterable[str]) -> tuple[str, int]:
    """(the part's prefix with which most of these names are in a file, how many)."""
    names = list(names)
    return max(
        ((prefix, sum(prefix + name in header.shapes for name in names)) for prefix in part.prefixes),
        key=lambda found: found[1],
    )


def hold(header: Header, part: FilePart, source: Source, config: Mapping[str, Any]) -> Held | None:
    """A part in a file; None where the file has nothing of it.

    Raises:
        InputError: some of its tensors lack or have another shape.
    """
    shapes = {name: tuple(t.shape) for name, t in empty_network(source, part.name).state_dict().items()}
    for name, _ in part.tied:
        shapes.pop(name, None)
    made = pieces(part.layout(config, shapes), shapes)
    prefix, number = _prefix(header, part, made)
    if not number:
        return None
    made = {n: piece for n, piece in made.items() if n not in part.identity or prefix + n in header.shapes}
    place = f"the {part.name} of {source.name}"
    if missing := [prefix + name for name in made if prefix + name not in header.shapes]:
        what = f"{len(missing)} tensors of {place} lack, the first is {missing[0]!r}"
        raise InputError(what, where=header.path, remedy="the file is not whole, or of another architecture")
    refuse_types(header, [prefix + name for name in made])
    for name, piece in made.items():
        wanted, has = piece.shape(shapes), header.shapes[prefix + name]
        if has != wanted and not (piece.form == "conv" and has == wanted[:2]):
            what = f"{prefix + name} is {_times(has)}, and {place} has {_times(wanted)}"
            raise InputError(what, where=header.path, remedy=OWN)
    return Held(part, prefix, made, shapes)


def empty_network(source: Source, part: str) -> Any:
    """A network of the pipeline on the meta device, of diffusers or transformers."""
    if source.index[part][0] != "transformers":
        return empty_part(source, part)
    cls, folder = part_class(source, part), source.folder / part
    with reading(folder, f"a config of {cls.__name__}", remedy="fetch it again"), torch.device("meta"):
        return cls(cls.config_class.from_pretrained(str(folder)))


def read_part(header: Header, held: Held) -> dict[str, torch.Tensor]:
    """The tensors of a part by their names in diffusers, in the type that the file has.

    Raises:
        InputError: numbers that are not finite.
    """
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    what = "a whole safetensors file"
    with reading(header.path, what, remedy="fetch it again"), safe_open(str(header.path), "pt") as file:
        for name, piece in held.pieces.items():
            tensor = file.get_tensor(held.prefix + name)
            if not torch.isfinite(tensor.float()).all():
                what = f"{held.prefix + name} holds numbers that are not finite"
                raise InputError(what, where=header.path, remedy="fetch it again, or take another model")
            tensors |= piece.split(tensor, held.shapes)
        for name, other in held.part.tied:
            again = held.prefix + name
            if again in header.shapes and not torch.equal(file.get_tensor(again), tensors[other]):
                what = f"{again} and {held.prefix + other} must be equal, and differ"
                raise InputError(what, where=header.path, remedy="take another file of this model")
            tensors[name] = tensors[other]
    for name in held.part.identity:
        if name not in tensors and name in held.shapes:
            tensors[name] = torch.eye(held.shapes[name][0], dtype=next(iter(tensors.values())).dtype)
    return tensors


def told_left_out(account: Accounted) -> str:
    """What is left out, in words."""
    counts = Counter({why: len(names) for why, names in account.left_out.items()})
    return "; ".join(f"{number} left out: {why}" for why, number in counts.items())


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"
