"""What people write down as the outcome of a comparison: one vocabulary for every reader of votes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError
from finepref.core.text import visible

LEFT, TIE, RIGHT = 1, 0, -1
BOTH_BAD, NO_VOTE, SHARE, NAME, UNKNOWN = 2, 3, 4, 5, 99
MEANINGS = {"left": LEFT, "right": RIGHT, "tie": TIE, "both_bad": BOTH_BAD, "none": NO_VOTE, "name": NAME}
OFF_BY = 0.02  # shares of the two sides may miss 1 by rounding
MEANING = {code: word for word, code in MEANINGS.items()}

WORDS: dict[str, int] = {
    **dict.fromkeys(("left", "a", "model_a", "model a", "leftvote", "left_vote", "left is better"), LEFT),
    **dict.fromkeys(("right", "b", "model_b", "model b", "rightvote", "right_vote", "right is better"), RIGHT),
    **dict.fromkeys(("tie", "draw", "equal", "both", "neither", "tievote", "tie_vote", "tied", "same"), TIE),
    **dict.fromkeys(("both good", "both_good", "both are good", "bothgood", "tie (bothgood)", "no preference"), TIE),
    **dict.fromkeys(("tie (bothbad)", "both bad", "both_bad", "bothbad", "both are bad", "bothbad_vote"), BOTH_BAD),
}

Codes = npt.NDArray[np.integer]
Coded = tuple[Codes, Sequence[str | None]]  # [n] positions in a list of words


def canonical(word: str) -> str:
    """A word as it is looked up: trimmed, any case; numbers by their value, so that 2, 2.0 and ` 2` are one."""
    text = word.strip().casefold()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def points(side: int | None, word: str) -> float:
    """The left's points of an outcome: 1, 0.5 or 0, or the share that the word is; nan where neither side is said."""
    if side == SHARE:
        return float(word)
    return {LEFT: 1.0, TIE: 0.5, RIGHT: 0.0, BOTH_BAD: 0.5}.get(UNKNOWN if side is None else side, math.nan)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The common words, and those of a dialect: own, in small letters; shares: whether numbers are the left's share.

    said: what the person says of words, which goes first. names_first: whether a model's name as it is spelt goes
    before a common word (columns in memory); else a word that says one side and names the other model is refused.
    """

    own: Mapping[str, int]
    shares: bool
    said: Mapping[str, int] = field(default_factory=dict)
    names_first: bool = False

    def side(self, word: str) -> int | None:
        """+1 left, 0 tie, -1 right, BOTH_BAD, NO_VOTE, SHARE or NAME by the word alone; None if it says nothing."""
        text = canonical(word)
        found = self.said.get(text, self.own.get(text, WORDS.get(text)))
        if found is None and self.shares:
            share = self.share(text)
            return None if share is None else {1.0: LEFT, 0.5: TIE, 0.0: RIGHT}.get(share, SHARE)
        return found

    def share(self, word: str) -> float | None:
        """The left's share that a number says, None if it is none in [0, 1]."""
        try:
            share = float(word)
        except ValueError:
            return None
        return share if 0.0 <= share <= 1.0 else None

    def outcome(self, word: str, left: str | None, right: str | None) -> int | None:
        """The outcome of one row: a word, or the name of one of its two models as it is spelt.

        None where it is neither, or where the word says another outcome than the name does.
        """
        word = word.strip()
        by_word, said = self.side(word), canonical(word) in self.said
        if said and by_word != NAME:
            return by_word
        names = {(left or "").strip(): LEFT, (right or "").strip(): RIGHT}
        by_name = names.get(word) if len(names) == 2 else None
        if by_name is None or said:
            return by_name if said else by_word
        spelt = self.names_first and word != word.casefold()
        return by_name if by_word in (None, by_name) or spelt else None

    def outcomes(self, words: Coded, left: Coded | None, right: Coded | None) -> npt.NDArray[np.int8]:
        """[n] `outcome` of columns of n rows; UNKNOWN where it says nothing."""
        codes, said = words
        nobody: Coded = (np.zeros(len(codes), dtype=np.int8), [None])
        (at_left, lefts), (at_right, rights) = left or nobody, right or nobody
        sides = [None if word is None else self.side(word) for word in said]
        found = np.array([UNKNOWN if side is None else side for side in sides], dtype=np.int8)[codes]
        names = {name.strip() for name in (*lefts, *rights) if name is not None}
        named = np.array([word is not None and word.strip() in names for word in said], dtype=bool)
        named |= np.array([side == NAME for side in sides], dtype=bool)
        if named.any():
            rows = np.flatnonzero(named[codes])
            keys = (codes[rows].astype(np.int64) * len(lefts) + at_left[rows]) * len(rights) + at_right[rows]
            distinct, place = np.unique(keys, return_inverse=True)
            triples = ((key // len(rights), key % len(rights)) for key in distinct.tolist())
            each = [self.outcome(str(said[k // len(lefts)]), lefts[k % len(lefts)], rights[r]) for k, r in triples]
            found[rows] = np.array([UNKNOWN if side is None else side for side in each], dtype=np.int8)[place]
        return found

    def taken(self, word: str) -> tuple[str, str]:
        """(a word, how it is taken), as it is told: names and shares stand for all of their kind."""
        side = self.side(word)
        if side is None:
            return "(a model's name)", "that model"
        if side == SHARE:
            return "(a number between 0 and 1)", "the left's share"
        return word, "that model" if side == NAME else MEANING[side]

    def points(self, word: str | None) -> float:
        """The left's points by the word alone, as `points` gives them."""
        return math.nan if word is None else points(self.side(word), word)

    def refusal(self, word: str, column: str, where: object, others: Sequence[str] = ()) -> InputError:
        """Of an outcome that says nothing, or two things. others: words that are not known either."""
        shown = visible(word.strip())[:40]
        option = f"--outcome {shlex.quote(f'{shown}=name')}"
        if self.side(word) == NAME:
            return InputError(f"{column} {shown!r} names neither model", where=where, remedy="correct the row")
        if self.side(word) is not None:
            what = f"{column} {shown!r} means one side and names the model of the other"
            return InputError(what, where=where, remedy=f"say which is meant: {option}, or =left or =right")
        words = [shown, *(visible(other.strip())[:20] for other in others)]
        said = f"{column} {shown!r} is no outcome that is known here"
        more = f" (nor are {', '.join(map(repr, words[1:6]))}{' and more' * (len(words) > 6)})" if others else ""
        option = f"--outcome {shlex.quote(f'{shown}=left')}"
        remedy = f"say what it means with {option}, or =right, =tie, =both_bad, =none (nobody voted), =name (a model's)"
        return InputError(said + more, where=where, remedy=remedy)
