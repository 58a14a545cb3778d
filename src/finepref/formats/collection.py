"""A study of `finepref collect`: study.json, and its answers as a table of preferences that every reader takes.

Votes on plain sets count, of voters who are not excluded, in the order in which they were given. Sets whose answer is
known and sets that repeat others are for checks, skipped ones and undone ones say nothing: they are no rows.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from finepref.core.files import write_json
from finepref.formats.answers import (
    REMEDY,
    VOTES,
    Answer,
    PictureRow,
    ShownSet,
    answered_after,
    pictures_of,
    reading_votes,
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
        InputError: no such file, or not of this form.
    """
    return read_record(Path(folder) / STUDY, CollectionRecord, version=VERSION, remedy=REMEDY)


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
            names = {each.id: each.called for each in voters_of(connection) if each.state == "active"}
            for answer, shown in answered_after(connection):
                if counts(answer, shown) and shown.voter in names:
                    for cells in rows_of(about, answer, shown, pictures, voter=names[shown.voter]):
                        yield Line(answer.id, {name: cells[name] for name in wanted})

    version = "\n".join(_versions(folder))
    return Table(folder, COLUMNS, folder, version, lines, unit="answer")


def counts(answer: Answer, shown: ShownSet) -> bool:
    """Whether an answer is a vote."""
    return not answer.undone and shown.kind == "plain" and answer.answer != json.dumps(SKIP)


def voted_on(folder: Path) -> set[int]:
    """Places of the questions that somebody who is not excluded has voted on."""
    with reading_votes(folder / VOTES) as connection:
        active = {each.id for each in voters_of(connection) if each.state == "active"}
        found = answered_after(connection)
        return {answer.question for answer, shown in found if shown.voter in active and counts(answer, shown)}


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
