"""What people write down as the outcome of a comparison: one vocabulary for every reader of votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError, nearest

LEFT, TIE, RIGHT = 1, 0, -1
UNKNOWN = 99

WORDS: dict[str, int] = {
    **dict.fromkeys(("left", "a", "model_a"), LEFT),
    **dict.fromkeys(("right", "b", "model_b"), RIGHT),
    **dict.fromkeys(("tie", "draw", "equal", "both", "neither"), TIE),
    **dict.fromkeys(("tie (bothbad)", "both bad", "both_bad", "bothbad"), TIE),
}
SHARES = {1.0: LEFT, 0.5: TIE, 0.0: RIGHT}

Codes = npt.NDArray[np.integer]
Coded = tuple[Codes, Sequence[str | None]]  # [n] positions in a list of words


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The common words, and those of a dialect: own, in small letters; shares: whether 1, 0.5 and 0 are the left's."""

    own: Mapping[str, int]
    shares: bool

    def side(self, word: str) -> int | None:
        """+1 left, 0 tie, -1 right by the word alone, in any case; None if it says none of them."""
        text = word.strip().casefold()
        found = self.own.get(text, WORDS.get(text))
        if found is None and self.shares:
            try:
                found = SHARES.get(float(text))
            except ValueError:
                return None
        return found

    def outcome(self, word: str, left: str | None, right: str | None) -> int | None:
        """The outcome of one row: a word, or the name of one of its two models as it is spelt.

        None where it is neither, or where the word, in small letters as the common ones are, says the other side.
        """
        word = word.strip()
        by_word = self.side(word)
        names = {(left or "").strip(): LEFT, (right or "").strip(): RIGHT}
        by_name = names.get(word) if len(names) == 2 else None
        if by_name is None:
            return by_word
        return by_name if by_word in (None, by_name) or word != word.casefold() else None

    def outcomes(self, words: Coded, left: Coded | None, right: Coded | None) -> npt.NDArray[np.int8]:
        """[n] `outcome` of columns of n rows; UNKNOWN where it says nothing."""
        codes, said = words
        nobody: Coded = (np.zeros(len(codes), dtype=np.int8), [None])
        (at_left, lefts), (at_right, rights) = left or nobody, right or nobody
        sides = [None if word is None else self.side(word) for word in said]
        found = np.array([UNKNOWN if side is None else side for side in sides], dtype=np.int8)[codes]
        names = {name.strip() for name in (*lefts, *rights) if name is not None}
        named = np.array([word is not None and word.strip() in names for word in said], dtype=bool)
        if named.any():
            rows = np.flatnonzero(named[codes])
            keys = (codes[rows].astype(np.int64) * len(lefts) + at_left[rows]) * len(rights) + at_right[rows]
            distinct, place = np.unique(keys, return_inverse=True)
            triples = ((key // len(rights), key % len(rights)) for key in distinct.tolist())
            each = [self.outcome(str(said[k // len(lefts)]), lefts[k % len(lefts)], rights[r]) for k, r in triples]
            found[rows] = np.array([UNKNOWN if side is None else side for side in each], dtype=np.int8)[place]
        return found

    def refusal(self, word: str, column: str, where: object) -> InputError:
        """Of an outcome that says nothing, or two things."""
        if self.side(word) is not None:
            what = f"{column} {word!r} means one side and names the model of the other"
            return InputError(what, where=where, remedy="write left, right or tie")
        known = (*self.own, *WORDS, *(("1", "0.5", "0") if self.shares else ()))
        remedy = nearest(word.strip().casefold(), known)
        return InputError(f"unknown outcome {word!r} in {column}", where=where, remedy=remedy)
