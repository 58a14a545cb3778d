"""What votes.sqlite of a study holds: pictures, voters, what they were shown, and every answer, undone ones too.

Answers are in the order of their `id`, not of the clock.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from finepref.formats.answerfile import (
    REMEDY,
    TABLES,
    VERSION,
    VOTES,
    backup,
    connect,
    damaged,
    opened,
    reading_votes,
    whole,
)

__all__ = [
    "KINDS", "REMEDY", "VOTES", "Answer", "PictureRow", "ShownSet", "StudyVoter", "add_answers", "add_shown",
    "add_voter", "answered_after", "answers_of_set", "as_json", "backup", "change_voter", "columns_of", "connect",
    "create", "damaged", "last_answered", "last_change", "newest_answers", "open_sets", "pictures_of", "plain_before",
    "put_setting", "reading_votes", "remove_votes", "second_answer", "setting", "shown_by_id", "shown_to",
    "standing_answers", "times_of", "undo_set", "voters_of", "whole",
]  # fmt: skip

KINDS = ("plain", "gold", "repeat")
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A picture of a study. model, prompt: places in study.json. name: of its file in `pictures/`."""

    id: int
    model: int
    prompt: int
    name: str
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class StudyVoter:
    """A voter. name: a pseudonym, empty once it was forgotten. token: hash of the secret part of the personal link.

    state: active or excluded. made_at: seconds.
    """

    id: int
    name: str
    token: str
    state: str
    made_at: float

    @property
    def called(self) -> str:
        """The name in tables: the pseudonym, or of one that was forgotten a number, which nobody can be called."""
        return self.name or f"forgotten voter {self.id}"


@dataclass(frozen=True, slots=True)
class ShownSet:
    """Pictures that were put before a voter, by id, in the order shown.

    kind: plain, gold (`known`: the right answer) or repeat (`known`: id of the set that it repeats). number: of the
    voter's sets, from 0.
    """

    id: str
    voter: int
    pictures: tuple[int, ...]
    kind: str
    known: str
    shown_at: float
    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to one question about one set. answer: as JSON. revision: how often the set had been undone before.

    milliseconds: from when all pictures were there; loaded: until they were.
    """

    id: int
    shown: str
    question: int
    answer: str
    revision: int
    answered_at: float
    milliseconds: int
    loaded: int
    device: str
    input: str
    undone: int = 0


_TABLE = {"PictureRow": "picture", "StudyVoter": "voter", "ShownSet": "shown", "Answer": "answer"}


def create(path: Path, pictures: Sequence[PictureRow]) -> None:
    """A new file with the pictures of a study; written under a temporary name by the caller."""
    with opened(path, "rwc") as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")  # the caller flushes it
        connection.executescript(TABLES)
        connection.executemany(_put(PictureRow), map(astuple, pictures))
        connection.execute(f"PRAGMA user_version = {VERSION}")


def pictures_of(connection: sqlite3.Connection) -> list[PictureRow]:
    """All pictures, by id."""
    return _rows(connection, PictureRow, f"SELECT {columns_of(PictureRow)} FROM picture ORDER BY id")


def voters_of(connection: sqlite3.Connection) -> list[StudyVoter]:
    """All voters, by id."""
    return _rows(connection, StudyVoter, f"SELECT {columns_of(StudyVoter)} FROM voter ORDER BY id")


def shown_to(connection: sqlite3.Connection, voter: int) -> list[ShownSet]:
    """All sets that a voter was shown, in order."""
    query = f"SELECT {columns_of(ShownSet)} FROM shown WHERE voter = ? ORDER BY number"
    return [_as_shown(connection, values) for values in connection.execute(query, [voter])]


def open_sets(connection: sqlite3.Connection, voter: int | None = None) -> list[ShownSet]:
    """The sets that are out with a voter, or with all: shown, and without an answer that stands."""
    stands = "SELECT 1 FROM answer WHERE answer.shown = shown.id AND undone = 0"
    where, given = _of_voter(voter)
    query = f"SELECT {columns_of(ShownSet)} FROM shown WHERE NOT EXISTS ({stands}){where} ORDER BY rowid"
    return [_as_shown(connection, values) for values in connection.execute(query, given)]


def plain_before(connection: sqlite3.Connection, voter: int, *, skip: int, most: int) -> list[ShownSet]:
    """At most `most` of the plain sets that a voter was shown, newest first, without the newest `skip`."""
    query = f"SELECT {columns_of(ShownSet)} FROM shown WHERE voter = ? AND kind = 'plain'"
    found = connection.execute(f"{query} ORDER BY number DESC LIMIT ? OFFSET ?", [voter, most, skip])
    return [_as_shown(connection, values) for values in found]


def shown_by_id(connection: sqlite3.Connection, name: str) -> ShownSet | None:
    """The set of this id."""
    found = connection.execute(f"SELECT {columns_of(ShownSet)} FROM shown WHERE id = ?", [name]).fetchone()
    return None if found is None else _as_shown(connection, found)


def answered_after(
    connection: sqlite3.Connection, number: int = 0, voter: int | None = None
) -> Iterator[tuple[Answer, ShownSet]]:
    """All answers, or those of a voter, with a larger id, undone ones too, each with its set."""
    query = f"SELECT {columns_of(Answer)}, {columns_of(ShownSet)} FROM answer JOIN shown ON shown.id = answer.shown"
    where, given = _of_voter(voter)
    return _answered(connection, f"{query} WHERE answer.id > ?{where} ORDER BY answer.id", [number, *given])


def _of_voter(voter: int | None) -> tuple[str, list[int]]:
    return ("", []) if voter is None else (" AND shown.voter = ?", [voter])


def newest_answers(connection: sqlite3.Connection, question: int, most: int) -> Iterator[tuple[Answer, ShownSet]]:
    """Of every voter the newest answers to a question that stand, at most `most`, each with its set, in order."""
    newest = "row_number() OVER (PARTITION BY shown.voter ORDER BY answer.id DESC) AS place"
    joined = "JOIN shown ON shown.id = answer.shown"
    ranked = f"SELECT answer.id AS held, {newest} FROM answer {joined} WHERE question = ? AND undone = 0"
    query = (
        f"SELECT {columns_of(Answer)}, {columns_of(ShownSet)} FROM ({ranked}) JOIN answer ON answer.id = held {joined}"
    )
    return _answered(connection, f"{query} WHERE place <= ? ORDER BY answer.id", [question, most])


def standing_answers(connection: sqlite3.Connection, question: int) -> int:
    """How many answers to a question stand."""
    query = "SELECT count(*) FROM answer WHERE question = ? AND undone = 0"
    return int(connection.execute(query, [question]).fetchone()[0])


def second_answer(connection: sqlite3.Connection) -> int | None:
    """The id of an answer that stands beside another to the same question about the same set; None: there is none."""
    twice = "SELECT max(id) FROM answer WHERE undone = 0 GROUP BY shown, question HAVING count(*) > 1 LIMIT 1"
    found = connection.execute(twice).fetchone()
    return None if found is None else int(found[0])


def last_change(connection: sqlite3.Connection) -> tuple[int, int]:
    """(the largest id of an answer, how many are undone): another pair means other answers."""
    last, undone = connection.execute("SELECT max(id), total(undone) FROM answer").fetchone()
    return int(last or 0), int(undone)


def answers_of_set(connection: sqlite3.Connection, name: str) -> list[Answer]:
    """The answers to a set, undone ones too, in order."""
    return _rows(connection, Answer, f"SELECT {columns_of(Answer)} FROM answer WHERE shown = ? ORDER BY id", [name])


def last_answered(connection: sqlite3.Connection, voter: int) -> ShownSet | None:
    """The set that a voter answered last, whose answers stand."""
    query = f"SELECT {columns_of(ShownSet)} FROM shown JOIN answer ON answer.shown = shown.id"
    order = "WHERE shown.voter = ? AND undone = 0 ORDER BY answer.id DESC LIMIT 1"
    found = connection.execute(f"{query} {order}", [voter]).fetchone()
    return None if found is None else _as_shown(connection, found)


def times_of(connection: sqlite3.Connection, voter: int, most: int = 200) -> list[int]:
    """Milliseconds of a voter's last answers that stand, newest first."""
    query = "SELECT milliseconds FROM answer JOIN shown ON shown.id = answer.shown WHERE voter = ? AND undone = 0"
    found = connection.execute(f"{query} ORDER BY answer.id DESC LIMIT ?", [voter, most])
    return [int(row[0]) for row in found]


def add_voter(connection: sqlite3.Connection, *, name: str, token: str, at: float) -> StudyVoter:
    """A new voter, active."""
    put = "INSERT INTO voter (name, token, state, made_at) VALUES (?, ?, 'active', ?)"
    number = connection.execute(put, [name, token, at]).lastrowid
    assert number is not None
    return StudyVoter(number, name, token, "active", at)


def change_voter(connection: sqlite3.Connection, voter: int, **changes: str) -> None:
    """Set some of name, token and state of a voter."""
    names = [name for name in ("name", "token", "state") if name in changes]
    put = ", ".join(f"{name} = ?" for name in names)
    connection.execute(f"UPDATE voter SET {put} WHERE id = ?", [*(changes[name] for name in names), voter])


def add_shown(connection: sqlite3.Connection, shown: ShownSet) -> None:
    """Keep what is put before a voter."""
    held = [shown.id, shown.voter, json.dumps(shown.pictures), shown.kind, shown.known, shown.shown_at, shown.number]
    connection.execute(_put(ShownSet), held)


def add_answers(connection: sqlite3.Connection, answers: Sequence[Answer]) -> list[Answer]:
    """Keep the answers to one set; as they are kept, with the `id` that the file gives them.

    Raises:
        sqlite3.IntegrityError: answers to this set and revision are there.
    """
    names = [field.name for field in fields(Answer) if field.name != "id"]
    put = f"INSERT INTO answer ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    numbers = [connection.execute(put, [getattr(each, name) for name in names]).lastrowid for each in answers]
    return [replace(answer, id=number or 0) for answer, number in zip(answers, numbers, strict=True)]


def undo_set(connection: sqlite3.Connection, name: str) -> None:
    """Mark the answers to a set as undone."""
    connection.execute("UPDATE answer SET undone = 1 WHERE shown = ?", [name])


def remove_votes(connection: sqlite3.Connection, voter: int) -> None:
    """Remove a voter's answers and what was shown, for good."""
    with whole(connection):
        connection.execute("DELETE FROM answer WHERE shown IN (SELECT id FROM shown WHERE voter = ?)", [voter])
        connection.execute("DELETE FROM shown WHERE voter = ?", [voter])


def setting(connection: sqlite3.Connection, name: str, usual: str) -> str:
    """What the owner set, such as whether the study is paused."""
    found = connection.execute("SELECT value FROM setting WHERE name = ?", [name]).fetchone()
    return usual if found is None else str(found[0])


def put_setting(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep what the owner set."""
    put = "INSERT INTO setting VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    connection.execute(put, [name, value])


def _table(kind: type) -> str:
    return _TABLE[kind.__name__]


def columns_of(kind: type) -> str:
    """The columns of a table in the order of a row's fields; others that it has are left."""
    return ", ".join(f"{_table(kind)}.{field.name}" for field in fields(kind))


def _put(kind: type) -> str:
    names = [field.name for field in fields(kind)]
    return f"INSERT INTO {_table(kind)} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


@cache
def _types(kind: type) -> tuple[type, ...]:
    """What SQLite gives for every field; a list of numbers is kept as text."""
    return tuple({"int": int, "float": float}.get(str(field.type), str) for field in fields(kind))


def _row(connection: sqlite3.Connection, kind: type[Row], values: Sequence[Any]) -> Row:
    _check_types(connection, kind, values)
    return kind(*values)


def _check_types(connection: sqlite3.Connection, kind: type, values: Sequence[Any]) -> None:
    if tuple(map(type, values)) != _types(kind):
        raise damaged(connection, f"{_table(kind)} {values[0]!r} has a value of another type")


def _rows(connection: sqlite3.Connection, kind: type[Row], query: str, given: Sequence[Any] = ()) -> list[Row]:
    return [_row(connection, kind, values) for values in connection.execute(query, given)]


def _answered(connection: sqlite3.Connection, query: str, given: Sequence[Any]) -> Iterator[tuple[Answer, ShownSet]]:
    size = len(fields(Answer))
    for values in connection.execute(query, given):
        yield _row(connection, Answer, values[:size]), _as_shown(connection, values[size:])


def _as_shown(connection: sqlite3.Connection, values: Sequence[Any]) -> ShownSet:
    _check_types(connection, ShownSet, values)
    pictures = _numbers(values[2])
    if pictures is None:
        raise damaged(connection, f"the pictures of set {values[0]!r} are no list of numbers")
    return ShownSet(values[0], values[1], pictures, *values[3:])


@lru_cache(maxsize=65536)
def _numbers(text: str) -> tuple[int, ...] | None:
    """A list of numbers that is kept as text; None: it is another thing."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    whole_numbers = isinstance(found, list) and all(type(each) is int for each in found)
    return tuple(found) if whole_numbers else None


def as_json(value: Mapping[str, Any] | Sequence[int] | str | int) -> str:
    """An answer as it is kept."""
    return json.dumps(value, separators=(",", ":"))
