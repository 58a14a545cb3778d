"""Preferences in SQL, read by DuckDB: a database with one table (.duckdb), or a query in a file (.sql)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.core.errors import ConfigError, FineprefError, InputError, cut, first_line
from finepref.core.rereading import is_as_before
from finepref.formats.tables import ROWS, Batch, Table, nameless_of, numbered, rows_of_batch, suffix_of
from finepref.formats.textfiles import Line

QUERIES = (".duckdb", ".sql")


def is_query(path: Path) -> bool:
    """Whether DuckDB reads a file."""
    return suffix_of(path) in QUERIES and path.is_file()


def query_table(path: Path) -> Table:
    """The rows of a database's only table or view, or of the last statement of a file of SQL.

    Names of files in a query start where the program runs, as in DuckDB's own shell. One thread reads them, so that
    the order of the rows is the same each time.

    Raises:
        ConfigError: duckdb is not installed. InputError: DuckDB refuses it, or it does not say which rows are meant.
    """
    with _asked(path) as rows:
        schema = rows.limit(0).to_arrow_table().schema
    read, batches = partial(_lines, path), partial(_batches, path)
    return Table(
        path, tuple(schema.names), path.parent, "", read, "row", batches, nameless_of(schema), apart=False,
        identify=partial(_identity, path),
    )  # fmt: skip


def _batches(path: Path, wanted: Sequence[str]) -> Iterator[Batch]:
    yield from numbered(_read(path, wanted, ROWS))


def _lines(path: Path, wanted: Sequence[str] | None) -> Iterator[Line]:
    every = (row for batch in _read(path, wanted, _ROWS_WITH_IMAGES) for row in rows_of_batch(batch))
    yield from (Line(at, row) for at, row in enumerate(every))


_ROWS_WITH_IMAGES = 64
_HASH, _ALIAS = "finepref hash of the row", "finepref_held"  # as no column is called


def _read(path: Path, wanted: Sequence[str] | None, size: int) -> Iterator[pa.RecordBatch]:
    """The rows, of which a whole reading must find what the one before it found.

    Raises:
        InputError: it did not; a query may draw rows, or its tables are written to.
    """
    count = total = 0
    with _asked(path) as rows:
        columns = "*" if wanted is None else ", ".join(map(_quoted, wanted))
        held = rows.query(
            _ALIAS, f"SELECT {columns}{', ' * bool(columns)}hash({_ALIAS}) AS {_quoted(_HASH)} FROM {_ALIAS}"
        )
        for batch in held.to_arrow_reader(size):
            hashes = batch.column(_HASH).to_numpy()
            count, total = count + len(hashes), total + _sum(hashes)
            yield batch.select([name for name in batch.schema.names if name != _HASH])
    _check(path, count, total)


def _sum(hashes: npt.NDArray[np.uint64]) -> int:
    return (int((hashes >> np.uint64(32)).sum()) << 32) + int((hashes & np.uint64(2**32 - 1)).sum())


def _check(path: Path, count: int, total: int) -> None:
    if not is_as_before(str(path.resolve()), (count, total)):
        what = "its rows changed while they were read: a command reads them more than once"
        raise InputError(what, where=path, remedy="write them to a parquet file with COPY in DuckDB, and name that")


def _identity(path: Path) -> str:
    """What changes with the rows of a query, whatever their order."""
    with _asked(path) as rows:
        ((count, total),) = rows.query(_ALIAS, f"SELECT count(*), sum(hash({_ALIAS})) FROM {_ALIAS}").fetchall()
    _check(path, count, int(total or 0))
    return f"{count} rows, sum of their hashes {total}, by duckdb {_duckdb(path).__version__}"


@contextmanager
def _asked(path: Path) -> Iterator[Any]:
    """The rows, not read yet."""
    duckdb = _duckdb(path)
    is_database = suffix_of(path) == ".duckdb"
    try:
        with duckdb.connect(str(path) if is_database else ":memory:", is_database, {"threads": 1}) as connection:
            yield _only_table(connection, path) if is_database else _last_rows(connection, path)
    except FineprefError:
        raise
    except (duckdb.Error, pa.ArrowException) as error:  # the second of what goes wrong between two batches
        remedy = "try it in DuckDB itself"
        raise InputError(f"DuckDB refuses it ({first_line(error)})", where=path, remedy=remedy) from None


def _only_table(connection: Any, path: Path) -> Any:
    asked = "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL"
    names = [f"{_quoted(schema)}.{_quoted(name)}" for schema, name in connection.sql(asked).fetchall()]
    if len(names) == 1:
        return connection.sql(f"FROM {names[0]}")
    what = f"it holds {len(names)} tables{f', {cut(str(names))}' if names else ''}, and which one is meant is not known"
    remedy = f"write ATTACH '{path}' AS held; SELECT ... FROM held. ... into a file, and name that .sql file"
    raise InputError(what, where=path, remedy=remedy)


def _last_rows(connection: Any, path: Path) -> Any:
    """The rows of the last statement, the others being run first."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("it is not utf-8 text", where=path, remedy="save it as utf-8") from None
    *first, last = connection.extract_statements(text) or [None]
    if last is None or last.type.name != "SELECT":
        raise InputError("its last statement is no SELECT", where=path, remedy="end it with the SELECT of the votes")
    _refuse_writing(path, first)
    for statement in first:
        connection.execute(statement)
    connection.execute(f"CREATE TEMP VIEW finepref_rows AS {last.query}")  # whatever comments stand at its end
    return connection.sql("FROM finepref_rows")


WRITING = ("INSERT", "UPDATE", "DELETE", "MERGE_INTO", "CREATE", "ALTER", "DROP")
ELSEWHERE = ("COPY", "COPY_DATABASE", "EXPORT")
_TEMPORARY = re.compile(r"\s*create\s+(or\s+replace\s+)?temp", re.I)
_FOR_READING = re.compile("read_only", re.I)


def _refuse_writing(path: Path, statements: Sequence[Any]) -> None:
    """Refuse what would change something that stays: a command runs the statements as often as it reads the rows.

    Raises:
        InputError: it writes files, or it writes and attaches a database other than for reading.
    """
    lasting = [each for each in statements if each.type.name in WRITING and not _TEMPORARY.match(each.query)]
    open_to = [each for each in statements if each.type.name == "ATTACH" and not _FOR_READING.search(each.query)]
    if (lasting and open_to) or any(each.type.name in ELSEWHERE for each in statements):
        what = "it writes, and its statements are run as often as a command reads the rows"
        remedy = "attach with (READ_ONLY), write CREATE TEMP TABLE, or leave out what writes"
        raise InputError(what, where=path, remedy=remedy)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _duckdb(path: Path) -> Any:
    try:
        import duckdb
    except ImportError:
        what = "SQL is read by DuckDB, which is not installed"
        raise ConfigError(what, where=path, remedy="pip install 'finepref[duckdb]'") from None
    return duckdb
