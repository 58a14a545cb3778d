"""The lab's weights as package data, and the plain diffusers folder made from them.

Weights are float16 safetensors in shards of less than 2 MiB, `<part>.<number>.safetensors`, with `recipe.json` beside.
A part is "vae", "base.text_encoder", "base.unet", "early.text_encoder", "early.unet" or "reward".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finepref.core.errors import InputError, nearest
from finepref.core.files import atomic_file, read_json, read_object, write_json
from finepref.core.outfolders import check_folder, whole_folder
from finepref.core.provenance import sha256_bytes, sha256_file
from finepref.formats.folders import MODEL

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights"
SHARD_BYTES = 1_900_000
VARIANTS = ("base", "early")
FORMAT = 1
"""Raise it when the same weights should give another folder."""


def write_part(name: str, state: Mapping[str, Tensor], *, folder: Path = WEIGHTS) -> None:
    """Write a part's tensors as float16 shards; shards of an older version are removed."""
    from safetensors.torch import save_file

    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key in sorted(state):
        tensor = state[key].detach().half().contiguous()
        if filled and filled + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][key] = tensor
        filled += tensor.nbytes
    for old in _shards(name, folder):
        old.unlink()
    for number, shard in enumerate(shards):
        with atomic_file(folder / f"{name}.{number}.safetensors") as temporary:
            save_file(shard, temporary)


def _shards(name: str, folder: Path) -> list[Path]:
    files = [f for f in folder.glob(f"{name}.*.safetensors") if f.name.rsplit(".", 2)[0] == name]
    return sorted(files, key=lambda f: int(f.name.split(".")[-2]))


def part_files(name: str, *, folder: Path = WEIGHTS) -> list[Path]:
    """The shards of a part, in order.

    Raises:
        InputError: none is there.
    """
    files = _shards(name, folder)
    if not files:
        raise InputError(f"the lab weights of {name!r} are missing", where=folder, remedy="install finepref again")
    return files


def read_part(name: str, *, folder: Path = WEIGHTS) -> dict[str, Tensor]:
    """A part's tensors as float32."""
    from safetensors.torch import load_file

    return {key: tensor.float() for f in part_files(name, folder=folder) for key, tensor in load_file(f).items()}


@functools.cache
def fingerprint(variant: str) -> str:
    """Hex SHA-256 of everything that decides the folder of a variant."""
    names = ("vae", f"{variant}.text_encoder", f"{variant}.unet")
    hashes = {f.name: sha256_file(f) for name in names for f in part_files(name)}
    return sha256_bytes(json.dumps([FORMAT, variant, hashes], sort_keys=True).encode())


def pipeline(variant: str = "base", *, weights: Path = WEIGHTS) -> Any:
    """The lab's StableDiffusionPipeline in memory, float32, in eval mode.

    Args:
        variant: "base", or "early" for the same training stopped earlier.

    Raises:
        InputError: unknown variant.
    """
    from diffusers import StableDiffusionPipeline

    from finepref.lab import architecture

    if variant not in VARIANTS:
        raise InputError(f"unknown lab model {variant!r}", remedy=nearest(variant, VARIANTS))
    vae = architecture.autoencoder(scaling_factor=read_json(weights / "recipe.json")["scaling_factor"])
    parts = {"text_encoder": architecture.text_encoder(), "unet": architecture.unet()}
    vae.load_state_dict(read_part("vae", folder=weights))
    for name, module in parts.items():
        module.load_state_dict(read_part(f"{variant}.{name}", folder=weights))
    made: Any = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=parts["text_encoder"].eval(),
        unet=parts["unet"].eval(),
        tokenizer=architecture.tokenizer(),
        scheduler=architecture.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def materialise(folder: str | Path, variant: str = "base") -> Path:
    """Write the lab's model as a complete diffusers folder, float32; nothing is done when it is already there.

    `lab.json` in the folder holds the fingerprint of the weights and the hash of every file; a folder that does not
    match is replaced whole.

    Args:
        folder: where the model goes; it belongs to this function.
        variant: "base" or "early".

    Returns:
        `folder`, which `StableDiffusionPipeline.from_pretrained` loads.

    Raises:
        InputError: unknown variant, or `folder` holds something else.
    """
    folder = Path(folder)
    if variant not in VARIANTS:
        raise InputError(f"unknown lab model {variant!r}", remedy=nearest(variant, VARIANTS))
    if _complete(folder, variant):
        return folder
    from finepref.models.source import quiet

    check_folder(folder, MODEL)
    made = pipeline(variant)
    with whole_folder(folder, MODEL, fingerprint=fingerprint(variant), wait=True) as place, quiet():
        made.save_pretrained(place)
        files = {f.relative_to(place).as_posix(): sha256_file(f) for f in sorted(place.rglob("*")) if f.is_file()}
        write_json(place / "lab.json", {"variant": variant, "fingerprint": fingerprint(variant), "files": files})
    return folder


def _complete(folder: Path, variant: str) -> bool:
    """Whether `folder` holds all that `materialise` would write."""
    if not (folder / "lab.json").is_file():
        return False
    record = read_object(folder / "lab.json")
    if record.get("fingerprint") != fingerprint(variant):
        return False
    files = {folder / name: digest for name, digest in record["files"].items()}
    return all(file.is_file() and sha256_file(file) == digest for file, digest in files.items())
