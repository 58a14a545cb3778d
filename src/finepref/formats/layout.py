"""Which columns of a table play which role, and the table with one comparison or item a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finepref.core.errors import InputError
from finepref.core.text import cell_text, is_missing, visible
from finepref.formats.detection import find_dialect, missing
from finepref.formats.dialects import Dialect
from finepref.formats.exports import NoVote
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.tables import Table
from finepref.formats.textfiles import Line

ALONE = "alone in its ranking"  # an item that is compared with nothing


def flat(table: Table, dialect: Dialect, named: Mapping[str, str], *, number: int) -> Table:
    """The table with one comparison or item a row, where the dialect's rows are others; `group`: those of one row.

    number: of the table among all of them, so that no two rows of any share a group.
    """
    flatten = dialect.flatten
    if flatten is None:
        return table
    if dialect.kwise and "group" in named:
        what = f"a row of format {dialect.name} is a ranking by itself, so no column can be its group"
        raise InputError(what, where=table.path, remedy="name no column as the group")

    def read(columns: Sequence[str] | None) -> Iterator[Line]:
        for index, line in enumerate(table.lines(None)):
            if line.fault:
                yield line
                continue
            try:
                row = {**line.cells, **{name: line.cells.get(column) for name, column in named.items()}}
                group = {"group": f"{number}-{index}"} if dialect.kwise else {}
                for item in flatten(row):
                    if isinstance(item, NoVote):
                        yield Line(line.at, {}, str(item), bad=False)
                    else:
                        yield Line(line.at, {**item, **group})
            except NoVote as nothing:
                yield Line(line.at, {}, str(nothing), bad=False)
            except InputError as error:
                yield Line(line.at, {}, error.what)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                what = f"not a row of format {dialect.name} ({visible(str(error))[:100]})"
                yield Line(line.at, {}, what)

    first = next((line for line in read(None) if not line.fault), None)
    columns = tuple(dialect.roles) if first is None else tuple(first.cells)
    return replace(table, columns=columns, lines=read, read_batches=None, nameless=(), apart=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """dialect: how the rows are written. columns: role -> column, without models where a file names images only."""

    dialect: Dialect
    columns: Mapping[str, str]

    @property
    def schema(self) -> str:
        """The name of the dialect."""
        return self.dialect.name

    def about(self) -> dict[str, Any]:
        """What is kept of it beside a result."""
        return {"schema": self.schema, "columns": dict(self.columns)}

    @property
    def wanted(self) -> list[str]:
        """The columns to read, each once."""
        return list(dict.fromkeys(self.columns.values()))


def layout_of(table: Table, reading: Reading = AS_IT_IS, *, number: int = 0) -> tuple[Table, Layout]:
    """The table (of one item a row) and which of its columns play which role; those that are named go first.

    number: of the table among all of them.

    Raises:
        InputError: no dialect fits, a named column is missing or holds no names, neither models nor images are named.
    """
    named = reading.columns
    dialect = find_dialect(table.columns, reading, where=table.path)
    for role, column in named.items():
        if column in table.nameless and dialect.flatten is None:
            what = f"column {visible(column)!r} ({role}) holds lists, records or bytes"
            raise InputError(what, where=table.path, remedy="name a column of text")
    table = flat(table, dialect, named, number=number)
    usable = [name for name in table.columns if name not in table.nameless]
    columns = dialect.cast(named, first=("left", "right", "model", "id"), present=usable)
    for side in ("left", "right"):
        uid = columns.pop(f"{side}_uid", None)
        if uid and f"{side}_image" not in named:
            columns[f"{side}_image"] = uid
    columns.pop("pair_id", None)
    if "winner" in named:
        columns = {role: column for role, column in columns.items() if role not in ("other_label", "has_label")}
    sides = {"left", "right"} if {"left", "right"} & columns.keys() else set()
    for role in sorted((sides | ({"group", "rank", "winner"} & dialect.roles.keys())) - columns.keys()):
        nested = next((c for c in dialect.columns(role, named) if c in table.nameless), None)
        if nested is not None:
            what = f"column {visible(nested)!r} ({role}) holds lists, records or bytes"
            raise InputError(what, where=table.path, remedy="name a column of text")
        raise missing(dialect.columns(role, named)[0], table.path, usable)
    if not {"left_image", "right_image"} <= columns.keys():
        columns = {role: column for role, column in columns.items() if role not in ("left_image", "right_image")}
    if not {"left", "model", "left_image", "image"} & columns.keys():
        have = f"it has {visible(', '.join(sorted(usable)))[:300]}"
        raise InputError("it names neither models nor images", where=table.path, remedy=have)
    return table, Layout(dialect, columns)


def has_vote(value: Any) -> bool:
    """Whether a row counts by the column that says if anybody voted: not where it says false or 0."""
    return is_missing(value) or str(cell_text(value)).strip().lower() not in ("false", "0", "0.0")


def elsewhere(ranking: str, first: object, where: object) -> InputError:
    """The refusal of a ranking that has items in two files: whether it is one or two is not known."""
    remedy = "make the rankings of the files differ, or read the files apart"
    return InputError(f"{ranking} is a ranking of {first} too", where=where, remedy=remedy)
