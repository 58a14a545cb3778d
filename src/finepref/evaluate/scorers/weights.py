"""Weights from files, safely: safetensors, or a `.pt` that holds tensors and nothing else. Always float32 in memory."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from finepref.core.errors import InputError, first_line
from finepref.core.files import read_json, read_object, reading
from finepref.core.outfolders import refuse_changed
from finepref.core.provenance import hash_config, sha256_bytes, sha256_file
from finepref.formats.records import as_record

PROVENANCE_NAME = "finepref_scorer.json"
FOLDER_NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
POSITION_IDS = "position_ids"

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class WeightIndex:
    """The index of a model in several files: tensor -> file."""

    weight_map: Mapping[str, str]


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of `path`: the file itself, or what a transformers folder holds (shards sorted).

    Raises:
        InputError: there is no such path, or the folder holds none of `FOLDER_NAMES`.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError("no such file or folder", where=path, remedy="give the weights file or its folder")
    refuse_changed(path, remedy="convert it again with `finepref scorers convert`")
    for name in FOLDER_NAMES:
        found = path / name
        if found.is_file() and name.endswith(".index.json"):
            held = as_record(WeightIndex, read_json(found), where=found, remedy="fetch it again")
            shards = sorted(set(held.weight_map.values()))
            return [path / shard for shard in shards]
        if found.is_file():
            return [found]
    raise InputError("the folder holds no weights", where=path, remedy=f"it needs one of {', '.join(FOLDER_NAMES)}")


def weights_id(path: Path) -> str:
    """SHA-256 that names the weights of `path`.

    A folder that `finepref scorers convert` wrote is named by the official file it came from (its own file must still
    have the recorded hash), so official and converted weights give scores that may be compared.
    """
    digests = [sha256_file(file) for file in weight_files(path)]
    record = path / PROVENANCE_NAME
    if path.is_dir() and record.is_file():
        saved = read_object(record)
        if digests == [saved.get("file_sha256")] and isinstance(saved.get("source_sha256"), str):
            return str(saved["source_sha256"])
    return digests[0] if len(digests) == 1 else sha256_bytes("\n".join(digests).encode())


def _read_torch(path: Path) -> Any:
    with reading(path, "a readable weights file", remedy="download it again"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the pickle protocol of a file that is then refused
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            what = "the file holds Python objects beside tensors, and reading them could run code; refused"
            remedy = "use the official state_dict file or a safetensors file"
            raise InputError(f"{what} ({first_line(error)})", where=path, remedy=remedy) from None


def _read_safetensors(path: Path) -> Any:
    with reading(path, "a readable safetensors file", remedy="download it again", missing="download it again"):
        return load_file(path)


def read_state(path: Path) -> dict[str, Tensor]:
    """Name -> tensor (as saved, on the CPU) of a weights file or folder. Nothing is ever unpickled into objects.

    Args:
        path: `.safetensors`, `.pt`, `.pth`, `.bin`, `.ckpt` (a state dict, or a dict with `state_dict`), or a folder.

    Raises:
        InputError: missing, damaged, not a state dict, or a pickle with code in it (which does not run).
    """
    state: dict[str, Tensor] = {}
    for file in weight_files(path):
        if file.suffix not in (".safetensors", *TORCH_SUFFIXES):
            remedy = f"use .safetensors or one of {', '.join(TORCH_SUFFIXES)}"
            raise InputError(f"unknown kind of weights file {file.suffix!r}", where=file, remedy=remedy)
        part = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
        if isinstance(part, Mapping) and isinstance(part.get("state_dict"), Mapping):
            part = part["state_dict"]
        if not isinstance(part, Mapping) or not part or not all(isinstance(v, Tensor) for v in part.values()):
            raise InputError("not a state dict (name -> tensor)", where=file)
        for name, tensor in part.items():
            if not tensor.isfinite().all():
                remedy = "download it again"
                raise InputError(f"{name} holds values that are not finite", where=file, remedy=remedy)
        state.update({str(name).removeprefix("module."): tensor for name, tensor in part.items()})
    return state


def float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with floating-point tensors in float32: a checkpoint saved in fp16 scores in fp32."""
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def check_state(module: nn.Module, state: Mapping[str, Tensor], *, where: object) -> None:
    """Every tensor the module needs is there with its shape, and nothing else.

    Raises:
        InputError: names the first missing, unexpected or misshaped tensors.
    """
    wanted = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    faults = [f"missing {name}" for name in wanted if name not in state]
    faults += [f"unexpected {name}" for name in state if name not in wanted]
    faults += [
        f"{name} is {list(t.shape)} and should be {list(wanted[name])}"
        for name, t in state.items()
        if name in wanted and tuple(t.shape) != wanted[name]
    ]
    if faults:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        what = f"these weights are not of this model: {shown}"
        raise InputError(what, where=where, remedy="check the scorer's name against the file")


def build(
    make: Callable[[], Network], state: Mapping[str, Tensor], *, where: object, device: str | torch.device
) -> Network:
    """A module made on the meta device, given its weights (float32), in evaluation mode on `device`.

    `position_ids` buffers are not in any checkpoint; they count from 0.

    Raises:
        InputError: see `check_state`.
    """
    with torch.device("meta"):
        module = make()
    check_state(module, state, where=where)
    module.load_state_dict(float32(state), strict=True, assign=True)
    for part in module.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            if name == POSITION_IDS and buffer.is_meta:
                setattr(part, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return module.eval().requires_grad_(False).to(device)


def in_blocks(module: Callable[[Tensor], Tensor], x: Tensor, *, block: int = 16) -> Tensor:
    """module(x) row by row [N, W] -> [N, ...], always in blocks of `block` rows (the last one filled with zeros).

    A matrix product rounds differently for one row than for many; with blocks of one size a row's result does not
    depend on how many others there are.
    """
    padded = torch.nn.functional.pad(x, (0, 0, 0, -len(x) % block))
    return torch.cat([module(part) for part in padded.split(block)])[: len(x)]


def weight_names(network: str) -> dict[str, dict[str, str]]:
    """The tables of names of a network in weight_names.json."""
    found: dict[str, dict[str, str]] = read_json(Path(__file__).with_name("weight_names.json"))[network]
    return found


def drop(state: Mapping[str, Tensor], names: Iterable[str], prefixes: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The state without these names (whole, or the last part of a dotted name) and prefixes."""
    gone = set(names)
    return {
        name: tensor
        for name, tensor in state.items()
        if name not in gone and name.rsplit(".", 1)[-1] not in gone and not name.startswith(prefixes)
    }


def fingerprint(identity: Mapping[str, object]) -> str:
    """16 hex digits of what decides a score: scorer and its version, weights, preprocessing, text path, precision."""
    return hash_config(identity)[:16]


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Inference in true float32: no autocast of the caller, no TF32 in matrix products or convolutions."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution
