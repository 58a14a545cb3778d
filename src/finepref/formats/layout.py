"""Which column of a vote file plays which role, when votes are read as columns of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finepref.core.errors import InputError
from finepref.formats.dialects import DIALECTS, Dialect, find_dialect, flat, missing
from finepref.formats.tables import Table


@dataclass(frozen=True, slots=True)
class Layout:
    """schema: name of the dialect. columns: role -> column, without models where a file names images only."""

    schema: str
    columns: Mapping[str, str]

    @property
    def dialect(self) -> Dialect:
        """The row of the table of dialects."""
        return DIALECTS[self.schema]

    @property
    def wanted(self) -> list[str]:
        """The columns to read, each once."""
        return list(dict.fromkeys(self.columns.values()))


def layout_of(table: Table, named: Mapping[str, str]) -> tuple[Table, Layout]:
    """The table (of one item a row) and which of its columns play which role; `named` goes first.

    Raises:
        InputError: no dialect fits, a named column is missing or holds no names, neither models nor images are named.
    """
    for role, column in named.items():
        if column in table.nameless:
            remedy = "name a column of text"
            raise InputError(f"column {column!r} ({role}) holds no names", where=table.path, remedy=remedy)
    dialect = find_dialect(table.columns, named, where=table.path)
    table = flat(table, dialect, named)
    usable = [name for name in table.columns if name not in table.nameless]
    cast = dialect.cast(named, first=("left", "right", "model", "id"), present=usable)
    for side in ("left", "right"):
        uid = cast.pop(f"{side}_uid", [])
        if uid and f"{side}_image" not in named:
            cast[f"{side}_image"] = uid
    cast.pop("pair_id", None)
    if "winner" in named:
        cast["other_label"] = cast["has_label"] = []
    columns = {role: found[0] for role, found in cast.items() if found}
    for role in ("group", "rank", "winner"):
        if role in dialect.roles and role not in columns:
            raise missing(dialect.roles[role][0], table.path, usable)
    for one, other in (("left", "right"), ("right", "left")):
        if one in columns and other not in columns:
            raise missing(dialect.roles[other][0], table.path, usable)
    if not {"left_image", "right_image"} <= columns.keys():
        columns = {role: column for role, column in columns.items() if role not in ("left_image", "right_image")}
    if not {"left", "model", "left_image", "image"} & columns.keys():
        have = f"it has {', '.join(sorted(usable))}"
        raise InputError("it names neither models nor images", where=table.path, remedy=have)
    return table, Layout(dialect.name, columns)
