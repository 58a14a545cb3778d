"""Models that can be generated with: what their names, paths and pipelines stand for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finepref.core.device import Precision
from finepref.core.errors import InputError
from finepref.core.files import read_object
from finepref.core.provenance import sha256_bytes, sha256_file
from finepref.formats.folders import STATE
from finepref.formats.run import at_start, at_step, is_finished, read_run

if TYPE_CHECKING:
    from finepref.models.quantized import Quantization

NOT_WEIGHTS = ("checkpoints", "samples", "cache", *STATE)


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model to generate with: how to load it, and what a reader of the results must know of it.

    load: (device, precision, quantisation) -> diffusers pipeline, called only when an image is missing. origin: path
    or hub id. fingerprint: changes when the weights do. rewards: names of the scorers whose values its training used.
    pipeline: diffusers class name.
    """

    load: Callable[[str, Precision, Quantization | None], Any]
    origin: str
    fingerprint: str
    rewards: tuple[str, ...] = ()
    pipeline: str = ""


def parse_models(words: Sequence[str]) -> dict[str, str]:
    """`["base=lab", "dpo=runs/dpo"]` -> name -> path; a repeated name or a word without `=` is an `InputError`."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise InputError(f"'{word}' is not NAME=PATH", where="model", remedy="for example base=lab")
        if name in found:
            raise InputError(f"'{name}' is given twice", where="model", remedy="give every model its own name")
        found[name] = path
    return found


def parse_integers(text: str, where: str) -> list[int]:
    """`"0,1,2"` -> [0, 1, 2]."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"'{text}' is not a list of integers", where=where, remedy="write 0,1,2") from None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`"1024x768"` -> (width, height); `"512"` -> (512, 512); None stays None."""
    if text is None:
        return None
    words = text.lower().split("x")
    if len(words) > 2 or not all(word.isdigit() and int(word) > 0 for word in words):
        raise InputError(f"'{text}' is not a size", where="size", remedy="write WIDTHxHEIGHT, such as 512x512")
    return int(words[0]), int(words[-1])


def as_source(model: NamedModel | str | Path | Any) -> NamedModel:
    """A model as a source: a path, a hub name, a loaded diffusers pipeline.

    A folder is hashed where it lies; anything else is loaded on the CPU, its weights hashed, and forgotten.

    Raises:
        InputError: a folder without weights, or no such model.
    """
    from finepref.models.load import open_pipeline
    from finepref.models.run_folder import run_model_settings
    from finepref.models.source import is_file, locate

    if isinstance(model, NamedModel):
        return model
    if not isinstance(model, str | Path):
        kind = type(model).__name__
        return NamedModel(lambda *_: model, origin=kind, fingerprint=pipeline_fingerprint(model), pipeline=kind)
    run_of = at_start(model)
    path = str(at_step(model)) if run_of is None else str(model)
    if is_file(path):
        return replace(as_source(locate(path).folder), origin=path)

    def load(device: str, precision: Precision, quantize: Quantization | None = None) -> Any:
        return open_pipeline(path, device=device, precision=precision, quantize=quantize)

    if run_of is not None:
        begun, vae = read_run(run_of), run_model_settings(run_of).get("vae")
        known = f"start of base {begun.base_content or begun.base_sha256} {begun.init_sha256} {vae}"
        return NamedModel(load, origin=path, fingerprint=sha256_bytes(known.encode()), pipeline=begun.family)
    if not os.path.isdir(folder := Path(path)):
        return replace(as_source(load("cpu", "no")), load=load, origin=path)
    run = read_run(folder) if is_finished(folder) else None
    base = "" if run is None else f"base {run.base_sha256}\n"
    return NamedModel(
        load,
        origin=path,
        fingerprint=sha256_bytes((base + folder_fingerprint(folder)).encode(errors="surrogateescape")),
        rewards=() if run is None else run.signals.rewards,
        pipeline=pipeline_class(folder) if run is None else run.family,
    )


def pipeline_fingerprint(pipeline: Any) -> str:
    """Hex SHA-256 over the weights of a loaded pipeline's modules, in name order."""
    import torch

    parts = []
    for name, component in sorted(pipeline.components.items()):
        if isinstance(component, torch.nn.Module):
            for key, tensor in sorted(component.state_dict().items()):
                plain = tensor.detach().cpu().contiguous()
                parts.append(f"{name}.{key} {sha256_bytes(plain.flatten().view(torch.uint8).numpy().tobytes())}")
    return sha256_bytes("\n".join(parts).encode())


def pipeline_class(folder: Path) -> str:
    """The diffusers class that a pipeline folder's model_index.json names; empty without one."""
    from finepref.models.negative_network import plain_class

    index = folder / "model_index.json"
    return plain_class(read_object(index)) if index.is_file() else ""


def folder_fingerprint(folder: Path) -> str:
    """Hash of the weight files of a folder and of the configs beside them; what a run goes on from does not count."""
    lines = []
    for path in sorted(folder.rglob("*.safetensors")) + sorted(folder.rglob("*.bin")):
        if path.relative_to(folder).parts[0] not in NOT_WEIGHTS:
            lines.append(f"{path.relative_to(folder).as_posix()} {sha256_file(path)}")
            config = path.parent / "config.json"
            if config.is_file():
                lines.append(sha256_file(config))
    if not lines:
        remedy = "give a run folder, a diffusers folder, a hub id or lab"
        raise InputError("no weights in it", where=folder, remedy=remedy)
    return "\n".join(lines)
