"""What the checks on voters read."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from finepref.arena.normal import Floats, Ints
from finepref.core.errors import InputError
from finepref.formats.answers import KINDS
from finepref.formats.voterchecks import CheckResult

PLAIN, GOLD, REPEAT = range(len(KINDS))
UNDECIDED, SKIPPED = -1, -2  # a tie, both bad; no answer
NO_PICTURE = -1
CHOICES = 2  # pictures of a pair


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """n answers to one question, as codes; rows in any order.

    voter: [n]. kind: [n] place in `formats.answers.KINDS`. position: [n] place of the chosen picture (0: the left one),
    UNDECIDED or SKIPPED. known: [n] the same of the known answer (gold) or of the voter's earlier one (repeat), by the
    places as shown now. choices: [n] pictures shown. left_model, right_model, left_image, right_image: [n] of pairs,
    NO_PICTURE elsewhere. milliseconds: [n] from when the pictures were there to the answer; loading: [n] until they
    were there; both nan where unknown. keyed: [n] whether a key gave the answer. order: [n] rises with the answers.
    """

    voter: Ints
    kind: Ints
    position: Ints
    known: Ints
    choices: Ints
    left_model: Ints
    right_model: Ints
    left_image: Ints
    right_image: Ints
    milliseconds: Floats
    loading: Floats
    keyed: npt.NDArray[np.bool_]
    order: Ints

    def __len__(self) -> int:
        return len(self.voter)

    @property
    def is_pair(self) -> npt.NDArray[np.bool_]:
        """[n] whether two different pictures were shown."""
        return np.asarray((self.choices == CHOICES) & (self.left_image >= 0) & (self.left_image != self.right_image))

    def take(self, rows: Ints) -> AnswerColumns:
        """The answers of these rows."""
        return AnswerColumns(*(getattr(self, field.name)[rows] for field in fields(self)))


def too_little(check: str, n: int, words: str, *, value: float = math.nan) -> CheckResult:
    """A check that cannot say anything; words: why."""
    return CheckResult(check, value, math.nan, math.nan, math.nan, False, n, words)


def check_columns(answers: AnswerColumns) -> None:
    """Refuse columns that do not fit together.

    Raises:
        InputError: lengths differ, a kind, position or number of pictures is impossible.
    """
    for field in fields(answers):
        if len(getattr(answers, field.name)) != len(answers):
            what = f"{field.name} has {len(getattr(answers, field.name))} rows, voter has {len(answers)}"
            raise InputError(what, remedy="give one row an answer")
    wrong = (
        ("kind", (answers.kind < 0) | (answers.kind >= len(KINDS))),
        ("choices", answers.choices < CHOICES),
        ("position", (answers.position < SKIPPED) | (answers.position >= answers.choices)),
    )
    for name, where in wrong:
        if where.any():
            at = int(np.flatnonzero(where)[0])
            what = f"{name} is {getattr(answers, name)[at]}"
            raise InputError(what, where=f"answer {at}", remedy="see AnswerColumns")
