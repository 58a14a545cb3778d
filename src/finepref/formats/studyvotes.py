"""The answers of a study, checked, and those of them that are votes as a table of preferences that every reader takes.

Votes on plain sets count, of voters who are not excluded, in the order in which they were given. Sets whose answer is
known and sets that repeat others are for checks, skipped ones and undone ones say nothing: they are no rows.
"""

from __future__ import annotations

import datetime
import itertools
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.formats.answers import (
    KINDS,
    VOTES,
    Answer,
    PictureRow,
    ShownSet,
    answered_after,
    as_json,
    damaged,
    open_sets,
    pictures_of,
    reading_votes,
    second_answer,
    shown_by_id,
    voters_of,
)
from finepref.formats.collection import (
    OUTCOMES,
    PICTURES,
    SKIP,
    STUDY,
    CollectionRecord,
    Mode,
    compared,
    fits_answer,
    is_gold,
    read_study,
)
from finepref.formats.tables import Table, version_of
from finepref.formats.textfiles import Line

LAST_SECOND = 253402300799  # of the year 9999
COLUMNS = (
    "pair_id", "prompt", "image_0", "image_1", "label", "model_0", "model_1", "voter", "weight", "both_bad",
    "question", "game", "time",
)  # fmt: skip


def study_table(folder: Path) -> Table:
    """The votes of a study as a table of the dialect `pairs`, their pictures as files of the folder."""
    about = read_study(folder)

    def lines(columns: Sequence[str] | None) -> Iterator[Line]:
        wanted = {*(COLUMNS if columns is None else columns)}
        with reading_votes(folder / VOTES) as connection:
            pictures = {each.id: each for each in pictures_of(connection)}
            names = {each.id: each.called for each in voters_of(connection)}
            for answer, shown in votes_of(connection, about):
                for cells in rows_of(about, answer, shown, pictures, voter=names[shown.voter]):
                    yield Line(answer.id, {name: cells[name] for name in wanted})

    version = "\n".join(_versions(folder))
    return Table(folder, COLUMNS, folder, version, lines, unit="answer")


def counts(answer: Answer, shown: ShownSet) -> bool:
    """Whether an answer is a vote."""
    return not answer.undone and shown.kind == "plain" and answer.answer != json.dumps(SKIP)


def voted_on(folder: Path) -> set[int]:
    """Places of the questions that somebody who is not excluded has voted on."""
    about = read_study(folder)
    with reading_votes(folder / VOTES) as connection:
        return {answer.question for answer, _ in votes_of(connection, about)}


def votes_of(connection: sqlite3.Connection, about: CollectionRecord) -> Iterator[tuple[Answer, ShownSet]]:
    """The answers that are votes, of voters who are not excluded, each with its set; see `checked_answers`."""
    active = {each.id for each in voters_of(connection) if each.state == "active"}
    for answer, shown in checked_answers(connection, about):
        if counts(answer, shown) and shown.voter in active:
            yield answer, shown


def checked_answers(
    connection: sqlite3.Connection, about: CollectionRecord, voter: int | None = None
) -> Iterator[tuple[Answer, ShownSet]]:
    """All answers, or those of a voter, undone ones too, each with its set, checked against what the study is.

    Raises:
        InputError: one that this study cannot have been given; names its id.
    """
    count, voters = len(checked_pictures(connection, about)), {each.id for each in voters_of(connection)}
    if voter is None and (second := second_answer(connection)) is not None:
        raise damaged(connection, f"answer {second}: another answer to the same question stands already")
    for answer, shown in answered_after(connection, voter=voter):
        fault = _fault_of_shown(about, shown, count, voters) or _fault_of_answer(about, answer, shown)
        if not fault and shown.kind == "repeat":
            before = shown_by_id(connection, shown.known)
            turned = before is not None and sorted(before.pictures) != sorted(shown.pictures)
            fault = "it repeats a set of other pictures" if turned else ""
        if fault:
            raise damaged(connection, f"answer {answer.id}: {fault}")
        yield answer, shown


def checked_sets(
    connection: sqlite3.Connection, about: CollectionRecord, voter: int | None = None
) -> Iterator[tuple[ShownSet, list[Answer]]]:
    """Every set that was shown, to all or to a voter, checked, with the answers to it that stand.

    Those with answers come first, in the order in which they were given; then those that are out, as they were shown.

    Raises:
        InputError: see `checked_answers`.
    """
    stand = (each for each in checked_answers(connection, about, voter) if not each[0].undone)
    every = [*range(len(about.questions))]
    for _, group in itertools.groupby(stand, key=lambda each: each[0].shown):
        answers, sets = zip(*group, strict=True)
        if [answer.question for answer in answers] != every:
            raise damaged(connection, f"answer {answers[0].id}: its set has not one answer to every question")
        yield sets[0], [*answers]
    count, voters = len(pictures_of(connection)), {each.id for each in voters_of(connection)}
    for shown in open_sets(connection, voter):
        fault = _fault_of_shown(about, shown, count, voters)
        if fault:
            raise damaged(connection, f"set {shown.id!r}: {fault}")
        yield shown, []


def check_pictures(folder: Path, pictures: Sequence[PictureRow]) -> None:
    """See that the files of a study's pictures are there.

    Raises:
        InputError: one is gone.
    """
    for picture in pictures:
        if not (folder / PICTURES / picture.name).is_file():
            remedy = "call `finepref collect` as when the study was made, which makes it anew"
            raise InputError("the picture is gone", where=folder / PICTURES / picture.name, remedy=remedy)


def checked_pictures(connection: sqlite3.Connection, about: CollectionRecord) -> list[PictureRow]:
    """The pictures of a study, whose ids count up from 0.

    Raises:
        InputError: others than those of study.json.
    """
    pictures = pictures_of(connection)
    if about.sources and len(pictures) != sum(each.pictures for each in about.sources):
        raise damaged(connection, f"it holds {len(pictures)} pictures, {STUDY} tells of another number")
    for number, each in enumerate(pictures):
        fits = 0 <= each.model < len(about.models) and 0 <= each.prompt < len(about.prompts)
        if each.id != number or not fits:
            raise damaged(connection, f"picture {each.id} is none of {STUDY}")
    if not all(is_gold(each, len(pictures)) for each in about.gold):
        raise damaged(connection, f"it lacks pictures of the gold of {STUDY}")
    return pictures


def _fault_of_shown(about: CollectionRecord, shown: ShownSet, count: int, voters: set[int]) -> str:
    if shown.voter not in voters:
        return f"no voter {shown.voter}"
    if not about.images == len(shown.pictures) == len({*shown.pictures}):
        return f"a set of {len(shown.pictures)} pictures, not of {about.images} different ones"
    if not 0 <= min(shown.pictures) <= max(shown.pictures) < count:
        return "a picture that is not there"
    if shown.kind not in KINDS:
        return f"{shown.kind!r} is no kind of set"
    return f"{shown.known!r} is no known answer" if shown.kind == "gold" and shown.known not in OUTCOMES else ""


def _fault_of_answer(about: CollectionRecord, answer: Answer, shown: ShownSet) -> str:
    if not 0 <= answer.question < len(about.questions):
        return f"no question {answer.question}"
    if not 0 <= answer.answered_at <= LAST_SECOND:
        return f"{answer.answered_at} is no time"
    return "" if _fits(about.mode, answer.answer, len(shown.pictures)) else f"it does not fit mode {about.mode}"


@lru_cache(maxsize=4096)
def _fits(mode: Mode, text: str, size: int) -> bool:
    """Whether a text is what is kept of an answer to a set of `size` pictures."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return as_json(said) == text and fits_answer(mode, said, size)


def rows_of(
    about: CollectionRecord, answer: Answer, shown: ShownSet, pictures: Mapping[int, PictureRow], *, voter: str
) -> Iterator[dict[str, Any]]:
    """The rows of an answer: one for every two pictures that it compares."""
    said = json.loads(answer.answer)
    held = [pictures[number] for number in shown.pictures]
    time = datetime.datetime.fromtimestamp(answer.answered_at, datetime.UTC).isoformat()
    for a, b, share in compared(about.mode, said, len(held)):
        yield {
            "pair_id": f"{about.id}-{answer.id}-{a}-{b}", "prompt": about.prompts[held[a].prompt],
            "image_0": f"{PICTURES}/{held[a].name}", "image_1": f"{PICTURES}/{held[b].name}",
            "label": share, "model_0": about.models[held[a].model], "model_1": about.models[held[b].model],
            "voter": voter, "weight": 1.0, "both_bad": said == "both_bad",
            "question": about.questions[answer.question].name,
            "game": None if about.mode == "pair" else answer.shown, "time": time,
        }  # fmt: skip


def with_files(cells: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A row whose pictures are named from where the person is, not from the study's folder."""
    return {**cells, **{name: str(folder / cells[name]) for name in ("image_0", "image_1")}}


def _versions(folder: Path) -> Iterator[str]:
    for name in (STUDY, VOTES, f"{VOTES}-wal"):
        with suppress(FileNotFoundError):
            yield version_of(folder / name)
