"""Shards of tensors with an index: written whole or not at all, read row by row from the mapped file.

A shard is `NAME.safetensors` (every tensor has the same first dimension) and `NAME.parquet` (one line per row or item).
The index is written last: a shard without it does not exist.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.files import atomic_file, write_parquet
from finepref.formats.cache import SHARD

STORAGE = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}
_NUMPY = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "BOOL": np.dtype("?"),
}


def write_shard(folder: Path, name: str, tensors: Mapping[str, Tensor], index: pa.Table) -> None:
    """Write a shard; after this returns it is complete and on the disk.

    The index that an older shard of this name left goes first, so that it never stands beside the new tensors.
    """
    (folder / f"{name}.parquet").unlink(missing_ok=True)
    with atomic_file(folder / f"{name}.safetensors") as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, str(temporary))
    write_parquet(folder / f"{name}.parquet", index)


def shard_names(folder: Path) -> list[str]:
    """Names of the complete shards in a folder, sorted."""
    return sorted(p.stem for p in folder.glob("*.parquet") if _is_whole(p.with_suffix(".safetensors")))


def _is_whole(path: Path) -> bool:
    try:
        shard_header(path)
    except InputError:
        return False
    return True


def shard_header(path: Path) -> tuple[int, dict[str, Any]]:
    """(where the tensors start, name -> their type, shape and place) of a shard; no tensor is read.

    Raises:
        InputError: it is missing, or shorter than its header says.
    """
    remedy = "run `finepref cache` again, which makes anew what is lost"
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(length))
        header.pop("__metadata__", None)
        wanted, held = 8 + length + max(entry["data_offsets"][1] for entry in header.values()), path.stat().st_size
        if held != wanted:
            raise ValueError(f"{held} bytes instead of {wanted}")
    except FileNotFoundError:
        raise InputError("the shard is missing", where=path, remedy=remedy) from None
    except (OSError, ValueError, KeyError, AttributeError, MemoryError, OverflowError, struct.error) as error:
        raise InputError(f"the shard is damaged ({error})", where=path, remedy=remedy) from None
    return 8 + length, header


def read_index(folder: Path, schema: pa.Schema) -> pa.Table:
    """The indexes of all shards of a folder as one table, with the name of the shard in a column."""
    parts = []
    for name in shard_names(folder):
        part = pq.read_table(folder / f"{name}.parquet")
        parts.append(part.append_column(SHARD, pa.array([name] * part.num_rows, pa.string())))
    full = schema.append(pa.field(SHARD, pa.string()))
    return pa.concat_tables(parts).select(full.names).cast(full) if parts else full.empty_table()


class Shard:
    """Rows of one safetensors file through memory maps; the file is not read before a row is asked for."""

    def __init__(self, path: Path) -> None:
        self._maps: dict[str, tuple[NDArray[Any], bool]] = {}
        start, header = shard_header(path)
        for name, entry in header.items():
            kind: Any = _NUMPY[entry["dtype"]]
            at = start + entry["data_offsets"][0]
            mapped = np.memmap(path, dtype=kind, mode="r", offset=at, shape=tuple(entry["shape"]))
            self._maps[name] = (mapped, entry["dtype"] == "BF16")

    def names(self) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(self._maps)

    def rows(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        """Rows of one tensor in the given order, as stored; a copy."""
        mapped, bfloat = self._maps[name]
        taken = torch.from_numpy(np.asarray(mapped[rows]))
        return taken.view(torch.int16).view(torch.bfloat16) if bfloat else taken


class ShardSet:
    """All shards of a folder behind one gather; that each is there and whole is checked first.

    Raises:
        InputError: one is missing or cut short.
    """

    def __init__(self, folder: Path, shards: Sequence[str], rows: Sequence[int]) -> None:
        self._folder = folder
        self._names = sorted(set(shards))
        for name in self._names:
            shard_header(folder / f"{name}.safetensors")
        place = {name: i for i, name in enumerate(self._names)}
        self._shard = np.fromiter((place[s] for s in shards), dtype=np.int64, count=len(shards))
        self._row = np.asarray(rows, dtype=np.int64)
        self._open: dict[int, Shard] = {}

    def shard(self, number: int) -> Shard:
        """A shard by its number in name order, opened once."""
        if number not in self._open:
            self._open[number] = Shard(self._folder / f"{self._names[number]}.safetensors")
        return self._open[number]

    def gather(self, items: NDArray[np.int64], *, pad: frozenset[str] = frozenset()) -> dict[str, Tensor]:
        """name -> [N,...] for the given items, in order; tensors in `pad` may differ in dimension 1 (zeros fill it)."""
        shards = self._shard[items]
        out: dict[str, Tensor] = {}
        for number in np.unique(shards).tolist():
            here = np.flatnonzero(shards == number)
            shard = self.shard(number)
            for name in shard.names():
                part = shard.rows(name, self._row[items[here]])
                if name not in out:
                    out[name] = part.new_zeros((len(items), *part.shape[1:]))
                if name in pad and part.shape[1] != out[name].shape[1]:
                    length = max(out[name].shape[1], part.shape[1])
                    out[name], part = _padded(out[name], length), _padded(part, length)
                out[name][torch.from_numpy(here)] = part
        return out


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(x, [0, 0] * (x.dim() - 2) + [0, length - x.shape[1]])
