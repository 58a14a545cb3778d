"""Votes as integer codes: who met whom, who won, and optionally which images, prompt and voter.

n votes over M models. Outcome is the sign of left minus right: +1 left won, -1 right won, 0 tie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finepref.core.errors import InputError
from finepref.formats.outcomes import UNKNOWN, Coded, outcome_codes, unknown_outcome

Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Games:
    """K-wise games as ranked: game g holds the items start[g]:start[g+1]; a lower rank is better, equal ranks tie."""

    start: Ints
    model: Ints
    rank: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start) - 1


@dataclass(frozen=True, slots=True)
class Votes:
    """Pairwise votes (of K-wise games: all their pairs).

    models: M names. left, right: [n] codes below M. outcome: [n] int8, +1 left, 0 tie, -1 right.
    left_image, right_image: [n] codes of one common space of images, or None. prompt, voter, game: [n] codes or None.
    voters: the names of the voter codes where they are known. games: the games themselves, for K-wise votes.
    """

    models: tuple[str, ...]
    left: Ints
    right: Ints
    outcome: Ints
    left_image: Ints | None = None
    right_image: Ints | None = None
    prompt: Ints | None = None
    voter: Ints | None = None
    voters: tuple[str, ...] | None = None
    game: Ints | None = None
    games: Games | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.left)

    @property
    def has_images(self) -> bool:
        """Whether every vote names its two images."""
        return self.left_image is not None

    def take(self, rows: npt.NDArray[Any] | slice) -> Votes:
        """The votes of these rows (indices, mask or slice); the models stay. K-wise games become their pairs."""

        def pick(column: Ints | None) -> Ints | None:
            return None if column is None else column[rows]

        return Votes(
            self.models, self.left[rows], self.right[rows], self.outcome[rows],
            left_image=pick(self.left_image), right_image=pick(self.right_image),
            prompt=pick(self.prompt), voter=pick(self.voter), voters=self.voters, game=pick(self.game),
        )  # fmt: skip

    def with_dense_images(self) -> Votes:
        """The same votes with image codes that leave no holes."""
        if self.left_image is None or self.right_image is None or len(self) == 0:
            return self
        count = 1 + max(int(self.left_image.max()), int(self.right_image.max()))
        if count <= 4 * len(self):
            used = np.zeros(count, dtype=bool)
            used[self.left_image] = used[self.right_image] = True
            if used.all():
                return self
            new = np.cumsum(used) - 1
            left, right = new[self.left_image], new[self.right_image]
        else:
            joined = np.concatenate([self.left_image, self.right_image])
            codes = np.unique(joined, return_inverse=True)[1]
            left, right = codes[: len(self)], codes[len(self) :]
        return replace(self, left_image=left, right_image=right)

    @classmethod
    def from_columns(
        cls,
        *,
        left: Iterable[Any],
        right: Iterable[Any],
        outcome: Iterable[Any],
        left_image: Iterable[Any] | None = None,
        right_image: Iterable[Any] | None = None,
        prompt: Iterable[Any] | None = None,
        voter: Iterable[Any] | None = None,
    ) -> Votes:
        """Votes from columns of names (lists, arrays, Arrow arrays).

        Args:
            left, right: [n] names of the models that met.
            outcome: [n] words (`outcomes.WORDS`, any case), the winner's name, or left's share 1|0.5|0.
            left_image, right_image: [n] names of the two images, both or none; equal names are the same image.
            prompt, voter: [n] names.

        Raises:
            InputError: a name is empty or missing, an outcome is none of the words, lengths differ.

        Example:
            votes = Votes.from_columns(left=["A", "A"], right=["B", "C"], outcome=["left", "tie"])
        """
        (first, second), names = _encode_pair(left, right, ("left", "right"))
        models = names.to_pylist()
        if not len(first):
            raise InputError("there are no votes", remedy="give at least one vote")
        found: dict[str, Any] = {}
        if (left_image is None) != (right_image is None):
            raise InputError("only one of left_image and right_image is given", remedy="give both or none")
        if left_image is not None and right_image is not None:
            (found["left_image"], found["right_image"]), _ = _encode_pair(
                left_image, right_image, ("left_image", "right_image")
            )
        if prompt is not None:
            found["prompt"] = encode([to_arrow(prompt, "prompt")], "prompt")[0]
        if voter is not None:
            found["voter"], known = encode([to_arrow(voter, "voter")], "voter")
            found["voters"] = tuple(known.to_pylist())
        for name, column in found.items():
            if name != "voters" and len(column) != len(first):
                raise _unequal(name, len(column), len(first))
        outcomes = _outcomes(outcome, (first, models), (second, models))
        return cls(models=tuple(models), left=first, right=second, outcome=outcomes, **found)


def _unequal(name: str, rows: int, votes: int) -> InputError:
    return InputError(f"{name} has {rows} rows and left {votes}", remedy="give columns of equal length")


def _outcomes(values: Any, left: Coded, right: Coded) -> npt.NDArray[np.int8]:
    column = to_arrow(values, "the outcome").combine_chunks()
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes, words = encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()
    if len(codes) != len(left[0]):
        raise _unequal("the outcome", len(codes), len(left[0]))
    outcome = outcome_codes((codes, words), left, right, own={}, shares=True)
    for row in np.flatnonzero(outcome == UNKNOWN)[:1].tolist():
        raise unknown_outcome(words[codes[row]], where=f"vote {row}", column="outcome", own={}, shares=True)
    return outcome


def to_arrow(values: Any, name: str) -> pa.ChunkedArray:
    """A column of names as a chunked Arrow array of strings or of a string dictionary; missing names refused."""
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        if isinstance(values, np.ndarray):
            values = values.tolist()
        values = [None if v is None or v != v else str(v) for v in values]
        values = pa.array(values, pa.string())
    chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    if not (pa.types.is_dictionary(chunked.type) or pa.types.is_string(chunked.type)):
        chunked = chunked.cast(pa.string())
    if chunked.null_count:
        raise InputError(
            f"{name} is missing", where=f"vote {_first_null(chunked)}", remedy="remove the row or fill it in"
        )
    return chunked


def encode(columns: Sequence[pa.ChunkedArray], name: str) -> tuple[Ints, pa.Array]:
    """Integer codes (in order of first appearance) and the names of columns that share one space of names."""
    chunks = [chunk for column in columns for chunk in column.chunks]
    if len({str(chunk.type) for chunk in chunks}) > 1:
        chunks = [chunk.cast(pa.string()) for chunk in chunks]
    joined = pa.chunked_array(chunks, None if chunks else pa.string())
    encoded = joined.unify_dictionaries() if pa.types.is_dictionary(joined.type) else joined.dictionary_encode()
    if encoded.num_chunks == 0:
        return np.zeros(0, dtype=np.int32), pa.array([], pa.string())
    names = encoded.chunk(encoded.num_chunks - 1).dictionary
    codes = np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in encoded.chunks])
    empty = pc.index(names, "").as_py()
    if empty >= 0 and bool(np.any(codes == empty)):
        row = int(np.argmax(codes == empty)) % max(len(codes) // len(columns), 1)
        raise InputError(f"{name} is an empty name", where=f"vote {row}", remedy="remove the row or fill it in")
    return codes, names


def _encode_pair(left: Any, right: Any, names: tuple[str, str]) -> tuple[tuple[Ints, Ints], pa.Array]:
    a, b = to_arrow(left, names[0]), to_arrow(right, names[1])
    if len(a) != len(b):
        raise InputError(f"{names[0]} has {len(a)} rows and {names[1]} {len(b)}", remedy="give columns of equal length")
    codes, values = encode([a, b], f"{names[0]} or {names[1]}")
    return (codes[: len(a)], codes[len(a) :]), values


def _first_null(column: Any) -> int:
    return int(pc.index(pc.is_null(column), True).as_py())
