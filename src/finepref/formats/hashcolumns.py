"""Columns of ids, content hashes and words in a few bytes a row: sequences of text without an object for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finepref.formats.textcolumn import PIECE, TextColumn, as_arrow, picked

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.signedinteger[Any]]
SHA256 = 32  # bytes of a content hash


class Column(Sequence[Any]):
    """[n] texts, by what gives those of some rows.

    raw: rows -> their hashes [n, w] uint8, of a column of hashes; else texts: rows -> their texts.
    """

    def __init__(
        self,
        length: int,
        *,
        raw: Callable[[Any], Bytes] | None = None,
        texts: Callable[[Any], Sequence[str]] | None = None,
    ) -> None:
        self._length, self.raw = length, raw
        self.at: Callable[[Any], Sequence[str]] = texts or (lambda rows: [])
        """The texts of some rows: a slice, or an array of them."""
        if raw is not None:
            self.at = lambda rows: [line.tobytes().hex() for line in raw(rows)]

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return self.at(place)
        row = range(self._length)[place]
        return self.at(slice(row, row + 1))[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, self._length, PIECE):
            rows = slice(start, start + PIECE)
            if self.raw is None:
                yield from self.at(rows)
                continue
            found = self.raw(rows)
            text, size = found.tobytes().hex(), 2 * found.shape[1]
            yield from (text[at : at + size] for at in range(0, len(text), size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))


class Hashes(Column):
    """[n] hashes as the bytes that they are, [n, w] uint8; as text 2w small hexadecimal digits each."""

    def __init__(self, data: Bytes) -> None:
        super().__init__(len(data), raw=lambda rows: data[rows])
        self.data = data

    @property
    def head(self) -> npt.NDArray[np.uint64]:
        """[n] the first 8 bytes as numbers, of the order of the hashes."""
        return np.ascontiguousarray(self.data[:, :8]).view(">u8")[:, 0].astype(np.uint64)


def coded(words: Hashes | Sequence[str], codes: Rows) -> Column:
    """[n] texts of few words: words[codes]."""
    if isinstance(words, Hashes):
        return Column(len(codes), raw=lambda rows: words.data[codes[rows]])
    return Column(len(codes), texts=lambda rows: [words[code] for code in codes[rows].tolist()])


def taken(column: Sequence[str], rows: Rows) -> Column:
    """The texts of these rows."""
    of, texts = _raw(column), _texts(column)
    if of is not None:
        return Column(len(rows), raw=lambda some: of(rows[some]))
    return Column(len(rows), texts=lambda some: texts(rows[some]))


def chosen(columns: Sequence[Sequence[str]], side: Rows, rows: Rows) -> Column:
    """[n] the text of columns[side] in these rows, of two columns."""
    (first, second), texts = map(_raw, columns), [_texts(column) for column in columns]
    if first is not None and second is not None:
        return Column(
            len(rows), raw=lambda some: np.where(side[some][:, None] == 0, first(rows[some]), second(rows[some]))
        )
    return Column(
        len(rows),
        texts=lambda some: [
            both[which] for which, *both in zip(side[some].tolist(), *(of(rows[some]) for of in texts), strict=True)
        ],
    )


def _raw(column: Sequence[str]) -> Callable[[Any], Bytes] | None:
    return column.raw if isinstance(column, Column) else None


def _texts(column: Sequence[str]) -> Callable[[Rows], Sequence[str]]:
    """Rows -> their texts."""
    if isinstance(column, Column):
        return column.at
    if isinstance(column, TextColumn):
        return lambda rows: column.arrow.take(pa.array(rows)).to_pylist()
    return lambda rows: [column[row] for row in rows.tolist()]


def text_of(column: Sequence[str], *, between: str = "") -> Iterator[str]:
    """All texts as one, `between` (one character, or none) between two of them, a piece at a time."""
    for start in range(0, len(column), PIECE):
        rows = slice(start, start + PIECE)
        yield between if start else ""
        if (raw := _raw(column)) is not None:
            found = raw(rows)
            yield found.tobytes().hex(between, found.shape[1]) if between else found.tobytes().hex()
        else:
            yield between.join(column[rows])


def rows_of(column: Sequence[str], rows: Rows) -> Hashes | TextColumn:
    """The texts of these rows, as a column of its own."""
    return Hashes(column.data[rows]) if isinstance(column, Hashes) else picked(column, rows)


def numbered(words: Sequence[str]) -> tuple[list[str], Rows]:
    """The different words, sorted, and [n] the number of each."""
    found, codes = np.unique(np.asarray(words, dtype=object).astype(str), return_inverse=True)
    return found.tolist(), narrow(codes.reshape(-1))


def hash_bytes(texts: pa.Array, width: int) -> Bytes | None:
    """[n, width] of texts of 2 * width small hexadecimal digits each; None where one is something else."""
    strings = texts.cast(pa.large_string())
    if strings.null_count or not pc.all(pc.equal(pc.binary_length(strings), 2 * width)).as_py():
        return None
    offset, content = strings.offset, strings.buffers()
    first = int(np.frombuffer(content[1], np.int64, offset + 1)[offset])
    text = bytes(memoryview(content[2])[first : first + 2 * width * len(strings)])
    try:
        data = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return None
    if len(data) < width * len(strings) or text != text.lower():  # it lets spaces and capitals pass
        return None
    return np.frombuffer(data, np.uint8).reshape(len(strings), width)


class Numbers:
    """Numbers of the different values of a column that is read piece by piece, in the order in which they come."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._number: dict[Any, int] = {}

    def of(self, column: pa.ChunkedArray) -> Rows:
        """[n] the number of each value."""
        encoded = column.unify_dictionaries().combine_chunks().dictionary_encode()
        return self._numbered(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]

    def of_rows(self, columns: Sequence[npt.NDArray[np.integer[Any]]]) -> Rows:
        """[n] the number of each row of numbers from 0 on."""
        number = np.zeros(len(columns[0]), np.int64)
        for column in columns:
            number = np.unique(number * (int(column.max(initial=0)) + 1) + column, return_inverse=True)[1].reshape(-1)
        first = np.unique(number, return_index=True)[1]
        return self._numbered([*zip(*(column[first].tolist() for column in columns), strict=True)])[number]

    def _numbered(self, values: Sequence[Any]) -> Rows:
        for value in values:
            if value not in self._number:
                self._number[value] = len(self.values)
                self.values.append(value)
        return np.array([self._number[value] for value in values], np.int32)


def narrow(numbers: Rows) -> Rows:
    """The same numbers, from 0 on, in as few bytes as hold them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def joined(columns: Sequence[Hashes | TextColumn]) -> Hashes | TextColumn:
    """One column of several."""
    hashes = [each.data for each in columns if isinstance(each, Hashes)]
    if len(hashes) == len(columns) and len({data.shape[1] for data in hashes}) == 1:
        return Hashes(np.concatenate(hashes))
    return TextColumn(pa.chunked_array([pa.array([*each], pa.string()) for each in columns], pa.string()))


def packed(pieces: Iterable[pa.Array]) -> Hashes | TextColumn:
    """A column in the fewest bytes: hashes where all texts are of one even number of hexadecimal digits."""
    found: list[Bytes] = []
    strings: list[pa.Array] = []
    for piece in pieces:
        width = (found[0].shape[1] if found else len(piece[0].as_py() or "") // 2) if len(piece) else 0
        data = hash_bytes(piece, width) if width >= 8 and not strings else None
        if data is None:
            strings += [pa.array([*Hashes(each)], pa.string()) for each in found] + [piece]
            found = []
        else:
            found.append(data)
    if strings or not found:
        return TextColumn(pa.chunked_array(strings, pa.string()))
    return Hashes(np.concatenate(found))


def sorted_rows(hashes: Hashes) -> Rows:
    """The rows in the order of the hashes, equal ones as they stand."""
    head = hashes.head
    order = np.argsort(head, kind="stable")
    same = np.flatnonzero(head[order[1:]] == head[order[:-1]])
    if (hashes.data[order[same]] != hashes.data[order[same + 1]]).any():  # two hashes of one head
        order = np.lexsort([hashes.data[:, byte] for byte in reversed(range(hashes.data.shape[1]))])
    return order


def places(wanted: Sequence[str], among: Sequence[str]) -> Rows:
    """[n] the first place of each text among others; -1 where it is not there."""
    if isinstance(wanted, Hashes) and isinstance(among, Hashes) and wanted.data.shape[1] == among.data.shape[1]:
        if wanted is among or np.array_equal(wanted.data, among.data):
            return np.arange(len(wanted), dtype=np.int32)
        return finder(among, sorted_rows(among).astype(np.int32))(wanted)
    found = pc.index_in(_strings(wanted), value_set=_strings(among))
    return np.array(found.fill_null(-1).to_numpy(), dtype=np.int32)  # its own, to be written to


def finder(among: Hashes, order: Rows | None = None) -> Callable[[Hashes], Rows]:
    """What gives the first place of each hash among others, -1 where it is not there. order: None: they are sorted."""
    head = among.head if order is None else among.head[order]

    def find(wanted: Hashes) -> Rows:
        if not len(head):
            return np.full(len(wanted), -1, np.int32)
        mine, at = wanted.head, np.empty(len(wanted), np.int32)
        lines = np.argsort(mine)
        at[lines] = np.minimum(np.searchsorted(head, mine[lines]), len(head) - 1)  # in order: near in memory
        found = at if order is None else order[at]
        missing = np.flatnonzero((among.data[found] != wanted.data).any(1))
        alike = missing[head[at[missing]] == mine[missing]]
        found[missing] = -1
        for line in alike.tolist():  # behind other hashes of its head
            same = np.flatnonzero(head == mine[line])
            rows = same if order is None else order[same]
            hits = rows[(among.data[rows] == wanted.data[line]).all(1)]
            found[line] = hits[0] if len(hits) else -1
        return found

    return find


def repeats(column: Sequence[str]) -> bool:
    """Whether a text comes twice."""
    if isinstance(column, Hashes):
        heads = np.sort(column.head)
        if (heads[1:] != heads[:-1]).all():
            return False
        order = sorted_rows(column)
        return bool((column.data[order[1:]] == column.data[order[:-1]]).all(1).any())
    return int(pc.count_distinct(_strings(column)).as_py()) < len(column)


def _strings(column: Sequence[str]) -> pa.Array:
    held = as_arrow(column).cast(pa.string())
    return held.combine_chunks() if isinstance(held, pa.ChunkedArray) else held
