"""A column of text as Arrow holds it: a sequence of strings and None that needs no object for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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


def distinct(values: Sequence[Any]) -> int:
    """How many different texts there are."""
    return int(pc.count_distinct(_strings(values)).as_py())


def codes_of(*columns: Sequence[Any]) -> tuple[list[npt.NDArray[np.int64]], int]:
    """Codes from 0 on of columns that share one space of texts, none of them missing, and how many texts there are."""
    joined = pa.chunked_array([chunk for column in columns for chunk in _strings(column).chunks], pa.string())
    encoded = joined.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    codes = encoded.indices.to_numpy().astype(np.int64)
    return np.split(codes, np.cumsum([len(column) for column in columns])[:-1]), len(encoded.dictionary)


def content_of(values: Sequence[Any]) -> Iterator[bytes]:
    """What tells this column from others, a piece of rows at a time."""
    strings = _strings(values)
    for start in range(0, len(strings), PIECE):
        piece = strings.slice(start, PIECE)
        yield pc.binary_length(piece).fill_null(-1).to_numpy().astype(np.int32).tobytes()
        yield "".join(piece.drop_null().to_pylist()).encode("utf-8", "surrogatepass")


def _strings(values: Sequence[Any]) -> pa.ChunkedArray:
    return as_arrow(values).cast(pa.string())
