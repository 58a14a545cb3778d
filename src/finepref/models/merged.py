"""A base with what a run changed in place of its own: one whole pipeline folder. What is untouched is copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import read_object, write_json
from finepref.core.outfolders import whole_folder
from finepref.formats.folders import EXPORT
from finepref.models.negative_network import MODULE, guided_index
from finepref.models.precision import to_half
from finepref.models.source import INDEX, Source, quiet
from finepref.models.variant import is_twin, name_plainly

GUIDED = Path(__file__).with_name("guided_pipelines.py")


def write_merged(
    pipe: Any, source: Source, out: Path, changed: Sequence[str], *,
    half: bool, made: str, second: Mapping[str, Any] | None,
) -> Path:  # fmt: skip
    """Copy the base, then write what is not its own in place of it: what the run changed, all networks halved.

    changed: the denoiser, text encoders that were trained, another VAE. second: a network beside them, by its name.
    """
    base, second = source.folder, second or {}
    changed = [*changed, *second]
    networks = {name: each for name, each in pipe.components.items() if hasattr(each, "state_dict")} | {**second}
    replaced = {name: each for name, each in networks.items() if half or name in changed}
    for name, network in replaced.items() if half else ():
        for key, tensor in network.state_dict().items():
            to_half(f"{name}.{key}", tensor)
        with quiet():
            network.half()
    pickled, strays = (".bin", ".ckpt", ".msgpack"), (".bin", ".ckpt", ".msgpack", ".safetensors", ".md", ".sha256")

    def left_out(folder: str, names: list[str]) -> list[str]:
        """What is not copied: of the base's own folder what is replaced and stray files, below it pickled ones."""
        if Path(folder) != base:
            return [name for name in names if name.endswith(pickled) or is_twin(name, names, source.variant)]
        return [name for name in names if name in replaced or name.startswith(".") or name.endswith(strays)]

    with whole_folder(out, EXPORT, fingerprint=made) as place:
        shutil.copytree(base, place, dirs_exist_ok=True, ignore=checked(left_out))
        name_plainly(place, source.variant)
        with quiet():
            for name, module in replaced.items():
                module.save_pretrained(str(place / name), safe_serialization=True)
                if name not in changed:  # its config names the type that it is used in
                    shutil.copyfile(base / name / "config.json", place / name / "config.json")
        if "vae" in changed:
            write_json(place / INDEX, {**read_object(place / INDEX), "vae": ["diffusers", type(pipe.vae).__name__]})
        for name in second:
            write_json(place / INDEX, guided_index(read_object(place / INDEX), name.removeprefix("negative_")))
            shutil.copyfile(GUIDED, place / f"{MODULE}.py")
    return out


def checked(left_out: Callable[[str, list[str]], Iterable[str]]) -> Callable[[str, list[str]], set[str]]:
    """What a copy of a folder leaves out; the rest of it must be files, and folders that end.

    Raises:
        InputError: a link that leads nowhere or to a folder above it, a pipe, a device.
    """

    def left(folder: str, names: list[str]) -> set[str]:
        out = {*left_out(folder, names)}
        for path in (Path(folder) / name for name in names if name not in out):
            if not os.path.exists(path):
                what = "it is a link that leads nowhere"
            elif path.is_dir() and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(path)):
                what = "it is a link to a folder that it lies in itself"
            elif not (path.is_dir() or path.is_file()):
                what = "it is neither a file nor a folder"
            else:
                continue
            raise InputError(what, where=path, remedy="move it away")
        return out

    return left
