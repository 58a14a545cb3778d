"""The checks on the voters of a study, from its file: each voter's newest answers, so that a large one is quick."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finepref.arena.ratings import Ratings
from finepref.collect.answer_columns import CHOICES, GOLD, NO_PICTURE, REPEAT, SKIPPED, UNDECIDED, AnswerColumns
from finepref.collect.checks import check_answers, pooled_checks
from finepref.formats import answers as kept
from finepref.formats.answers import KINDS, Answer, PictureRow, ShownSet
from finepref.formats.collection import SKIP, CollectionRecord
from finepref.formats.voterchecks import CheckedVoter, QuestionChecks

MOST, FEWEST = 100_000, 200
"""Answers that are looked at, shared evenly among the voters; and of each voter at least."""
PLACES = {"left": 0, "right": 1}


def check_study(
    connection: sqlite3.Connection, about: CollectionRecord, boards: Sequence[Ratings | None], *, most: int = MOST
) -> tuple[QuestionChecks, ...]:
    """Check the voters of every question; excluded ones too, and nobody is excluded by it.

    Args:
        connection: only read. boards: of every question, for what is said of all voters together; None: no vote yet.
        most: answers to a question that are looked at.
    """
    voters = {each.id: each for each in kept.voters_of(connection)}
    pictures = {each.id: each for each in kept.pictures_of(connection)}
    each_voter = max(FEWEST, most // max(len(voters), 1))
    found = []
    for number, question in enumerate(about.questions):
        answers = read_columns(connection, about, pictures, number, each_voter)
        checked = tuple(
            CheckedVoter(voters[each.voter].called, voters[each.voter].state, each.results)
            for each in check_answers(answers)
        )
        count = kept.standing_answers(connection, number)
        found.append(QuestionChecks(question.name, count, len(answers), checked, pooled_checks(boards[number])))
    return tuple(found)


def read_columns(
    connection: sqlite3.Connection,
    about: CollectionRecord,
    pictures: Mapping[int, PictureRow],
    question: int,
    most: int,
) -> AnswerColumns:
    """The newest `most` answers of every voter to a question."""
    rows = []
    for answer, shown in kept.newest_answers(connection, question, most):
        said = json.loads(answer.answer)
        position, known = place_of(about.mode, said), UNDECIDED
        if shown.kind == KINDS[GOLD]:
            known = PLACES[shown.known]
        elif shown.kind == KINDS[REPEAT]:
            known = _before(connection, about.mode, answer, shown)
        left, right = (pictures[number] for number in shown.pictures[:2])
        pair = len(shown.pictures) == CHOICES
        timed = answer.milliseconds if position != SKIPPED or answer.milliseconds else math.nan
        rows.append((
            shown.voter, KINDS.index(shown.kind), position, known, len(shown.pictures),
            *((left.model, right.model, left.id, right.id) if pair else (NO_PICTURE,) * 4),
            timed, answer.loaded, answer.input == "key", answer.id,
        ))  # fmt: skip
    columns = list(zip(*rows, strict=True)) or [()] * 13
    kinds = [np.int64] * 9 + [np.float64] * 2 + [np.bool_, np.int64]
    return AnswerColumns(*(np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True)))


def place_of(mode: str, said: Any) -> int:
    """The place of the picture that an answer chooses, UNDECIDED or SKIPPED."""
    if said == SKIP:
        return SKIPPED
    if mode == "pair":
        return PLACES.get(said, UNDECIDED)
    if mode == "best":
        return int(said)
    return int(said.index(1)) if said.count(1) == 1 else UNDECIDED


def _before(connection: sqlite3.Connection, mode: str, answer: Answer, shown: ShownSet) -> int:
    """Where the picture stands now that was chosen when the set was shown first; UNDECIDED: none was."""
    earlier = kept.shown_by_id(connection, shown.known)
    held = [each for each in kept.answers_of_set(connection, shown.known) if not each.undone]
    said = next((each for each in held if each.question == answer.question), None)
    if earlier is None or said is None:
        return UNDECIDED
    place = place_of(mode, json.loads(said.answer))
    return shown.pictures.index(earlier.pictures[place]) if place >= 0 else UNDECIDED
