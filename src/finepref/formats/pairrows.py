"""Rows of a table as comparisons of two images, whatever the dialect: what each cell means, before pairs have ids."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from finepref.core.errors import InputError
from finepref.core.regular import read_regular
from finepref.core.text import cell_text, clean_name, fault_of_name, fault_of_prompt, is_missing, visible
from finepref.formats.cells import as_number, is_amount
from finepref.formats.detection import find_dialect, missing
from finepref.formats.dialects import PICTURES, Dialect
from finepref.formats.exports import is_yes, no_tie
from finepref.formats.layout import flat, has_vote
from finepref.formats.outcomes import BOTH_BAD, LEFT, OFF_BY, RIGHT, TIE, Vocabulary, points
from finepref.formats.reading import Reading
from finepref.formats.tables import Row, Table
from finepref.formats.textfiles import Line

NEEDED = {"prompt", "winner", "group", "rank", *PICTURES}


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image that is not decoded yet: its encoded bytes, or a file. uid: the data set's own name for it, if any.

    root: the folder that the file must lie in; None where the person's own program names it.
    """

    data: bytes | None = None
    path: Path | None = None
    uid: str | None = None
    root: Path | None = None

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            InputError: the file is missing, empty, outside `root` or no regular file, or the row has neither bytes nor
                file.
        """
        if self.data is not None:
            content = self.data
        elif self.path is not None:
            content = read_regular(self.path, root=self.root)
        else:
            raise InputError("the row has no image bytes and no image file", where=self.uid)
        if not content:
            raise InputError("the image is empty (zero bytes)", where=self.path or self.uid)
        return content


@dataclass(frozen=True, slots=True)
class Preference:
    """A vote on two images of one prompt.

    pair_id: stable id (docs/data.md). label: P(image_0 preferred) in [0, 1]: 1, 0, 0.5 for a tie, between for a share
    of several votes, nan no vote. weight: how many votes it stands for. both_bad: a tie that says neither is good.
    question: what was asked. game: the ranking that it comes from. time: when, as it is written.
    """

    pair_id: str
    prompt: str
    image_0: ImageRef
    image_1: ImageRef
    label: float
    model_0: str | None = None
    model_1: str | None = None
    voter: str | None = None
    weight: float = 1.0
    both_bad: bool = False
    question: str | None = None
    game: str | None = None
    time: str | None = None


class Draft(NamedTuple):
    """A preference without its id, None of a row that could not be read.

    place: file and row. row: its number in the file, from 0. hashed_voter: the voter that a hashed id names.
    problem: why it cannot be used. bad: whether that is a fault of the row, or what it says itself.
    """

    preference: Preference | None
    place: str
    row: int
    own_id: str | None = None
    hashed_voter: str | None = None
    problem: str = ""
    bad: bool = True


@dataclass(slots=True)
class Account:
    """What was read: file -> its rows, outcome word -> how it was taken, sentences on what was read otherwise."""

    sources: dict[str, int] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Met:
    """What all tables have in common while they are gone through once: the questions of their votes, and ranking ->
    the file that it is in."""

    asked: set[str] = field(default_factory=set)
    rankings: dict[str, Path] = field(default_factory=dict)


class Said(NamedTuple):
    """What a row says: label and weight of `Preference`, whether neither is good, and why it cannot be used."""

    label: float
    weight: float = 1.0
    both_bad: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PairRows:
    """A table in a dialect. cast: role -> column; hashed: voter columns that are part of a hashed id."""

    table: Table
    dialect: Dialect
    cast: Mapping[str, str]
    hashed: Sequence[str]
    vocabulary: Vocabulary
    account: Account
    met: Met
    question: str | None = None

    def get(self, row: Row, role: str) -> Any:
        """The cell that plays a role, None without one."""
        return row.get(self.cast[role]) if role in self.cast else None

    def text(self, row: Row, role: str) -> str | None:
        """A cell as text, None where it is missing."""
        return cell_text(self.get(row, role))

    def name(self, row: Row, role: str) -> str | None:
        """A cell as a name, trimmed and composed; None where it is missing."""
        text = self.text(row, role)
        name = None if text is None else clean_name(text)
        if name != text and role != "winner":
            note = f"{self.cast[role]} {visible(str(text))!r} is read as {visible(str(name))!r} (trimmed, composed)"
            self.account.notes.setdefault(note)
        return name

    def hashed_voter(self, row: Row) -> str | None:
        """The voter that a hashed id names."""
        return next((as_id(row[name]) for name in self.hashed if row.get(name) not in (None, "")), None)

    def image(self, row: Row, role: str, uid: str = "") -> ImageRef:
        """An image from bytes, a {bytes, path} record, or a path."""
        value, name = self.get(row, role), self.text(row, uid)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes | bytearray | memoryview):
            return ImageRef(data=bytes(value), uid=name)
        root = self.table.root
        path = (root or Path()) / value if isinstance(value, str) and value else None
        return ImageRef(path=path, uid=name, root=root)

    def prompt(self, row: Row) -> tuple[str, str]:
        """(prompt, problem)."""
        value = self.get(row, "prompt")
        fault = fault_of_prompt(value)
        return ("", fault) if fault else (str(value), "")

    def said(self, row: Row, place: str) -> Said:
        """What the row says of its two sides.

        Raises:
            InputError: an outcome that is not known.
        """
        if not has_vote(self.get(row, "has_label")):
            return Said(math.nan)
        weight = self.number(row, "weight")
        if "left_votes" in self.cast:
            left, right = self.number(row, "left_votes"), self.number(row, "right_votes")
            if math.isnan(left + right + weight):
                return Said(math.nan, problem="a count of votes is not a number of 0 or above")
            total = left + right
            return Said(left / total, weight * total) if total else Said(math.nan, 0.0)
        if math.isnan(weight):
            return Said(math.nan, problem=f"{self.cast['weight']} is not a number of 0 or above")
        if "left_share" in self.cast:
            return self._shared(row, weight)
        if is_yes(self.get(row, "tie")):
            return Said(0.5, weight)
        if "tie" in self.cast and is_yes(self.get(row, "tie")) is None:
            raise no_tie(self.cast["tie"], self.text(row, "tie"), place)
        return self._worded(row, place, weight) if "winner" in self.cast else Said(1.0, weight)

    def number(self, row: Row, role: str) -> float:
        """A number of 0 or above, nan where it is none; a weight that is missing is 1."""
        text = self.text(row, role)
        number = 1.0 if text is None and role == "weight" else as_number(text)
        return number if is_amount(number) else math.nan

    def _shared(self, row: Row, weight: float) -> Said:
        share = self.number(row, "left_share")
        other = self.number(row, "right_share") if "right_share" in self.cast else 1.0 - share
        if share == 0.0 == other:
            return Said(math.nan, weight)
        fits = share <= 1.0 and abs(share + other - 1.0) <= OFF_BY
        return Said(share, weight) if fits else Said(math.nan, problem="the shares are no numbers that add up to 1")

    def _worded(self, row: Row, place: str, weight: float) -> Said:
        word = self.text(row, "winner")
        if word is None:
            lost = f"{self.cast['winner']} is missing (empty, null, nan or n/a)"
            return Said(math.nan, weight, problem="" if self.dialect.null_is_no_vote else lost)
        side = self.vocabulary.outcome(clean_name(word), self.name(row, "left"), self.name(row, "right"))
        other = self.text(row, "other_label")
        if side is None:
            raise self.vocabulary.refusal(word, self.cast["winner"], place)
        key, taken = self.vocabulary.taken(clean_name(word))
        self.account.words.setdefault(key, taken)
        label = points(side, word)
        problem, named = "", self.name(row, "winner_name")
        if named is not None and side in (LEFT, RIGHT) and named != self.name(row, "left" if side == LEFT else "right"):
            problem = f"{self.cast['winner']} and {self.cast['winner_name']} contradict each other"
        if other is not None and not abs(label + self.vocabulary.points(other) - 1.0) < 1e-6:
            said = visible(other)[:40]
            problem = f"{self.cast['winner']} {label:g} and {self.cast['other_label']} {said} do not add up to 1"
        bad = side == BOTH_BAD or (side == TIE and bool(is_yes(self.get(row, "both_bad"))))
        return Said(label, weight, bad, problem)

    def lines(self, *, images: bool) -> Iterator[tuple[int, Line]]:
        """Every line, with the number of its row among those of the file; images: whether pictures are read too."""
        wanted = {name for role, name in self.cast.items() if images or role not in PICTURES}
        wanted.update(self.hashed)
        rows, last = self.table.first, -1
        for line in self.table.lines([name for name in self.table.columns if name in wanted]):
            rows, last = rows + (line.at != last), line.at
            yield rows - 1, line
        self.account.sources[str(self.table.path)] = rows - self.table.first
        self.account.notes.update(dict.fromkeys(self.table.notes))

    def pairs(self, lines: Iterator[tuple[int, Line]]) -> Iterator[Draft]:
        """One row, one pair."""
        for number, line in lines:
            place, row = self.table.place(line.at), line.cells
            if line.fault:
                yield Draft(None, place, number, problem=line.fault, bad=line.bad)
                continue
            question = self.name(row, "question")
            other = self.is_other(question)
            prompt, problem = self.prompt(row)
            said = Said(math.nan) if other else self.said(row, place)
            if said.problem or not math.isnan(said.label):
                self.ask(question)
            images = self.image(row, "left_image", "left_uid"), self.image(row, "right_image", "right_uid")
            left, right, voter = (self.name(row, role) for role in ("left", "right", "voter"))
            problem = problem or said.problem or bad_name(left, right, voter)
            pair = Preference(
                "", prompt, *images, said.label, left, right, voter, weight=said.weight, both_bad=said.both_bad,
                question=question, game=self.text(row, "game"), time=self.text(row, "time"),
            )  # fmt: skip
            own = self.get(row, "pair_id")
            own_id, hashed = None if is_missing(own) else as_id(own), self.hashed_voter(row)
            yield Draft(pair, place, number, own_id, hashed, "another question" if other else problem, bad=not other)

    def is_other(self, question: str | None) -> bool:
        """Whether a row answers another question than the one that was chosen."""
        return "question" in self.cast and self.question is not None and question != clean_name(self.question)

    def ask(self, question: str | None) -> None:
        """Note the question of a vote; several without a choice are refused."""
        if question is None:
            return
        asked = self.met.asked
        asked.add(question)
        if self.question is None:
            refuse_several(asked, where=self.table.path)


def refuse_several(asked: Collection[str], *, where: object) -> None:
    """Refuse votes on several questions of which none was chosen."""
    if len(asked) > 1:
        what = f"its votes answer several questions, such as {' and '.join(map(repr, sorted(asked)[:2]))}"
        raise InputError(what, where=where, remedy="choose one with --question (data.question)")


def as_id(value: Any) -> str:
    """An id as it stands, 12.0 too: stored ids depend on its spelling."""
    return str(cell_text(value)) if isinstance(value, list | dict) else str(value)


def bad_name(*names: str | None) -> str:
    """Why one of these cannot be a name, else nothing."""
    faults = ((name, fault_of_name(name)) for name in names if name is not None)
    return next((f"{name!r} is no name: {fault}" for name, fault in faults if fault), "")


def pair_rows(table: Table, reading: Reading, *, images: bool, account: Account, met: Met, number: int = 0) -> PairRows:
    """A table in its dialect; every column that is needed is there. number: of the table among all of them."""
    named = reading.columns
    dialect = find_dialect(table.columns, reading, where=table.path)
    table = flat(table, dialect, named, number=number)
    cast = dialect.cast(named, first=(*PICTURES, "pair_id"), present=table.columns)
    for role in dialect.roles:
        if role in NEEDED and role not in cast and (images or role not in PICTURES):
            raise missing(dialect.columns(role, named)[0], table.path, table.columns)
    for role, column in list(cast.items()):
        if column in table.nameless and role not in NEEDED and role != "pair_id":
            if column in named.values():
                what = f"column {visible(column)!r} ({role}) holds lists, records or bytes"
                raise InputError(what, where=table.path, remedy="name a column of text")
            del cast[role]
    if reading.question is not None and "question" not in cast:
        remedy = "leave --question (data.question) out, or name the column"
        raise InputError("the votes name no question", where=table.path, remedy=remedy)
    hashed = [named.get("voter", named.get(name, name)) for name in dialect.hashed_voters]
    vocabulary = dialect.vocabulary(reading.outcomes, cast)
    return PairRows(table, dialect, cast, hashed, vocabulary, account, met, reading.question)
