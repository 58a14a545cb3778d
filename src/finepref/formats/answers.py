"""votes.sqlite of a study: its pictures, its voters, what they were shown, and every answer, undone ones too.

One process writes (the folder is held); any may read. What is committed is on disk: the journal is a write-ahead log
that every commit flushes (`synchronous = FULL`). Answers are in the order of their `id`,
not of the clock.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from finepref.core.errors import InputError

VOTES = "votes.sqlite"
VERSION = 1
KINDS = ("plain", "gold", "repeat")
_TABLES = """
CREATE TABLE picture (id INTEGER PRIMARY KEY, model INTEGER NOT NULL, prompt INTEGER NOT NULL, name TEXT NOT NULL,
    sha256 TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL);
CREATE TABLE voter (id INTEGER PRIMARY KEY, name TEXT NOT NULL, token TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
    made_at REAL NOT NULL);
CREATE TABLE shown (id TEXT PRIMARY KEY, voter INTEGER NOT NULL REFERENCES voter (id), pictures TEXT NOT NULL,
    kind TEXT NOT NULL, known TEXT NOT NULL, shown_at REAL NOT NULL, number INTEGER NOT NULL);
CREATE TABLE answer (id INTEGER PRIMARY KEY AUTOINCREMENT, shown TEXT NOT NULL REFERENCES shown (id),
    question INTEGER NOT NULL, answer TEXT NOT NULL, revision INTEGER NOT NULL, answered_at REAL NOT NULL,
    milliseconds INTEGER NOT NULL, loaded INTEGER NOT NULL, device TEXT NOT NULL, input TEXT NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0, UNIQUE (shown, question, revision));
CREATE INDEX shown_of_voter ON shown (voter, number);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
REMEDY = "take the last backup, or begin the study again in another folder"
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
        """The name in tables: the pseudonym, or the number of one that was forgotten."""
        return self.name or f"voter {self.id}"


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


def create(path: Path, pictures: Sequence[PictureRow]) -> None:
    """A new file with the pictures of a study; written under a temporary name by the caller."""
    with _opened(path, "rwc") as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")  # the caller flushes it
        connection.executescript(_TABLES)
        connection.executemany(f"INSERT INTO picture VALUES ({_marks(PictureRow)})", map(astuple, pictures))
        connection.execute(f"PRAGMA user_version = {VERSION}")


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes. The caller closes it.

    Raises:
        InputError: no such file, not of this program, of a newer version, or damaged.
    """
    connection = sqlite3.connect(_address(path, "rw"), uri=True, isolation_level=None, check_same_thread=False)
    try:
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise InputError(f"it cannot be read ({error})", where=path, remedy=REMEDY) from None
    except InputError:
        connection.close()
        raise
    return connection


@contextmanager
def reading_votes(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, also while a server writes.

    Raises:
        InputError: see `connect`.
    """
    if not path.is_file():
        raise InputError("no such file", where=path, remedy=REMEDY)
    try:
        with _opened(path, "ro") as connection:
            _check(connection, path)
            yield connection
    except sqlite3.DatabaseError as error:
        raise InputError(f"it cannot be read ({error})", where=path, remedy=REMEDY) from None


def backup(path: Path, out: Path) -> None:
    """A whole copy of the file, also while a server writes; `out` is new and written under a temporary name."""
    with reading_votes(path) as source, _opened(out, "rwc") as target:
        source.backup(target)


def pictures_of(connection: sqlite3.Connection) -> list[PictureRow]:
    """All pictures, by id."""
    return _rows(connection, PictureRow, "SELECT * FROM picture ORDER BY id")


def voters_of(connection: sqlite3.Connection) -> list[StudyVoter]:
    """All voters, by id."""
    return _rows(connection, StudyVoter, "SELECT * FROM voter ORDER BY id")


def shown_to(connection: sqlite3.Connection, voter: int) -> list[ShownSet]:
    """All sets that a voter was shown, in order."""
    return [
        _as_shown(values)
        for values in connection.execute("SELECT * FROM shown WHERE voter = ? ORDER BY number", [voter])
    ]


def open_sets(connection: sqlite3.Connection) -> list[ShownSet]:
    """All sets that are out: shown, and without an answer that stands."""
    query = "SELECT * FROM shown WHERE NOT EXISTS (SELECT 1 FROM answer WHERE answer.shown = shown.id AND undone = 0)"
    return [_as_shown(values) for values in connection.execute(f"{query} ORDER BY rowid")]


def shown_by_id(connection: sqlite3.Connection, name: str) -> ShownSet | None:
    """The set of this id."""
    found = connection.execute("SELECT * FROM shown WHERE id = ?", [name]).fetchone()
    return None if found is None else _as_shown(found)


def answered_after(connection: sqlite3.Connection, number: int = 0) -> Iterator[tuple[Answer, ShownSet]]:
    """All answers with a larger id, undone ones too, each with its set."""
    query = "SELECT answer.*, shown.* FROM answer JOIN shown ON shown.id = answer.shown WHERE answer.id > ?"
    size = len(fields(Answer))
    for values in connection.execute(f"{query} ORDER BY answer.id", [number]):
        yield Answer(*values[:size]), _as_shown(values[size:])


def newest_answers(connection: sqlite3.Connection, question: int, most: int) -> Iterator[tuple[Answer, ShownSet]]:
    """Of every voter the newest answers to a question that stand, at most `most`, each with its set, in order."""
    newest = "row_number() OVER (PARTITION BY shown.voter ORDER BY answer.id DESC) AS place"
    joined = "JOIN shown ON shown.id = answer.shown"
    ranked = f"SELECT answer.id AS held, {newest} FROM answer {joined} WHERE question = ? AND undone = 0"
    query = f"SELECT answer.*, shown.* FROM ({ranked}) JOIN answer ON answer.id = held {joined}"
    size = len(fields(Answer))
    for values in connection.execute(f"{query} WHERE place <= ? ORDER BY answer.id", [question, most]):
        yield Answer(*values[:size]), _as_shown(values[size:])


def standing_answers(connection: sqlite3.Connection, question: int) -> int:
    """How many answers to a question stand."""
    query = "SELECT count(*) FROM answer WHERE question = ? AND undone = 0"
    return int(connection.execute(query, [question]).fetchone()[0])


def last_change(connection: sqlite3.Connection) -> tuple[int, int]:
    """(the largest id of an answer, how many are undone): another pair means other answers."""
    last, undone = connection.execute("SELECT max(id), total(undone) FROM answer").fetchone()
    return int(last or 0), int(undone)


def answers_of_set(connection: sqlite3.Connection, name: str) -> list[Answer]:
    """The answers to a set, undone ones too, in order."""
    return _rows(connection, Answer, "SELECT * FROM answer WHERE shown = ? ORDER BY id", [name])


def last_answered(connection: sqlite3.Connection, voter: int) -> ShownSet | None:
    """The set that a voter answered last, whose answers stand."""
    query = "SELECT shown.* FROM shown JOIN answer ON answer.shown = shown.id WHERE shown.voter = ? AND undone = 0"
    found = connection.execute(f"{query} ORDER BY answer.id DESC LIMIT 1", [voter]).fetchone()
    return None if found is None else _as_shown(found)


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
    connection.execute(f"INSERT INTO shown VALUES ({_marks(ShownSet)})", held)


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


@contextmanager
def whole(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written within, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise InputError(f"version {found} is not known here", where=path, remedy="use the finepref that wrote it")
    named = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if found < 1 or not {"picture", "voter", "shown", "answer", "setting"} <= named:
        raise InputError("it is not the votes of a study", where=path, remedy=REMEDY)


def _address(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(_address(path, mode), uri=True)
    try:
        yield connection
    finally:
        connection.close()


def _marks(kind: type) -> str:
    return ", ".join("?" * len(fields(kind)))


def _rows(connection: sqlite3.Connection, kind: type[Row], query: str, given: Sequence[Any] = ()) -> list[Row]:
    return [kind(*values) for values in connection.execute(query, given)]


def _as_shown(values: Sequence[Any]) -> ShownSet:
    name, voter, pictures, *rest = values
    return ShownSet(name, voter, tuple(json.loads(pictures)), *rest)


def as_json(value: Mapping[str, Any] | Sequence[int] | str | int) -> str:
    """An answer as it is kept."""
    return json.dumps(value, separators=(",", ":"))
