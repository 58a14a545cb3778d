"""votes.sqlite of a study as a file: how it is opened, to write or only to read, checked, and copied whole.

One process writes (the folder is held); any may read. What is committed is on disk: the journal is a write-ahead log
that every commit flushes (`synchronous = FULL`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from finepref.core.errors import InputError

VOTES = "votes.sqlite"
VERSION = 1
TABLES = """
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
REMEDY = "put the last backup in its place (remove votes.sqlite-wal and -shm first), or begin again in another folder"


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes. The caller closes it.

    Raises:
        InputError: no such file, one that may not be written, not of this program, of a newer version, or damaged.
    """
    if not path.is_file():
        raise InputError("no such file", where=path, remedy=REMEDY)
    if not (os.access(path, os.W_OK) and os.access(path.resolve().parent, os.W_OK)):
        what = "it, or the folder that it is in, may not be written"
        raise InputError(what, where=path, remedy="work on a copy of the study, or give yourself the right to write")
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
        with opened(path, _reading_mode(path)) as connection:
            _check(connection, path)
            yield connection
    except sqlite3.DatabaseError as error:
        raise InputError(f"it cannot be read ({error})", where=path, remedy=REMEDY) from None


def backup(path: Path, out: Path) -> None:
    """A whole copy of the file, also while a server writes; `out` is new and written under a temporary name.

    The copy is one file: without a log, so that reading it leaves nothing beside it.
    """
    with reading_votes(path) as source, opened(out, "rwc") as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")


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


def damaged(connection: sqlite3.Connection, what: str) -> InputError:
    """What is said of a file whose content cannot be: `what`, such as "answer 3: no such question"."""
    place = connection.execute("PRAGMA database_list").fetchone()[2]
    return InputError(what, where=place, remedy=REMEDY)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise InputError(f"version {found} is not known here", where=path, remedy="use the finepref that wrote it")
    held = _columns(connection)
    if found < 1 or not _schema().keys() <= held.keys():
        raise InputError("it is not the votes of a study", where=path, remedy=REMEDY)
    for table, columns in _schema().items():
        if lacking := sorted(columns - held[table]):
            raise InputError(f"its table {table} has no column {lacking[0]!r}", where=path, remedy=REMEDY)


def _columns(connection: sqlite3.Connection) -> Mapping[str, set[str]]:
    """Table -> names of its columns."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    query = "SELECT name FROM pragma_table_info(?)"
    return {table: {row[0] for row in connection.execute(query, [table])} for table in tables}


@cache
def _schema() -> Mapping[str, set[str]]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(TABLES)
        return {table: names for table, names in _columns(connection).items() if not table.startswith("sqlite_")}
    finally:
        connection.close()


def _reading_mode(path: Path) -> str:
    """Where nothing can be written beside it and no log lies there, as on a medium that is only read, it stands still.

    Else a reader and a writer share the files beside it.
    """
    place = path.resolve()
    still = not os.path.lexists(log_of(place)) and not os.access(place.parent, os.W_OK)
    return "ro&immutable=1" if still else "ro"


def log_of(path: Path) -> Path:
    """The write-ahead log beside the file, whose answers count as those of the file do."""
    return path.with_name(f"{path.name}-wal")


def has_log(path: Path) -> bool:
    """Whether a log with something in it lies beside the file; a reader leaves an empty one."""
    log = log_of(path)
    return log.is_file() and log.stat().st_size > 0


def remove_log(path: Path) -> None:
    """Remove what lies beside a file that is replaced: an old log would be played over the new one."""
    log_of(path).unlink(missing_ok=True)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)


def _address(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


@contextmanager
def opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection in a mode of SQLite's (ro, rwc), closed at the end."""
    connection = sqlite3.connect(_address(path, mode), uri=True)
    try:
        yield connection
    finally:
        connection.close()
