"""Rows of a table that are items of rankings (K-wise) as comparisons: all pairs of the items of one ranking."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from finepref.core.errors import InputError
from finepref.core.text import is_missing
from finepref.formats.cells import as_number
from finepref.formats.exports import is_unranked
from finepref.formats.layout import ALONE, elsewhere
from finepref.formats.pairrows import Draft, PairRows, Preference, bad_name
from finepref.formats.tables import Row
from finepref.formats.textfiles import Line


class RankedItem(NamedTuple):
    """An item of a ranking: what it is in, its rank, and its row."""

    group: str
    rank: float
    row: Row
    place: str
    number: int


def ranked_pairs(source: PairRows, lines: Iterator[tuple[int, Line]]) -> Iterator[Draft]:
    """All pairs of every ranking, whose rows follow each other; equal ranks are a tie. Bad rows end no ranking."""
    game: list[RankedItem] = []
    for number, line in lines:
        place = source.table.place(line.at)
        problem, bad = (line.fault, line.bad) if line.fault else _fault(source, line.cells)
        if problem:
            yield Draft(None, place, number, problem=problem, bad=bad)
            continue
        source.ask(source.name(line.cells, "question"))
        group, rank = str(source.text(line.cells, "group")), as_number(source.text(line.cells, "rank"))
        if game and group != game[0].group:
            yield from _pairs_of(source, game)
            game = []
        if not game:
            _open(source, group)
        game.append(RankedItem(group, rank, line.cells, place, number))
    if game:
        yield from _pairs_of(source, game)


def _fault(source: PairRows, row: Row) -> tuple[str, bool]:
    """(why a row is no item, or nothing; whether that is a fault of it)."""
    if source.is_other(source.name(row, "question")):
        return "another question", False
    rank = source.text(row, "rank")
    for role in ("model", "group", "rank"):
        if role in source.cast and source.text(row, role) is None:
            return f"{source.cast[role]} is missing (empty, null, nan or n/a)", True
    if is_unranked(rank):
        return f"{source.cast['rank']} -1: not ranked", False
    if not math.isfinite(as_number(rank)):
        return f"{source.cast['rank']} {rank!r} is not a number", True
    if math.isnan(source.number(row, "weight")):
        return f"{source.cast['weight']} is not a number of 0 or above", True
    return bad_name(source.name(row, "model"), source.name(row, "voter")), True


def _open(source: PairRows, group: str) -> None:
    """Refuse a ranking that was met before: its rows do not follow each other, or another file has one of its name."""
    column, path = source.cast["group"], source.table.path
    first = source.met.rankings.get(group)
    if first == path:
        what = f"{column} {group!r} comes back after others"
        raise InputError(what, where=path, remedy=f"sort the table by {column}")
    if first is not None:
        raise elsewhere(f"{column} {group!r}", first, path)
    source.met.rankings[group] = path


def _pairs_of(source: PairRows, game: list[RankedItem]) -> Iterator[Draft]:
    """Every pair of the items of one ranking."""
    head = game[0]
    if len(game) == 1:
        yield Draft(None, head.place, head.number, problem=ALONE, bad=False)
        return
    told = next((item.row for item in game if not is_missing(source.get(item.row, "prompt"))), head.row)
    prompt, problem = source.prompt(told)
    for first, second in itertools.combinations(game, 2):
        label = 0.5 + 0.5 * ((first.rank < second.rank) - (first.rank > second.rank))
        images = source.image(first.row, "image"), source.image(second.row, "image")
        models = source.name(first.row, "model"), source.name(second.row, "model")
        pair = Preference(
            "", prompt, *images, label, *models, source.name(first.row, "voter"),
            weight=source.number(first.row, "weight"), question=source.name(first.row, "question"), game=first.group,
            time=source.text(first.row, "time"),
        )  # fmt: skip
        yield Draft(pair, first.place, first.number, None, source.hashed_voter(first.row), problem)
