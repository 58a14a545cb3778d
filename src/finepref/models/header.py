"""The headers of weight files: names, shapes and types of tensors, of one file or of all the shards of a part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import read_object, reading
from finepref.core.known import refuse_damaged
from finepref.core.outfolders import refuse_changed

PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
DAMAGED = "export or train it again"
COUNTED = "position_ids"  # 0, 1, 2, ..., which older files hold and no network reads
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_WHOLE = (COUNTED, "num_batches_tracked", "relative_position_index")
"""How the names of tensors end that are no weights, and hold integers."""
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Attention of VAEs as diffusers wrote it before 0.17, and renames it when it loads."""


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a safetensors file, or of several. shapes, types: of its tensors by name (F32, BF16, I8, ...).

    metadata: of whoever wrote it.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]
    metadata: Mapping[str, str]

    def any(self, *prefixes: str) -> bool:
        """Whether a tensor's name begins so."""
        return any(name.startswith(prefixes) for name in self.shapes)


def read_header(path: Path) -> Header:
    """The header of a safetensors file; its end is checked too, so that a cut file is refused.

    Raises:
        InputError: another kind of file, a damaged one, an empty one, or one that we wrote and has changed since.
    """
    if path.suffix.lower() in PICKLED:
        what = f"a {path.suffix} file is a pickle, which may run code when it is opened, and is never read"
        raise InputError(what, where=path, remedy="take the .safetensors file of the same model")
    from safetensors import safe_open

    what = "a whole safetensors file"
    with reading(path, what, remedy="fetch it again", missing="check the path"), safe_open(str(path), "pt") as file:
        refuse_damaged(path, remedy=DAMAGED)
        refuse_changed(path, remedy=DAMAGED)
        held = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        if not held:
            raise InputError("it holds no tensors", where=path, remedy="fetch it again")
        shapes = {name: tuple(each.get_shape()) for name, each in held.items()}
        return Header(path, shapes, {name: each.get_dtype() for name, each in held.items()}, file.metadata() or {})


def part_header(folder: Path, cls: Any, variant: str | None = None) -> Header:
    """The header of the safetensors file, or of all its shards, that a class of weights reads in a part's folder.

    Raises:
        InputError: no safetensors file, a damaged one, a tensor that is there twice, or one that is no float.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    types: dict[str, str] = {}
    metadata: dict[str, str] = {}
    places: dict[str, str] = {}
    for held in map(read_header, _weight_files(folder, cls, variant)):
        refuse_types(held, held.shapes)
        for name in held.shapes:
            place = f"{name} of {held.path.name}"
            if (other := places.setdefault(plain_name(name, cls), place)) != place or name in shapes:
                what = f"one weight is there twice, as {other} and as {place}"
                raise InputError(what, where=folder, remedy="fetch it again, or remove what does not belong there")
        shapes, types, metadata = {**shapes, **held.shapes}, {**types, **held.types}, {**metadata, **held.metadata}
    return Header(folder, shapes, types, metadata)


def saved_type(folder: Path, cls: Any, variant: str | None = None) -> str | None:
    """The type that a part's weights are saved in, as F32 or BF16; None where they are in several."""
    types = {kind for name, kind in part_header(folder, cls, variant).types.items() if not name.endswith(_WHOLE)}
    return types.pop() if len(types) == 1 else None


def plain_name(name: str, cls: Any) -> str:
    """The name that a class of weights knows a tensor by, for one of the other names under which it finds it."""
    if cls.__module__.startswith("transformers."):
        return name.removeprefix(f"{cls.base_model_prefix}.").removeprefix("text_model.")
    for old, new in _OLD_NAMES.items():
        name = name.replace(old, new)
    return name


def refuse_types(header: Header, names: Iterable[str]) -> None:
    """Refuse weights that are no floats: integers and their like stand for other numbers, by scales that nobody reads.

    Raises:
        InputError: names the tensor.
    """
    for name in names:
        if header.types[name] not in FLOATS and not name.endswith(_WHOLE):
            what = f"{name} holds {header.types[name]}, and weights are floats"
            raise InputError(what, where=header.path, remedy="give the float weights")


def _weight_files(folder: Path, cls: Any, variant: str | None) -> list[Path]:
    stem = "model" if cls.__module__.startswith("transformers.") else "diffusion_pytorch_model"
    infix = "" if variant is None else f".{variant}"
    index, plain = folder / f"{stem}.safetensors.index{infix}.json", folder / f"{stem}{infix}.safetensors"
    if index.is_file() and plain.is_file():
        what = f"its weights are there twice, as {plain.name} and by {index.name}"
        raise InputError(what, where=folder, remedy="remove one of them")
    if index.is_file():
        with reading(index, "a list of weight files", remedy="fetch it again"):
            return [folder / name for name in sorted({*read_object(index)["weight_map"].values()})]
    for found in (plain, folder / f"{stem}.safetensors"):
        if found.is_file():
            return [found]
    pickled = sorted(path.name for end in (".bin", ".ckpt", ".pt", ".pth") for path in folder.glob(f"*{end}"))
    if pickled:
        what = f"its weights are pickled ({pickled[0]}), and a pickle may run code"
        raise InputError(what, where=folder, remedy="save them as .safetensors with the tool that made them")
    raise InputError(f"it holds no {plain.name}", where=folder, remedy="fetch the model again")
