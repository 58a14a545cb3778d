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

from finepref.arena.normal import Ints
from finepref.core.errors import InputError, nearest

LEFT, TIE, RIGHT = 1, 0, -1

OUTCOME_WORDS: dict[str, int] = {
    **dict.fromkeys(("left", "a", "model_a", "1", "1.0"), LEFT),
    **dict.fromkeys(("right", "b", "model_b", "0", "0.0"), RIGHT),
    **dict.fromkeys(("tie", "tie (bothbad)", "0.5"), TIE),
}
OUTCOME_HELP = ("left", "right", "tie", "a", "b", "model_a", "model_b", "tie (bothbad)", "1", "0.5", "0")


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
    def from_codes(
        cls,
        left: npt.ArrayLike,
        right: npt.ArrayLike,
        outcome: npt.ArrayLike,
        *,
        models: Sequence[str],
        left_image: npt.ArrayLike | None = None,
        right_image: npt.ArrayLike | None = None,
        prompt: npt.ArrayLike | None = None,
        voter: npt.ArrayLike | None = None,
        voters: Sequence[str] | None = None,
        game: npt.ArrayLike | None = None,
        games: Games | None = None,
    ) -> Votes:
        """Votes from integer codes; integer arrays are kept as they are, without a copy.

        Args:
            left, right: [n] integer codes, 0 <= code < len(models).
            outcome: [n] integers, +1 left won, -1 right won, 0 tie (or the outcome words of `from_columns`).
            models: M distinct, non-empty names.
            left_image, right_image: [n] non-negative codes of one common space of images; both or none.
            prompt, voter, game: [n] non-negative codes. voters: names of the voter codes.
            games: the K-wise games whose pairs these votes are.

        Raises:
            InputError: lengths differ, a code is out of range, an outcome is none of the three, a name is empty
                or double.
        """
        result = np.asarray(outcome)
        if result.dtype.kind in "iu":
            _refuse_zero_one(result)
        else:
            result = outcome_codes(outcome)
        names = tuple(str(name) for name in models)
        columns = {
            "left": _codes(left, "left"), "right": _codes(right, "right"), "outcome": result,
            "left_image": _codes(left_image, "left_image"), "right_image": _codes(right_image, "right_image"),
            "prompt": _codes(prompt, "prompt"), "voter": _codes(voter, "voter"), "game": _codes(game, "game"),
        }  # fmt: skip
        _check(columns, names)
        known = None if voters is None else tuple(str(v) for v in voters)
        return cls(models=names, voters=known, games=games, **columns)  # type: ignore[arg-type]

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
            outcome: [n] words left|right|tie, a|b, model_a|model_b, 'tie (bothbad)', or left's share 1|0.5|0.
            left_image, right_image: [n] names of the two images, both or none; equal names are the same image.
            prompt, voter: [n] names.

        Raises:
            InputError: a name is empty or missing, an outcome is none of the words, lengths differ.

        Example:
            votes = Votes.from_columns(left=["A", "A"], right=["B", "C"], outcome=["left", "tie"])
        """
        pair, models = _encode_pair(left, right, ("left", "right"))
        images: tuple[Ints | None, Ints | None] = (None, None)
        if (left_image is None) != (right_image is None):
            raise InputError("only one of left_image and right_image is given", remedy="give both or none")
        if left_image is not None and right_image is not None:
            images, _ = _encode_pair(left_image, right_image, ("left_image", "right_image"))
        prompt_codes = None if prompt is None else encode([to_arrow(prompt, "prompt")], "prompt")[0]
        voters: tuple[str, ...] | None = None
        voter_codes: Ints | None = None
        if voter is not None:
            voter_codes, known = encode([to_arrow(voter, "voter")], "voter")
            voters = tuple(known.to_pylist())
        columns = {
            "left": pair[0], "right": pair[1], "outcome": outcome_codes(outcome), "left_image": images[0],
            "right_image": images[1], "prompt": prompt_codes, "voter": voter_codes, "game": None,
        }  # fmt: skip
        names = tuple(models.to_pylist())
        _check(columns, names)
        return cls(models=names, voters=voters, **columns)  # type: ignore[arg-type]


def outcome_codes(values: Any) -> npt.NDArray[np.int8]:
    """Outcome words or shares of the left side as int8 codes: +1 left, 0 tie, -1 right."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        column = values
    else:
        values = values.tolist() if isinstance(values, np.ndarray) else values
        column = pa.array([None if v is None or v != v else str(v) for v in values], pa.string())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if column.null_count:
        raise InputError(
            "the outcome is missing", where=f"vote {_first_null(column)}", remedy="remove the row or fill it in"
        )
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    words = [str(word) for word in column.dictionary.to_pylist()]
    table = np.zeros(max(len(words), 1), dtype=np.int8)
    codes = column.indices.to_numpy(zero_copy_only=False)
    for position, word in enumerate(words):
        if word in OUTCOME_WORDS:
            table[position] = OUTCOME_WORDS[word]
        elif (row := int(np.argmax(codes == position))) or (len(codes) and codes[0] == position):
            raise InputError(f"unknown outcome {word!r}", where=f"vote {row}", remedy=nearest(word, OUTCOME_HELP))
    return table[codes]


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


def _codes(values: Any, name: str) -> Any:
    if values is None:
        return None
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{name} must be a flat array of integers", remedy="use Votes.from_columns for names")
    return array


def _check(columns: dict[str, Any], models: tuple[str, ...]) -> None:
    n = len(columns["left"])
    for name, column in columns.items():
        if column is not None and len(column) != n:
            raise InputError(f"{name} has {len(column)} rows and left {n}", remedy="give columns of equal length")
    if n == 0:
        raise InputError("there are no votes", remedy="give at least one vote")
    if "" in models:
        raise InputError("a model's name is empty", remedy="name every model")
    if len(set(models)) != len(models):
        double = next(name for name in models if models.count(name) > 1)
        raise InputError(f"the model name {double!r} is listed twice", remedy="use distinct names")
    for name in ("left", "right"):
        low, high = int(columns[name].min()), int(columns[name].max())
        if low < 0 or high >= len(models):
            raise InputError(
                f"{name} holds the code {low if low < 0 else high}", remedy=f"codes run from 0 to {len(models) - 1}"
            )
    _check_outcome(columns["outcome"])
    for name in ("left_image", "right_image", "prompt", "voter", "game"):
        if columns[name] is not None and int(columns[name].min()) < 0:
            raise InputError(f"{name} holds a negative code", remedy="codes start at 0")
    if (columns["left_image"] is None) != (columns["right_image"] is None):
        raise InputError("only one of left_image and right_image is given", remedy="give both or none")


def _check_outcome(outcome: Ints) -> None:
    low, high = int(outcome.min()), int(outcome.max())
    if low < RIGHT or high > LEFT:
        raise InputError(
            f"outcome holds the code {low if low < RIGHT else high}", remedy="use +1 left, 0 tie, -1 right"
        )


def _refuse_zero_one(outcome: Ints) -> None:
    """0 and 1 without -1 are most likely labels that mean right and left; as codes 0 is a tie."""
    if outcome.ndim == 1 and len(outcome) > 1 and int(outcome.min()) == TIE and int(outcome.max()) == LEFT:
        remedy = "use +1 left, 0 tie, -1 right, or the words of Votes.from_columns"
        raise InputError("outcome holds 0 and 1 but never -1", remedy=remedy)
