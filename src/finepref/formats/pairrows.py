"""Rows of a table as comparisons of two images, whatever the dialect: what each cell means, before pairs have ids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from finepref.core.errors import InputError
from finepref.core.regular import read_regular
from finepref.core.text import clean_name, fault_of_name, fault_of_prompt, is_missing, visible
from finepref.formats.cells import as_number
from finepref.formats.detection import find_dialect, missing
from finepref.formats.dialects import PICTURES, Dialect
from finepref.formats.exports import is_unranked, is_yes
from finepref.formats.layout import flat, has_vote
from finepref.formats.outcomes import BOTH_BAD, LEFT, MEANING, NO_VOTE, RIGHT, SHARE, TIE, Vocabulary
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

    place: file and row. hashed_voter: the voter that a hashed id names. problem: why it cannot be used. bad: whether
    that is a fault of the row, or what it says itself.
    """

    preference: Preference | None
    place: str
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
    question: str | None = None

    def get(self, row: Row, role: str) -> Any:
        """The cell that plays a role, None without one."""
        return row.get(self.cast[role]) if role in self.cast else None

    def text(self, row: Row, role: str) -> str | None:
        """A cell as text, None where it is missing."""
        value = self.get(row, role)
        return None if is_missing(value) else str(value)

    def name(self, row: Row, role: str) -> str | None:
        """A cell as a name, trimmed and composed; None where it is missing."""
        text = self.text(row, role)
        name = None if text is None else clean_name(text)
        if name != text and role != "winner":
            note = f"{self.cast[role]} {visible(str(text))!r} is read as {visible(str(name))!r} (trimmed, composed)"
            self.account.notes.setdefault(note)
        return name

    def hashed_voter(self, row: Row) -> str | None:
        """The voter that a hashed id names; spelt as it stands, since stored ids depend on it."""
        return next((str(row[name]) for name in self.hashed if row.get(name) not in (None, "")), None)

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
        weight = self._number(row, "weight")
        if "left_votes" in self.cast:
            left, right = self._number(row, "left_votes"), self._number(row, "right_votes")
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
            what = f"{self.cast['tie']} {self.text(row, 'tie')!r} says neither yes nor no"
            raise InputError(what, where=place, remedy="write 1 for a tie and 0 for none")
        return self._worded(row, place, weight) if "winner" in self.cast else Said(1.0, weight)

    def _number(self, row: Row, role: str) -> float:
        """A number of 0 or above, nan where it is none; a weight that is missing is 1."""
        text = self.text(row, role)
        number = 1.0 if text is None and role == "weight" else as_number(text)
        return number if number >= 0 and math.isfinite(number) else math.nan

    def _shared(self, row: Row, weight: float) -> Said:
        share = self._number(row, "left_share")
        other = self._number(row, "right_share") if "right_share" in self.cast else 1.0 - share
        if share == 0.0 == other:
            return Said(math.nan, weight)
        fits = share <= 1.0 and abs(share + other - 1.0) <= 0.02
        return Said(share, weight) if fits else Said(math.nan, problem="the shares are no numbers that add up to 1")

    def _worded(self, row: Row, place: str, weight: float) -> Said:
        word = self.text(row, "winner")
        if word is None or not has_vote(self.get(row, "has_label")):
            return Said(math.nan, weight)
        side = self.vocabulary.outcome(clean_name(word), self.name(row, "left"), self.name(row, "right"))
        other = self.text(row, "other_label")
        opposite = None if other is None else self.vocabulary.side(other)
        if side is None or (other is not None and opposite is None):
            role, word = ("winner", word) if side is None else ("other_label", str(other))
            raise self.vocabulary.refusal(word, self.cast[role], place)
        by_name = self.vocabulary.side(word) is None
        key = "(a model's name)" if by_name else "(a number between 0 and 1)" if side == SHARE else clean_name(word)
        taken = "that model" if by_name else "the left's share" if side == SHARE else MEANING[side]
        self.account.words.setdefault(key, taken)
        label = points(side, word)
        problem, named = "", self.name(row, "winner_name")
        if named is not None and side in (LEFT, RIGHT) and named != self.name(row, "left" if side == LEFT else "right"):
            problem = f"{self.cast['winner']} and {self.cast['winner_name']} contradict each other"
        if opposite is not None and not abs(label + points(opposite, str(other)) - 1.0) < 1e-6:
            rest = points(opposite, str(other))
            problem = f"{self.cast['winner']} {label:g} and {self.cast['other_label']} {rest:g} do not add up to 1"
        bad = side == BOTH_BAD or (side == TIE and bool(is_yes(self.get(row, "both_bad"))))
        return Said(label, weight, bad, problem)

    def drafts(self, *, images: bool) -> Iterator[Draft]:
        """Every pair in file order; images: whether the columns of pictures are read."""
        wanted = {name for role, name in self.cast.items() if images or role not in PICTURES}
        wanted.update(self.hashed)
        lines = self._counted(self.table.lines([name for name in self.table.columns if name in wanted]))
        return self._games(lines) if self.dialect.kwise else self._pairs(lines)

    def _counted(self, lines: Iterator[Line]) -> Iterator[Line]:
        """The lines, counted by the rows of the file that they are of."""
        rows, last = 0, -1
        for line in lines:
            rows, last = rows + (line.at != last), line.at
            yield line
        self.account.sources[str(self.table.path)] = rows
        self.account.notes.update(dict.fromkeys(self.table.notes))

    def _pairs(self, lines: Iterator[Line]) -> Iterator[Draft]:
        """One row, one pair."""
        asked: set[str | None] = set()
        for line in lines:
            place, row = self.table.place(line.at), line.cells
            if line.fault:
                yield Draft(None, place, problem=line.fault, bad=line.bad)
                continue
            question = self.name(row, "question")
            other = self._other_question(question, asked)
            prompt, problem = self.prompt(row)
            said = self.said(row, place)
            images = self.image(row, "left_image", "left_uid"), self.image(row, "right_image", "right_uid")
            left, right, voter = (self.name(row, role) for role in ("left", "right", "voter"))
            problem = problem or said.problem or _bad_name(left, right, voter)
            pair = Preference(
                "", prompt, *images, said.label, left, right, voter, weight=said.weight, both_bad=said.both_bad,
                question=question, game=self.text(row, "game"), time=self.text(row, "time"),
            )  # fmt: skip
            own_id, hashed = self.text(row, "pair_id"), self.hashed_voter(row)
            yield Draft(pair, place, own_id, hashed, "another question" if other else problem, bad=not other)

    def _other_question(self, question: str | None, asked: set[str | None]) -> bool:
        """Whether a row answers another question than the one that was chosen; several without a choice are refused."""
        if "question" not in self.cast:
            return False
        asked.add(question)
        named = sorted(each for each in asked if each is not None)
        if self.question is None and len(named) > 1:
            what = f"its votes answer several questions, such as {' and '.join(map(repr, named[:2]))}"
            raise InputError(what, where=self.table.path, remedy="choose one with --question (data.question)")
        return self.question is not None and question != self.question.strip()

    def _games(self, lines: Iterator[Line]) -> Iterator[Draft]:
        """All pairs of the items of one ranking, whose rows follow each other; equal ranks are a tie."""
        closed: set[str] = set()
        for group, members in itertools.groupby(lines, key=lambda line: str(self.get(line.cells, "group"))):
            items: list[tuple[Row, float]] = []
            place = ""
            for line in members:
                place = self.table.place(line.at)
                rank = self.text(line.cells, "rank")
                if line.fault or rank is None or is_unranked(rank) or is_missing(group):
                    bad = line.bad if line.fault else not (rank and is_unranked(rank))
                    problem = line.fault or (
                        f"{self.cast['group']} is missing ({group!r})" if is_missing(group) else "not ranked"
                    )
                    yield Draft(None, place, problem=problem, bad=bad)
                    continue
                number = as_number(rank)
                if math.isnan(number):
                    what = f"{self.cast['rank']} {rank!r} is not a number"
                    raise InputError(what, where=place, remedy="write 1 for the best")
                items.append((line.cells, number))
            if not items:
                continue
            if group in closed:
                column = self.cast["group"]
                what = f"{column} {group!r} comes back after others"
                raise InputError(what, where=self.table.path, remedy=f"sort the table by {column}")
            closed.add(group)
            prompt, problem = self.prompt(items[-1][0])
            for (first, a), (second, b) in itertools.combinations(items, 2):
                label = 0.5 + 0.5 * ((a < b) - (a > b))
                images = self.image(first, "image"), self.image(second, "image")
                models = self.name(first, "model"), self.name(second, "model")
                pair = Preference("", prompt, *images, label, *models, self.name(first, "voter"), game=group)
                yield Draft(pair, place, None, self.hashed_voter(first), problem or _bad_name(*models))


def points(side: int, word: str) -> float:
    """The left's points of an outcome: 1, 0.5 or 0, its share, nan where nobody voted."""
    if side == SHARE:
        return float(word)
    return {LEFT: 1.0, RIGHT: 0.0, NO_VOTE: math.nan}.get(side, 0.5)


def _bad_name(*names: str | None) -> str:
    """Why one of these cannot be a name, else nothing."""
    faults = ((name, fault_of_name(name)) for name in names if name is not None)
    return next((f"{name!r} is no name: {fault}" for name, fault in faults if fault), "")


def pair_rows(table: Table, reading: Reading, *, images: bool, account: Account) -> PairRows:
    """A table in its dialect; every column that is needed is there."""
    named = reading.columns
    dialect = find_dialect(table.columns, reading, where=table.path)
    table = flat(table, dialect, named)
    cast = dialect.cast(named, first=(*PICTURES, "pair_id"), present=table.columns)
    for role in dialect.roles:
        if role in NEEDED and role not in cast and (images or role not in PICTURES):
            raise missing(dialect.columns(role, named)[0], table.path, table.columns)
    hashed = [named.get("voter", named.get(name, name)) for name in dialect.hashed_voters]
    return PairRows(table, dialect, cast, hashed, dialect.vocabulary(reading.outcomes, cast), account, reading.question)
