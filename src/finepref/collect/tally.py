"""The votes of an open study as columns of numbers, so that a board costs no reading: as `finepref arena` reads them.

A row is two pictures that an answer compares; see `formats.studyvotes.study_table`, whose rows these are.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from finepref.arena.agreement import agreement
from finepref.arena.engines import rate
from finepref.arena.ratings import Ratings
from finepref.collect.said import comparisons
from finepref.core.text import is_missing
from finepref.formats.answers import Answer, PictureRow, ShownSet, as_json
from finepref.formats.collection import CollectionRecord
from finepref.formats.votes import Votes

NUMBERS = ("question", "picture_0", "picture_1", "voter", "game")
"""Columns of `VoteTally.rows`, four bytes each: a study may have a million answers."""
BOTH_BAD = as_json("both_bad")


class VoteTally:
    """Columns that grow with every answer; an answer that is undone counts no more."""

    def __init__(self, about: CollectionRecord, pictures: Sequence[PictureRow]) -> None:
        self.about, self.pictures = about, pictures
        first = {text: place for place, text in reversed([*enumerate(about.prompts)]) if not is_missing(text)}
        self.prompts = [first.get(text, -1) for text in about.prompts]  # those of one text are one, -1: not named
        self.rows, self.answer, self.time, self.outcome = array("i"), array("q"), array("q"), array("b")
        self.stands, self.bad = bytearray(), bytearray()
        self.games = 0

    def add(self, answer: Answer, shown: ShownSet) -> None:
        """Count an answer; their ids rise."""
        if answer.undone or shown.kind != "plain":
            return
        found = comparisons(self.about.mode, answer.answer, len(shown.pictures))
        for a, b, share in found:
            self.rows.extend((answer.question, shown.pictures[a], shown.pictures[b], shown.voter, self.games))
            self.answer.append(answer.id)
            self.time.append(int(answer.answered_at * 1e6))
            self.outcome.append((share > 0.5) - (share < 0.5))
            self.stands.append(1)
            self.bad.append(answer.answer == BOTH_BAD)
        self.games += bool(found)

    def undone(self, answers: Collection[int], *, stands: int = 0) -> None:
        """Answers that count no more; or again, with 1."""
        held = np.frombuffer(self.answer, dtype=np.int64)
        for number in answers:
            for row in range(*np.searchsorted(held, [number, number + 1])):
                self.stands[row] = stands

    def as_now(self) -> Callable[[], None]:
        """What takes all back that is added from now on."""
        rows, games = len(self), self.games

        def cut() -> None:
            del self.rows[rows * len(NUMBERS) :], self.answer[rows:], self.time[rows:], self.outcome[rows:]
            del self.stands[rows:], self.bad[rows:]
            self.games = games

        return cut

    def copy(self) -> VoteTally:
        """What is counted now, for another thread."""
        found = VoteTally(self.about, self.pictures)
        found.rows, found.time, found.outcome = self.rows[:], self.time[:], self.outcome[:]
        found.stands, found.bad = self.stands[:], self.bad[:]
        return found

    def _rows(self) -> npt.NDArray[np.int32]:
        return np.frombuffer(self.rows, dtype=np.int32).reshape(-1, len(NUMBERS))

    def __len__(self) -> int:
        return len(self.outcome)

    def votes(self, question: int, *, excluded: Collection[int] = ()) -> Votes:
        """The votes on a question, without those of some voters; models and prompts that have some."""
        held = dict(zip(NUMBERS, self._rows().T, strict=True))
        outcome, time = np.frombuffer(self.outcome, dtype=np.int8), np.frombuffer(self.time, dtype=np.int64)
        made = [(each.model, self.prompts[each.prompt]) for each in self.pictures]
        model, prompt = np.array(made, dtype=np.int32).T
        rows = np.frombuffer(self.stands, dtype=np.bool_) & (held["question"] == question)
        if excluded:
            rows &= ~np.isin(held["voter"], list(excluded))
        at = np.flatnonzero(rows)
        bad = np.frombuffer(self.bad, dtype=np.bool_)[at]
        shown = np.concatenate([held["picture_0"][at], held["picture_1"][at]])
        (made_by, names), (image, _) = _dense(model[shown]), _dense(shown)
        return Votes(
            models=tuple(self.about.models[number] for number in names), outcome=outcome[at],
            left=made_by[: len(at)], right=made_by[len(at) :], left_image=image[: len(at)],
            right_image=image[len(at) :], prompt=_named(prompt[shown[: len(at)]]),
            voter=_dense(held["voter"][at])[0],
            game=None if self.about.mode == "pair" else _dense(held["game"][at])[0],
            both_bad=bad if bad.any() else None, time=time[at],
        )  # fmt: skip

    def board(self, question: int, *, excluded: Collection[int] = ()) -> Ratings | None:
        """The board of a question as `finepref arena` gives it; None before anything was decided between two models."""
        votes = self.votes(question, excluded=excluded)
        if len(votes) == 0 or len(votes.models) < 2:
            return None
        return replace(rate(votes), agreement=agreement(votes))


def _named(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Codes by first appearance, -1 where nothing is named."""
    found, known = np.full(len(codes), -1, dtype=np.int32), codes >= 0
    found[known] = _dense(codes[known])[0]
    return found


def _dense(codes: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], list[int]]:
    """(codes by first appearance, what each stands for), as a reader of a file numbers names."""
    n = len(codes)
    first = np.full(codes.max(initial=-1) + 1, n)
    first[codes[::-1]] = np.arange(n - 1, -1, -1)  # of equal codes the last one written stays: the first
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < n)]
    rank = np.empty(len(first), dtype=np.int32)
    rank[order] = np.arange(len(order))
    return rank[codes], order.tolist()
