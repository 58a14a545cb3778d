"""Preferences in SQL, read by DuckDB: a database with one table (.duckdb), or a query in a file (.sql)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from finepref.core.errors import ConfigError, FineprefError, InputError, cut, first_line
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
    with _asked(path) as rows:
        yield from numbered(rows.project(*map(_quoted, wanted)).to_arrow_reader(ROWS))


def _lines(path: Path, wanted: Sequence[str] | None) -> Iterator[Line]:
    with _asked(path) as rows:
        chosen = rows if wanted is None else rows.project(*map(_quoted, wanted))
        every = (row for batch in chosen.to_arrow_reader(_ROWS_WITH_IMAGES) for row in rows_of_batch(batch))
        yield from (Line(at, row) for at, row in enumerate(every))


_ROWS_WITH_IMAGES = 64


def _identity(path: Path) -> str:
    """What changes with the rows of a query, whatever their order."""
    with _asked(path) as rows:
        ((count, total),) = rows.query("held", "SELECT count(*), sum(hash(held)) FROM held").fetchall()
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
    for statement in first:
        connection.execute(statement)
    connection.execute(f"CREATE TEMP VIEW finepref_rows AS {last.query}")  # whatever comments stand at its end
    return connection.sql("FROM finepref_rows")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _duckdb(path: Path) -> Any:
    try:
        import duckdb
    except ImportError:
        what = "SQL is read by DuckDB, which is not installed"
        raise ConfigError(what, where=path, remedy="pip install 'finepref[duckdb]'") from None
    return duckdb
