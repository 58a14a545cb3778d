"""What people write down as the outcome of a comparison: one vocabulary for every reader of votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def side_of(word: str, *, own: Mapping[str, int], shares: bool) -> int | None:
    """+1 left, 0 tie, -1 right by the word alone, in any case; None if it says none of them.

    Args:
        own: words beside (and before) the common ones, in small letters.
        shares: whether numbers count: the left side's share 1, 0.5 or 0.
    """
    text = word.strip().casefold()
    found = own.get(text, WORDS.get(text))
    if found is None and shares:
        try:
            found = SHARES.get(float(text))
        except ValueError:
            return None
    return found


def outcome_of(word: str, left: str | None, right: str | None, *, own: Mapping[str, int], shares: bool) -> int | None:
    """The outcome of one row: a word, or the name of one of its two models as it is spelt.

    None where it is neither, or where the word, in small letters as the common ones are, says the other side.
    """
    word = word.strip()
    by_word = side_of(word, own=own, shares=shares)
    names = {(left or "").strip(): LEFT, (right or "").strip(): RIGHT}
    by_name = names.get(word) if len(names) == 2 else None
    if by_name is None:
        return by_word
    return by_name if by_word in (None, by_name) or word != word.casefold() else None


def outcome_codes(
    words: Coded, left: Coded | None, right: Coded | None, *, own: Mapping[str, int], shares: bool
) -> npt.NDArray[np.int8]:
    """[n] `outcome_of` of columns of n rows; UNKNOWN where it says nothing."""
    codes, said = words
    if left is None or right is None:
        left = right = (np.zeros(len(codes), dtype=np.int8), [None])
    sides = [None if word is None else side_of(word, own=own, shares=shares) for word in said]
    table = np.array([UNKNOWN if side is None else side for side in sides] or [UNKNOWN], dtype=np.int8)
    found = table[codes]
    names = {name.strip() for name in (*left[1], *right[1]) if name is not None}
    named = np.array([word is not None and word.strip() in names for word in said] or [False], dtype=bool)
    if not named.any():
        return found
    rows = np.flatnonzero(named[codes])
    n_left, n_right = len(left[1]), len(right[1])
    keys = (codes[rows].astype(np.int64) * n_left + left[0][rows]) * n_right + right[0][rows]
    distinct, place = np.unique(keys, return_inverse=True)
    by_row = [
        outcome_of(
            str(said[key // (n_left * n_right)]), left[1][key // n_right % n_left], right[1][key % n_right],
            own=own, shares=shares,
        )
        for key in distinct.tolist()
    ]  # fmt: skip
    found[rows] = np.array([UNKNOWN if side is None else side for side in by_row], dtype=np.int8)[place]
    return found


def unknown_outcome(word: str, *, where: object, column: str, own: Mapping[str, int], shares: bool) -> InputError:
    """The refusal of an outcome that says nothing, or two things."""
    what = f"unknown outcome {word!r} in {column}"
    if side_of(word, own=own, shares=shares) is not None:
        what = f"{column} {word!r} means one side and names the model of the other"
        return InputError(what, where=where, remedy="write left, right or tie")
    known = (*own, *WORDS, *(("1", "0.5", "0") if shares else ()))
    return InputError(what, where=where, remedy=nearest(word.strip().casefold(), known))
