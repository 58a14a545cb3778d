"""Which dialect a table is in, by its columns: the one that fits and leaves no outcome unread."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from finepref.core.errors import InputError, check_word, nearest
from finepref.core.text import visible
from finepref.formats.dialects import DIALECTS, Dialect
from finepref.formats.reading import AS_IT_IS, Reading

NO_WINNER = ("counts", "shares", "rapidata")  # formats in which no column can be named as the winner
GENERAL = {"votes": "winner", "kwise": "rank"}  # the format of a table of which the person names that column


def find_dialect(present: Collection[str], reading: Reading = AS_IT_IS, *, where: object) -> Dialect:
    """The dialect of a table with these columns: the one that fits and reads every column that looks like an outcome.

    Args:
        present: columns. reading: its format, unless auto, is taken though a column is left unread; its columns (role
            or column name of the dialect -> the table's column) go first.

    Raises:
        InputError: no dialect fits, or several do; a named column or field is missing; an outcome would be left unread.
    """
    named, format = reading.columns, reading.format
    for column in named.values():
        if column not in present:
            raise missing(column, where, present)
    check_word(format, ("auto", *DIALECTS), "format", where="format")
    free = {*present}.difference(named.values())
    lacking = {each.name: each.lacks(present, named) for each in DIALECTS.values() if not free & {*each.unless}}
    complete = [name for name, groups in lacking.items() if not groups] if format == "auto" else [format]
    fitting = [name for name in complete if named.keys() <= {*DIALECTS[name].fields}]
    if format != "auto" and fitting:
        if groups := DIALECTS[format].lacks(present, named):
            raise missing(groups[0][0], where, present)
        return DIALECTS[format]
    unread = {name: DIALECTS[name].unexplained(present, named) for name in fitting}
    clear = [name for name in fitting if not unread[name]]
    general = [name for name, role in GENERAL.items() if role in named and name in clear]
    if len(general or clear) == 1:
        return DIALECTS[(general or clear)[0]]
    if clear:
        what = f"its columns are those of several formats: {', '.join(clear)}"
        raise InputError(what, where=where, remedy=f"name the one that is meant: --format {clear[0]}")
    if fitting:
        column = visible(unread[fitting[0]][0])
        what = f"column {column!r} looks like an outcome, and format {fitting[0]} does not read it"
        winner = f"name it as the winner (--winner {shlex.quote(column)}), or " if fitting[0] not in NO_WINNER else ""
        remedy = f"{winner}say that it is not read with --format {fitting[0]}"
        raise InputError(what, where=where, remedy=remedy)
    if complete:
        fields = DIALECTS[complete[0]].fields
        unknown = next(name for name in named if name not in fields)
        what = f"format {complete[0]} has no field {unknown!r}"
        raise InputError(what, where="columns", remedy=nearest(unknown, fields))
    near = [groups[0] for name, groups in lacking.items() if len(groups) == 1 < len(DIALECTS[name].signature)]
    if near:
        raise missing(near[-1][0], where, present)
    what = "no known preference format has these columns"
    remedy = f"name the format and its columns; it has {visible(', '.join(sorted(present)))[:300]}"
    raise InputError(what, where=where, remedy=remedy)


def missing(column: str, where: object, present: Collection[str]) -> InputError:
    """The refusal of a table without a column that is needed."""
    if column in present:
        what = f"column {visible(column)!r} plays another part already"
        return InputError(what, where=where, remedy="name another column for one of the two")
    close = nearest(column, present)
    remedy = f"{close if close.endswith('?') else 'name the column that plays its part;'} it has "
    remedy += visible(", ".join(sorted(present)))[:300]
    return InputError(f"column {visible(column)!r} is missing", where=where, remedy=remedy)
