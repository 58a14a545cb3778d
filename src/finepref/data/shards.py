"""Shards of tensors with an index: written whole or not at all, read row by row from the mapped file.

A shard is `NAME.safetensors` (every tensor has the same first dimension) and `NAME.parquet` (one line per row or item).
The index is written last: a shard without it does not exist.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.files import atomic_file, parquet_columns, reading, write_parquet
from finepref.core.known import refuse_damaged
from finepref.core.seal import BLANK, KEY, seal
from finepref.formats.cache import SHARD
from finepref.formats.records import read_columns

REMEDY = "run `finepref cache` again, which makes anew what is lost"
DAMAGED = "remove this file, then " + REMEDY
STORAGE = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}


def write_shard(folder: Path, name: str, tensors: Mapping[str, Tensor], index: pa.Table) -> None:
    """Write a shard; after this returns it is complete and on the disk.

    The index that an older shard of this name left goes first, so that it never stands beside the new tensors.
    """
    (folder / f"{name}.parquet").unlink(missing_ok=True)
    with atomic_file(folder / f"{name}.safetensors") as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, str(temporary), metadata={KEY: BLANK})
        seal(temporary)
    write_parquet(folder / f"{name}.parquet", index)


def shard_names(folder: Path, *, known: Collection[str] = ()) -> list[str]:
    """Names of the complete shards in a folder, sorted, those left out that are `known`."""
    found = (path for path in folder.glob("*.parquet") if path.stem not in known)
    return sorted(path.stem for path in found if _is_whole(path.with_suffix(".safetensors")))


def _is_whole(path: Path) -> bool:
    try:
        _opened(path)
        parquet_columns(path.with_suffix(".parquet"))
    except InputError:
        return False
    return True


def _opened(path: Path) -> Any:
    """A shard as a mapped file; no tensor is read.

    Raises:
        InputError: it is missing, or not as long as its header says.
    """
    with reading(path, "a whole shard", remedy=REMEDY, missing=REMEDY):
        return safe_open(path, framework="pt")


def read_index(
    folder: Path, schema: pa.Schema, *, before: Mapping[str, str] | None = None, known: Collection[str] = ()
) -> pa.Table:
    """The indexes of all shards of a folder as one table, with the name of the shard in a column.

    before: as of `read_columns`. known: names of shards that are left out.
    """
    parts = []
    for name in shard_names(folder, known=known):
        part = read_columns(folder / f"{name}.parquet", schema, before=before)
        parts.append(part.append_column(SHARD, pa.array([name] * part.num_rows, pa.string())))
    full = schema.append(pa.field(SHARD, pa.string()))
    return pa.concat_tables(parts).select(full.names).cast(full) if parts else full.empty_table()


def footers(folder: Path) -> list[tuple[Path, dict[bytes, bytes]]]:
    """(index, what stands in its footer) of every complete shard of a folder."""
    paths = [folder / f"{name}.parquet" for name in shard_names(folder)]
    return [(path, dict(pq.read_schema(path).metadata or {})) for path in paths]


class ShardSet:
    """All shards of a folder behind one gather; that each is there and whole is checked first.

    names: of the shards. shard, rows: [N] of every item, which of them and where in it. needs: names of tensors that
    every shard must have.

    Raises:
        InputError: one is missing or cut short, has not all its rows, or holds other tensors.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        shard: NDArray[np.integer[Any]],
        rows: NDArray[np.integer[Any]],
        *,
        needs: Sequence[str] = (),
    ) -> None:
        self._folder, self._names, self._shard, self._row = folder, names, shard, rows
        lowest, highest = np.zeros((2, len(names)), dtype=rows.dtype)  # of another type this would be slow
        np.minimum.at(lowest, self._shard, self._row)
        np.maximum.at(highest, self._shard, self._row)
        kinds: list[dict[str, Any]] = []
        for name, least, most in zip(self._names, lowest.tolist(), highest.tolist(), strict=True):
            file = _opened(path := folder / f"{name}.safetensors")
            held = {each: file.get_slice(each) for each in file.keys()}  # noqa: SIM118
            lengths = [(part.get_shape() or [0])[0] for part in held.values()]
            if least < 0 or most >= min(lengths, default=0):
                raise InputError("the shard has fewer rows than the index says", where=path, remedy=REMEDY)
            kinds.append({each: (part.get_dtype(), len(part.get_shape())) for each, part in held.items()})
            if kinds[0] != kinds[-1] or not {*needs} <= {*held}:
                raise InputError("the shard holds other tensors", where=path, remedy=REMEDY)
        self._open: dict[int, dict[str, Tensor]] = {}

    def _tensors(self, number: int) -> dict[str, Tensor]:
        """The tensors of a shard by its number in name order, mapped: a row is read when it is asked for.

        Raises:
            InputError: its content has changed, which is looked for when it is first used.
        """
        if number not in self._open:
            path = self._folder / f"{self._names[number]}.safetensors"
            refuse_damaged(path, remedy=DAMAGED)
            file = _opened(path)
            self._open[number] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return self._open[number]

    def check(self) -> int:
        """Look now whether every shard has the content that it was written with; how many there are.

        Raises:
            InputError: one has not.
        """
        for number in range(len(self._names)):
            self._tensors(number)
        return len(self._names)

    def gather(self, items: NDArray[np.int64], *, pad: frozenset[str] = frozenset()) -> dict[str, Tensor]:
        """name -> [N,...] for the given items, in order; tensors in `pad` may differ in dimension 1 (zeros fill it)."""
        shards = self._shard[items]
        out: dict[str, Tensor] = {}
        for number in np.unique(shards).tolist():
            here = np.flatnonzero(shards == number)
            rows, place = torch.from_numpy(self._row[items[here]].astype(np.int64)), torch.from_numpy(here)
            for name, tensor in self._tensors(number).items():
                part = tensor[rows]
                if name not in out:
                    out[name] = part.new_zeros((len(items), *part.shape[1:]))
                if name in pad and part.shape[1] != out[name].shape[1]:
                    length = max(out[name].shape[1], part.shape[1])
                    out[name], part = _padded(out[name], length), _padded(part, length)
                out[name][place] = part
        return out


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(x, [0, 0] * (x.dim() - 2) + [0, length - x.shape[1]])
