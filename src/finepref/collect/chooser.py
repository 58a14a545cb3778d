"""What a desk asks of whoever chooses the next set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from finepref.formats.answers import Answer, ShownSet


class Chooser(Protocol):
    """Which pictures a voter sees next."""

    def choose(self, voter: int) -> tuple[int, ...] | None:
        """Ids of the pictures in the order shown, which count as out; None where nothing is left to ask."""

    def answered(self, answer: Answer, shown: ShownSet) -> None:
        """An answer that stands."""

    def out(self, shown: ShownSet, answers: Sequence[Answer] = ()) -> None:
        """A set that is out, or was answered, of an earlier start. answers: to it, that stand."""

    def taken_back(self, answers: Sequence[Answer], shown: ShownSet) -> None:
        """These answers to a set stood and are undone; the set is out again."""

    def left(self, shown: ShownSet) -> None:
        """A set that is out counts no more, as that of a voter who is excluded; that they saw it stays so."""

    def unseen(self, shown: ShownSet) -> None:
        """A set that counts no more could not be kept: nobody saw it."""
