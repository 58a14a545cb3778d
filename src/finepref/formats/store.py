"""Columns that grow while votes are read: in memory, and beyond a number of rows in memory-mapped files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.formats.hashing import Hashes, dense_codes

IN_MEMORY = 20_000_000  # rows
BUCKETS = 256
PIECE = 1 << 22  # rows put into buckets together


class Store:
    """Named columns of numbers, and one of names ("id"), appended chunk by chunk.

    folder: where files go once there are more than `limit` rows (of the column `row`); None keeps all in memory.
    """

    def __init__(self, folder: Path | None, limit: int = IN_MEMORY) -> None:
        self.folder, self.limit = folder, limit
        self.chunks: dict[str, list[Any]] = {}
        self.types: dict[str, Any] = {}
        self.rows = 0
        self.on_disk = False
        self._names: Any = None

    def __contains__(self, name: str) -> bool:
        return name in self.types

    def add(self, name: str, chunk: Any) -> None:
        """Append an array (or, as "id", an Arrow string array)."""
        self.chunks.setdefault(name, []).append(chunk)
        self.types[name] = chunk.type if isinstance(chunk, pa.Array) else chunk.dtype
        self.rows += len(chunk) if name == "row" else 0

    def settle(self) -> None:
        """Between batches: move what is in memory to the files, if there is too much of it."""
        if self.folder is None or (self.rows <= self.limit and not self.on_disk):
            return
        self.on_disk = True
        for name, chunks in self.chunks.items():
            if name == "id":
                self._append_names(chunks)
            else:
                with open(self.folder / f"{name}.bin", "ab") as handle:
                    for chunk in chunks:
                        np.ascontiguousarray(chunk).tofile(handle)
            chunks.clear()

    def column(self, name: str) -> Any:
        """The whole column: an array, memory-mapped if it is on disk; "id" as a chunked Arrow array."""
        if name == "id":
            return self._all_names()
        if not self.on_disk:
            return np.concatenate(self.chunks[name])
        assert self.folder is not None
        return np.memmap(self.folder / f"{name}.bin", dtype=self.types[name], mode="r")

    def codes(self, *names: str) -> tuple[list[Any], int]:
        """Dense codes of columns of hashes that share one space of names, and how many names there are."""
        columns = [self.column(name) for name in names]
        if not self.on_disk:
            return dense_codes(*columns)
        assert self.folder is not None
        return codes_on_disk(columns, self.folder, names[0])

    def _append_names(self, chunks: list[Any]) -> None:
        assert self.folder is not None
        if self._names is None:
            self._names = pa.ipc.new_stream(self.folder / "id.arrow", pa.schema([("id", pa.string())]))
        for chunk in chunks:
            self._names.write_batch(pa.record_batch([chunk], names=["id"]))

    def _all_names(self) -> pa.ChunkedArray:
        if not self.on_disk:
            return pa.chunked_array(self.chunks["id"], pa.string())
        assert self.folder is not None
        self._names.close()
        return pa.ipc.open_stream(pa.memory_map(str(self.folder / "id.arrow"))).read_all().column(0)


def codes_on_disk(columns: list[Hashes], folder: Path, name: str) -> tuple[list[npt.NDArray[np.integer]], int]:
    """`dense_codes` of memory-mapped columns: rows go to 256 files by the hash's first byte, each of which is small."""
    total = sum(map(len, columns))
    row_file, hash_file = [[folder / f"{name}-{what}-{b}.bin" for b in range(BUCKETS)] for what in ("row", "hash")]
    offset = 0
    for column in columns:
        for start in range(0, len(column), PIECE):
            _scatter(np.asarray(column[start : start + PIECE]), offset + start, row_file, hash_file)
        offset += len(column)
    out = np.memmap(
        folder / f"{name}-codes.bin", dtype=np.int32 if total < 2**31 else np.int64, mode="w+", shape=(total,)
    )
    count = 0
    for rows_of, hashes_of in zip(row_file, hash_file, strict=True):
        if not rows_of.exists():
            continue
        known, codes = np.unique(np.fromfile(hashes_of, dtype=np.uint64), return_inverse=True)
        out[np.fromfile(rows_of, dtype=np.int64)] = count + codes
        count += len(known)
        rows_of.unlink()
        hashes_of.unlink()
    edges = np.cumsum([0, *map(len, columns)])
    return [out[a:b] for a, b in pairwise(edges)], count


def _scatter(hashes: Hashes, first_row: int, row_file: list[Path], hash_file: list[Path]) -> None:
    bucket = (hashes >> np.uint64(56)).astype(np.uint8)
    order = np.argsort(bucket, kind="stable")
    edges = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
    for b in range(BUCKETS):
        part = order[edges[b] : edges[b + 1]]
        if len(part):
            with open(row_file[b], "ab") as rows, open(hash_file[b], "ab") as values:
                (first_row + part).tofile(rows)
                hashes[part].tofile(values)
