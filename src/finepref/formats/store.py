"""Columns that grow while votes are read: in memory, and beyond a number of rows in memory-mapped files.

Names of images and prompts are 64-bit hashes there, so that a billion of them need eight bytes each.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

IN_MEMORY = 2_000_000  # rows
BUCKETS = 256
PIECE = 1 << 15  # names that are hashed at once
ENTRY = np.dtype([("row", np.int64), ("hash", np.uint64)])
PIECE = 1 << 22  # rows put into buckets together
Hashes = npt.NDArray[np.uint64]

_WORD = 8
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)
_FINISH = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)


class Store:
    """Named columns of numbers, and one of names ("id"), appended chunk by chunk.

    folder: where files go once there are more than `limit` rows (of the column `row`); None keeps all in memory.
    """

    def __init__(self, folder: Path | None, limit: int = IN_MEMORY) -> None:
        self.folder, self.limit = folder or Path(), float("inf") if folder is None else limit
        self.chunks: dict[str, list[Any]] = {}
        self.types: dict[str, Any] = {}
        self.rows = 0
        self.repeats = 0
        self.on_disk = False
        self._names: Any = None

    def __contains__(self, name: str) -> bool:
        return name in self.types

    def add(self, name: str, chunk: Any) -> None:
        """Append an array (or, as "id", an Arrow string array)."""
        self.chunks.setdefault(name, []).append(chunk)
        self.types[name] = chunk.type if isinstance(chunk, pa.Array) else chunk.dtype
        self.rows += len(chunk) if name == "row" else 0
        self.repeats += int(chunk.sum()) if name == "repeats" else 0

    @property
    def votes(self) -> int:
        """How many votes the rows are: their column `repeats` says how many each is."""
        return self.repeats if "repeats" in self else self.rows

    def replace(self, columns: dict[str, Any]) -> None:
        """Other columns instead of all that are there; they are in memory."""
        self.chunks, self.rows, self.repeats = {}, 0, 0
        for name, values in columns.items():
            self.add(name, values)

    def settle(self) -> None:
        """Between batches: move what is in memory to the files, if there is too much of it."""
        if self.rows <= self.limit and not self.on_disk:
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
        if not self.on_disk:
            if name == "id":
                return pa.chunked_array(self.chunks[name])
            if len(self.chunks[name]) > 1:
                self.chunks[name] = [np.concatenate(self.chunks[name])]
            return self.chunks[name][0]
        if name == "id":
            self._names.close()
            return pa.ipc.open_stream(pa.memory_map(str(self.folder / "id.arrow"))).read_all().column(0)
        return np.memmap(self.folder / f"{name}.bin", dtype=self.types[name], mode="r")

    def codes(self, *names: str) -> tuple[list[Any], int]:
        """Dense codes of columns of hashes that share one space of names, and how many names there are."""
        columns = [self.column(name) for name in names]
        if not self.on_disk:
            return dense_codes(*columns)
        return codes_on_disk(columns, self.folder, names[0])

    def _append_names(self, chunks: list[Any]) -> None:
        if self._names is None:
            self._names = pa.ipc.new_stream(self.folder / "id.arrow", pa.schema([("id", pa.string())]))
        for chunk in chunks:
            self._names.write_batch(pa.record_batch([chunk], names=["id"]))


def codes_on_disk(columns: list[Hashes], folder: Path, name: str) -> tuple[list[npt.NDArray[np.integer]], int]:
    """`dense_codes` of memory-mapped columns: rows go to 256 files by the hash's first byte, each of which is small."""
    edges = np.cumsum([0, *map(len, columns)])
    files = [folder / f"{name}-{bucket}.bin" for bucket in range(BUCKETS)]
    for first, column in zip(edges, columns, strict=False):
        for start in range(0, len(column), PIECE):
            _scatter(np.asarray(column[start : start + PIECE]), int(first) + start, files)
    kind, shape = np.int32 if edges[-1] < 2**31 else np.int64, (int(edges[-1]),)
    out = np.memmap(folder / f"{name}-codes.bin", dtype=kind, mode="w+", shape=shape)
    count = 0
    for file in filter(Path.exists, files):
        held = np.fromfile(file, dtype=ENTRY)
        known, codes = np.unique(held["hash"], return_inverse=True)
        out[held["row"]] = count + codes
        count += len(known)
        file.unlink()
    return [out[a:b] for a, b in pairwise(edges)], count


def _scatter(hashes: Hashes, first_row: int, files: list[Path]) -> None:
    bucket = (hashes >> np.uint64(56)).astype(np.uint8)
    order = np.argsort(bucket, kind="stable")
    entries = np.empty(len(hashes), dtype=ENTRY)
    entries["row"], entries["hash"] = first_row + order, hashes[order]
    edges = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
    for file, (start, stop) in zip(files, pairwise(edges), strict=True):
        if start < stop:
            with open(file, "ab") as handle:
                entries[start:stop].tofile(handle)


def hash_names(names: pa.Array) -> Hashes:
    """[n] 64-bit hash of every string of an Arrow string array without nulls.

    Equal names have equal hashes on every machine; among N distinct names the chance of any collision is N^2 / 2^65.
    """
    strings = names.cast(pa.large_string())
    n = len(strings)
    _, offset_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[strings.offset : strings.offset + n + 1]
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)
    starts, lengths = offsets[:-1], np.diff(offsets)
    out = np.empty(n, dtype=np.uint64)
    words = -(-lengths // _WORD)
    for count in np.unique(words):
        found = np.flatnonzero(words == count)
        for at in range(0, len(found), PIECE):  # what is worked out takes 20 times the memory of the names
            rows = found[at : at + PIECE]
            out[rows] = _hash_equal(data, starts[rows], lengths[rows], int(count))
    return out


def _hash_equal(data: npt.NDArray[np.uint8], starts: Any, lengths: Any, words: int) -> Hashes:
    """Hashes of strings that fill the same number of 8-byte words."""
    state = lengths.astype(np.uint64) * _FINISH
    with np.errstate(over="ignore"):
        for word in range(words):
            at = starts[:, None] + np.arange(word * _WORD, (word + 1) * _WORD)
            inside = at < (starts + lengths)[:, None]
            block = np.where(inside, data[np.minimum(at, len(data) - 1)], np.uint8(0))
            state = (state ^ block.view("<u8").ravel()) * _MULTIPLY
            state ^= state >> _SHIFT
        state = (state ^ (state >> _SHIFT)) * _FINISH
    return np.asarray(state ^ (state >> _SHIFT), dtype=np.uint64)


def dense_codes(*columns: Hashes) -> tuple[list[npt.NDArray[np.int32]], int]:
    """Codes 0..k-1 (by first appearance) of hashes that share one space, and k."""
    joined = pa.array(np.concatenate(columns)).dictionary_encode()
    codes = joined.indices.to_numpy(zero_copy_only=False)
    edges = np.cumsum([len(column) for column in columns])[:-1]
    return np.split(codes, edges), len(joined.dictionary)
