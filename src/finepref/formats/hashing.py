"""64-bit hashes of names, so that a billion image and prompt names need eight bytes each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

_WORD = 8
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)
_FINISH = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)


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
        rows = np.flatnonzero(words == count)
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
