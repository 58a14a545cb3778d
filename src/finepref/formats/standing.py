"""Everything that was shown in a study, each set with the answers that stand, in one pass: what a start takes up."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import fields

from finepref.formats.answers import Answer, ShownSet, columns_of

_QUERY = (
    f"SELECT {columns_of(ShownSet)}, {columns_of(Answer)} FROM shown "
    "LEFT JOIN answer ON answer.shown = shown.id AND answer.undone = 0"
)


def standing_sets(connection: sqlite3.Connection, voter: int | None = None) -> Iterator[tuple[ShownSet, list[Answer]]]:
    """Each set with the answers to it that stand, none where it is out; by voter, in the order shown.

    Args:
        voter: only those of this one; None: of all.
    """
    chosen, given = ("", []) if voter is None else (" WHERE shown.voter = ?", [voter])
    size, known = len(fields(ShownSet)), dict[str, tuple[int, ...]]()
    shown, answers = None, list[Answer]()
    for row in connection.execute(f"{_QUERY}{chosen} ORDER BY shown.voter, shown.number, shown.rowid", given):
        if shown is None or row[0] != shown.id:
            if shown is not None:
                yield shown, answers
            text = row[2]
            pictures = known.get(text)
            if pictures is None:
                pictures = known[text] = tuple(json.loads(text))
            shown, answers = ShownSet(row[0], row[1], pictures, *row[3:size]), []
        if row[size] is not None:
            answers.append(Answer(*row[size:]))
    if shown is not None:
        yield shown, answers
