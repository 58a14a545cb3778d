"""A column of text as Arrow holds it: a sequence of strings and None that needs no object for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finepref.core.text import cell_text

PIECE = 1 << 16  # rows


class TextColumn(Sequence[Any]):
    """[n] texts, or None. arrow: strings, or dictionaries of strings."""

    def __init__(self, arrow: pa.ChunkedArray) -> None:
        self.arrow = arrow

    def __len__(self) -> int:
        return len(self.arrow)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        return [*self][place] if isinstance(place, slice) else self.arrow[place].as_py()

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.arrow.chunks:
            yield from chunk.to_pylist()

    def __contains__(self, value: object) -> bool:
        return bool(self.arrow.null_count) if value is None else value in {*self}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and [*self] == [*other]

    def __hash__(self) -> int:
        return hash(tuple(self))


def as_arrow(values: Sequence[Any]) -> pa.ChunkedArray:
    """Texts as strings, or dictionaries of strings."""
    return values.arrow if isinstance(values, TextColumn) else pa.chunked_array([pa.array([*values], pa.string())])


def are_there(values: Sequence[Any]) -> npt.NDArray[np.bool_]:
    """[n] whether there is a text."""
    return np.asarray(as_arrow(values).is_valid().to_numpy(), dtype=bool)


def picked(values: Sequence[Any], rows: npt.NDArray[Any]) -> TextColumn:
    """The texts of these rows, in this order."""
    return TextColumn(as_arrow(values).take(pa.array(rows)))


def plain_codes(*columns: Sequence[Any]) -> list[npt.NDArray[np.int32]] | None:
    """Codes from 0 on, by first appearance, of columns that share one space of names, none of them missing.

    None where two texts may be one name: not trimmed, or with letters that have several spellings.
    """
    codes, names = _coded(*columns)
    is_trimmed = pc.all(pc.equal(pc.utf8_trim_whitespace(names), names)).as_py()
    return codes if is_trimmed and pc.all(pc.string_is_ascii(names)).as_py() else None


def _coded(*columns: Sequence[Any]) -> tuple[list[npt.NDArray[np.int32]], pa.Array]:
    """Codes from 0 on of columns that share one space of texts, none of them missing, and the texts."""
    chunks = [chunk for column in columns for chunk in _strings(column).chunks]
    encoded = pa.chunked_array(chunks, pa.string()).dictionary_encode()  # all chunks have the texts of all
    names = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], pa.string())
    codes = np.concatenate([np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in encoded.chunks)])
    return np.split(codes.astype(np.int32), np.cumsum([len(column) for column in columns])[:-1]), names


def words_of(numbers: npt.NDArray[np.float64]) -> pa.Array:
    """Numbers as text, each different one written once."""
    encoded = pa.array(numbers).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(map(cell_text, encoded.dictionary.to_pylist())))


def distinct(values: Sequence[Any]) -> int:
    """How many different texts there are."""
    return int(pc.count_distinct(_strings(values)).as_py())


def codes_of(*columns: Sequence[Any]) -> tuple[list[npt.NDArray[np.int64]], int]:
    """Codes from 0 on of columns that share one space of texts, none of them missing, and how many texts there are."""
    codes, names = _coded(*columns)
    return [each.astype(np.int64) for each in codes], len(names)


def content_of(values: Sequence[Any]) -> Iterator[bytes]:
    """What tells this column from others, a piece of rows at a time."""
    strings = _strings(values)
    for start in range(0, len(strings), PIECE):
        piece = strings.slice(start, PIECE)
        yield pc.binary_length(piece).fill_null(-1).to_numpy().astype(np.int32).tobytes()
        yield "".join(piece.drop_null().to_pylist()).encode("utf-8", "surrogatepass")


def _strings(values: Sequence[Any]) -> pa.ChunkedArray:
    return as_arrow(values).cast(pa.string())
