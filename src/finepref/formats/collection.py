"""A study of `finepref collect`: study.json, and its answers as a table of preferences that every reader takes.

Votes on plain sets count, of voters who are not excluded, in the order in which they were given. Sets whose answer is
known and sets that repeat others are for checks, skipped ones and undone ones say nothing: they are no rows.
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from finepref.core.errors import InputError
from finepref.core.files import write_json
from finepref.formats.answers import (
    KINDS,
    REMEDY,
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
    shown_by_id,
    voters_of,
)
from finepref.formats.records import read_record
from finepref.formats.tables import Table, version_of
from finepref.formats.textfiles import Line

STUDY, PICTURES = "study.json", "pictures"
VERSION = 1
Mode = Literal["pair", "rank", "best"]
Choice = Literal["information", "fewest-first", "ksort"]
CHOICES: tuple[Choice, ...] = ("information", "fewest-first", "ksort")
OUTCOMES = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
"""What is answered about a pair, as the share of the left."""
SKIP = "skip"
SIZES: Mapping[str, tuple[int, int]] = {"pair": (2, 2), "rank": (3, 6), "best": (2, 6)}
"""Pictures of a set, from and to."""
WRITTEN = "it is as `finepref collect` wrote it, and not to be changed by hand"
LAST_SECOND = 253402300799  # of the year 9999
COLUMNS = (
    "pair_id", "prompt", "image_0", "image_1", "label", "model_0", "model_1", "voter", "weight", "both_bad",
    "question", "game", "time",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StudyQuestion:
    """What is asked about every set: a name for files, and the sentence that voters read."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class StudySource:
    """Where pictures come from: a model's name, folder, how many, and a hash of them all."""

    model: str
    path: str
    pictures: int
    sha256: str


@dataclass(frozen=True, slots=True)
class GoldSet:
    """A pair whose answer is known: ids of the two pictures, and which of them is better (0, 1)."""

    pictures: tuple[int, int]
    better: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionRecord:
    """What study.json holds.

    id: tells its pairs from those of other studies. images: of a set. votes: sets that a voter is asked for at most,
    None without end.

    error: of a rating, at which the order is known well enough to stop; None: until the order is certain. purpose:
    `order` of the models, or `training`. choice: of the next set, by what its answer tells, of what was shown least, or
    as K-Sort Arena does. gold_every, repeat_every: one in so many sets is one of these; 0: none.
    """

    mode: Mode
    images: int
    questions: tuple[StudyQuestion, ...]
    models: tuple[str, ...]
    prompts: tuple[str, ...]
    sources: tuple[StudySource, ...]
    id: str = ""
    seed: int = 0
    preset: str = ""
    purpose: Literal["order", "training"] = "order"
    choice: Choice = "information"
    votes: int | None = None
    error: float | None = None
    gold: tuple[GoldSet, ...] = ()
    gold_every: int = 0
    repeat_every: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION


def is_study(folder: str | Path) -> bool:
    """Whether a folder holds a study."""
    return all(os.path.isfile(Path(folder) / name) for name in (STUDY, VOTES))  # False for a name that none can have


def read_study(folder: str | Path) -> CollectionRecord:
    """What a study is.

    Raises:
        InputError: no such file, not of this form, or numbers that do not go together.
    """
    place = Path(folder) / STUDY
    found = read_record(place, CollectionRecord, version=VERSION, remedy=REMEDY)
    fault = _fault_of_study(found)
    if fault:
        raise InputError(fault, where=place, remedy=f"put it back from a backup; {WRITTEN}")
    return found


def _fault_of_study(about: CollectionRecord) -> str:
    low, high = SIZES[about.mode]
    names, count = {each.name for each in about.questions}, sum(each.pictures for each in about.sources) or sys.maxsize
    every = (about.gold_every, about.repeat_every)
    faults = {
        "models: fewer than two, or one twice": not 2 <= len(set(about.models)) == len(about.models),
        "prompts: none": not about.prompts,
        "questions: none, or one twice": not 1 <= len(names) == len(about.questions),
        f"images: {about.images} in mode {about.mode}": not low <= about.images <= min(high, len(about.models)),
        f"votes: {about.votes}": about.votes is not None and about.votes < 1,
        f"error: {about.error}": about.error is not None and not 0 < about.error < math.inf,
        f"seed: {about.seed}": about.seed < 0,
        f"gold_every, repeat_every: {every}": any(number < 0 or number == 1 for number in every),
        "gold: not two pictures of the study, and which is better": not all(
            _is_gold(each, count) for each in about.gold
        ),
        f"gold: pairs in mode {about.mode}": bool(about.gold) and about.mode != "pair",
        "gold_every: without gold, or 0 with it": bool(about.gold) != bool(about.gold_every),
    }
    return next((fault for fault, found in faults.items() if found), "")


def _is_gold(gold: GoldSet, count: int) -> bool:
    return len({*gold.pictures}) == 2 and all(0 <= each < count for each in gold.pictures) and gold.better in (0, 1)


def write_study(folder: Path, record: CollectionRecord) -> None:
    """Write study.json, which makes the folder a study."""
    write_json(folder / STUDY, asdict(record))


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


def checked_answers(connection: sqlite3.Connection, about: CollectionRecord) -> Iterator[tuple[Answer, ShownSet]]:
    """All answers, undone ones too, each with its set, checked against what the study is; see `answered_after`.

    Raises:
        InputError: one that this study cannot have been given; names its id.
    """
    count, voters = _checked_pictures(connection, about), {each.id for each in voters_of(connection)}
    for answer, shown in answered_after(connection):
        fault = _fault_of_shown(about, shown, count, voters) or _fault_of_answer(about, answer, shown)
        if not fault and shown.kind == "repeat":
            before = shown_by_id(connection, shown.known)
            turned = before is not None and sorted(before.pictures) != sorted(shown.pictures)
            fault = "it repeats a set of other pictures" if turned else ""
        if fault:
            raise damaged(connection, f"answer {answer.id}: {fault}")
        yield answer, shown


def check_votes(folder: Path) -> None:
    """Look at all that a study holds before it is served: its answers, the sets that are out, its pictures.

    Raises:
        InputError: something that cannot be; a picture that is gone.
    """
    about = read_study(folder)
    with reading_votes(folder / VOTES) as connection:
        for _ in checked_answers(connection, about):
            pass
        pictures, voters = pictures_of(connection), {each.id for each in voters_of(connection)}
        for shown in open_sets(connection):
            fault = _fault_of_shown(about, shown, len(pictures), voters)
            if fault:
                raise damaged(connection, f"set {shown.id!r}: {fault}")
    for picture in pictures:
        if not (folder / PICTURES / picture.name).is_file():
            remedy = "call `finepref collect` as when the study was made, which makes it anew"
            raise InputError("the picture is gone", where=folder / PICTURES / picture.name, remedy=remedy)


def _checked_pictures(connection: sqlite3.Connection, about: CollectionRecord) -> int:
    """How many pictures there are, whose ids count up from 0."""
    pictures = pictures_of(connection)
    if about.sources and len(pictures) != sum(each.pictures for each in about.sources):
        raise damaged(connection, f"it holds {len(pictures)} pictures, {STUDY} tells of another number")
    for number, each in enumerate(pictures):
        fits = 0 <= each.model < len(about.models) and 0 <= each.prompt < len(about.prompts)
        if each.id != number or not fits:
            raise damaged(connection, f"picture {each.id} is none of {STUDY}")
    if not all(_is_gold(each, len(pictures)) for each in about.gold):
        raise damaged(connection, f"it lacks pictures of the gold of {STUDY}")
    return len(pictures)


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


def fits_answer(mode: Mode, said: Any, size: int) -> bool:
    """Whether a value, as JSON gives it, is an answer to a set of `size` pictures."""
    if said == SKIP:
        return True
    if mode == "pair":
        return isinstance(said, str) and said in OUTCOMES
    if mode == "best":
        return type(said) is int and 0 <= said < size
    whole = isinstance(said, list) and len(said) == size and all(type(each) is int for each in said)
    return whole and 1 in said and 1 <= min(said) <= max(said) <= size


def compared(mode: Mode, said: Any, size: int) -> Iterator[tuple[int, int, float]]:
    """(position, position, share of the first) of every two pictures that an answer compares.

    said: the answer. A ranking compares all, the best one with all others. size: pictures of the set.
    """
    if mode == "pair":
        yield 0, 1, OUTCOMES[said]
    elif mode == "rank":
        for a, b in itertools.combinations(range(size), 2):
            yield a, b, 0.5 if said[a] == said[b] else float(said[a] < said[b])
    else:
        for other in range(size):
            if other != said:
                yield min(said, other), max(said, other), float(said < other)


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
