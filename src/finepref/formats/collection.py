"""A study of `finepref collect`: what study.json says, and what an answer may be."""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from finepref.core.errors import InputError
from finepref.core.files import write_json
from finepref.formats.answers import REMEDY, VOTES
from finepref.formats.records import read_record

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
            is_gold(each, count) for each in about.gold
        ),
        f"gold: pairs in mode {about.mode}": bool(about.gold) and about.mode != "pair",
        "gold_every: without gold, or 0 with it": bool(about.gold) != bool(about.gold_every),
    }
    return next((fault for fault, found in faults.items() if found), "")


def is_gold(gold: GoldSet, count: int) -> bool:
    """Whether it is two of `count` pictures, and which of them is better."""
    return len({*gold.pictures}) == 2 and all(0 <= each < count for each in gold.pictures) and gold.better in (0, 1)


def write_study(folder: Path, record: CollectionRecord) -> None:
    """Write study.json, which makes the folder a study."""
    write_json(folder / STUDY, asdict(record))


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
