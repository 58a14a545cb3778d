"""Rows of a table as comparisons of two images, whatever the dialect: what each cell means, before pairs have ids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from finepref.core.errors import InputError
from finepref.core.regular import read_regular
from finepref.formats.dialects import PICTURES, Dialect, find_dialect, flat, has_vote, missing
from finepref.formats.tables import Row, Table, is_missing

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

    pair_id: stable id (docs/data.md). label: P(image_0 preferred) in {1.0, 0.5, 0.0}; 0.5 is a tie, nan no vote.
    """

    pair_id: str
    prompt: str
    image_0: ImageRef
    image_1: ImageRef
    label: float
    model_0: str | None = None
    model_1: str | None = None
    voter: str | None = None


class Draft(NamedTuple):
    """A preference without its id; hashed_voter: the voter that a hashed id names; problem: why it cannot be used."""

    preference: Preference
    own_id: str | None
    hashed_voter: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class PairRows:
    """A table in a dialect. cast: role -> columns, best first; hashed: voter columns that are part of a hashed id."""

    table: Table
    dialect: Dialect
    cast: Mapping[str, Sequence[str]]
    hashed: Sequence[str]

    def place(self, index: int) -> str:
        """File and row, for messages."""
        return f"{self.table.path}: row {index}"

    def get(self, row: Row, role: str) -> Any:
        """The first cell with a value that plays a role."""
        return next((row[name] for name in self.cast.get(role, ()) if row.get(name) is not None), None)

    def text(self, row: Row, role: str) -> str | None:
        """A cell as text, None where it is missing."""
        value = self.get(row, role)
        return None if is_missing(value) else str(value)

    def hashed_voter(self, row: Row) -> str | None:
        """The voter that a hashed id names; spelt as it stands, since stored ids depend on it."""
        return next((str(row[name]) for name in self.hashed if row.get(name) not in (None, "")), None)

    def rank(self, row: Row, index: int) -> float:
        """The place in a ranking, nan where it is missing."""
        value = self.get(row, "rank")
        try:
            return math.nan if is_missing(value) else float(value)
        except (TypeError, ValueError):
            what = f"{self.cast['rank'][0]} {value!r} is not a number"
            raise InputError(what, where=self.place(index), remedy="write 1 for the best") from None

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
        if isinstance(value, list):
            return "", "the prompt is a list"
        return ("", "the prompt is empty") if is_missing(value) else (str(value), "")

    def label(self, row: Row, index: int) -> tuple[float, str]:
        """(label, problem): P(left preferred), nan where nobody voted."""
        if "winner" not in self.cast:
            return 1.0, ""
        vocabulary = self.dialect.vocabulary
        word = self.text(row, "winner")
        if word is None or not has_vote(self.get(row, "has_label")):
            return math.nan, ""
        side = vocabulary.outcome(word, self.text(row, "left"), self.text(row, "right"))
        other = self.text(row, "other_label")
        opposite = vocabulary.side(other) if other is not None else None if side is None else -side
        if side is None or opposite is None:
            role, word = ("winner", word) if side is None else ("other_label", str(other))
            column = next(name for name in self.cast[role] if row.get(name) is not None)
            raise vocabulary.refusal(word, column, self.place(index))
        label, rest = (1.0 + side) / 2.0, (1.0 + opposite) / 2.0
        first, second = (self.cast.get(role, [role])[0] for role in ("winner", "other_label"))
        problem = f"{first} {label:g} and {second} {rest:g} do not add up to 1"
        return label, "" if label + rest == 1.0 else problem

    def drafts(self, *, images: bool) -> Iterator[Draft]:
        """Every pair in file order; images: whether the columns of pictures are read."""
        wanted = {name for role, names in self.cast.items() if images or role not in PICTURES for name in names}
        rows = self.table.rows([name for name in self.table.columns if name in wanted])
        return self._games(rows) if self.dialect.kwise else self._pairs(rows)

    def _pairs(self, rows: Iterator[Row]) -> Iterator[Draft]:
        """One row, one pair."""
        for index, row in enumerate(rows):
            prompt, problem = self.prompt(row)
            label, doubt = self.label(row, index)
            images = self.image(row, "left_image", "left_uid"), self.image(row, "right_image", "right_uid")
            names = (self.text(row, role) for role in ("left", "right", "voter"))
            pair = Preference("", prompt, *images, label, *names)
            yield Draft(pair, self.text(row, "pair_id"), self.hashed_voter(row), problem or doubt)

    def _games(self, rows: Iterator[Row]) -> Iterator[Draft]:
        """All pairs of the items of one ranking, whose rows follow each other; equal ranks are a tie."""
        closed: set[str] = set()
        for group, members in itertools.groupby(enumerate(rows), key=lambda entry: str(self.get(entry[1], "group"))):
            if group in closed:
                column = self.cast["group"][0]
                what = f"{column} {group!r} comes back after others"
                raise InputError(what, where=self.table.path, remedy=f"sort the table by {column}")
            closed.add(group)
            items = [(row, self.rank(row, index)) for index, row in members]
            prompt, problem = self.prompt(items[-1][0])
            for (first, a), (second, b) in itertools.combinations(items, 2):
                label = math.nan if math.isnan(a) or math.isnan(b) else 0.5 + 0.5 * ((a < b) - (a > b))
                images = self.image(first, "image"), self.image(second, "image")
                models = self.text(first, "model"), self.text(second, "model")
                pair = Preference("", prompt, *images, label, *models, self.text(first, "voter"))
                yield Draft(pair, None, self.hashed_voter(first), problem)


def pair_rows(table: Table, named: Mapping[str, str], *, format: str, images: bool) -> PairRows:
    """A table in its dialect; every column that is needed is there."""
    dialect = find_dialect(table.columns, named, where=table.path, format=format)
    table, cast = flat(table, dialect, named), dialect.cast(named, first=(*PICTURES, "pair_id"))
    for role, found in cast.items():
        if role in NEEDED and (images or role not in PICTURES) and not {*found}.intersection(table.columns):
            raise missing(found[0], table.path, table.columns)
    hashed = [named.get("voter", named.get(name, name)) for name in dialect.hashed_voters]
    return PairRows(table, dialect, cast, hashed)
