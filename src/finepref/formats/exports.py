"""Known exports whose row is not one comparison: a function turns a row of it into rows that are one, or one item.

A row without a vote raises `NoVote`; one that contradicts itself, or whose values are not of the format, `InputError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from finepref.core.errors import InputError
from finepref.core.text import is_missing, visible

Row = Mapping[str, Any]
WIDE = r"(?:system|model|image|item)_?\d+_?(?:id)?|(?:system|model|image|item)?_?\d*_?rank_?\d*"
_ITEM = re.compile(r"(system|model|image|item)_?(\d+)(?:_?id)?", re.IGNORECASE)
_RANK = re.compile(r"(?:(?:system|model|image|item)_?(\d+)_?rank|rank_?(\d+))", re.IGNORECASE)
ONE_HOT = r"winner_(model_)?[ab]|winner_(left|right|tie|draw)|winner_tie[ _(]*both[ _]?bad\)?"
_YES, _NO = ("1", "1.0", "true", "yes", "t", "y"), ("0", "0.0", "false", "no", "f", "n")


class NoVote(Exception):
    """A row that says itself that it holds no vote; its text is how."""


def is_yes(value: object) -> bool | None:
    """Whether a cell says yes (true, 1, yes) or no (false, 0, no, nothing); None: neither."""
    text = str(value).strip().casefold()
    return True if text in _YES else False if text in _NO or is_missing(value) else None


def hpdv2(row: Row) -> Iterator[Row]:
    """HPDv2: a row lists the images of a prompt with one judgement for each: 1 or 0, or a rank."""
    files = row.get("file_path") or row.get("image_path") or []
    chosen = row.get("human_preference")
    ranks = (row.get("rank") or []) if chosen is None else [-float(value) for value in chosen]
    if len(files) != len(ranks) or len(files) < 2:
        remedy = "a row lists at least two images and one judgement for each"
        raise InputError(f"{len(files)} images and {len(ranks)} judgements", remedy=remedy)
    for image, rank in zip(files, ranks, strict=True):
        yield {"prompt": row.get("prompt"), "image": image, "rank": rank}


def wide(row: Row) -> Iterator[Row]:
    """WMT and other wide rankings: `system1Id ... system1rank`; -1 or nothing as a rank: not ranked."""
    items: dict[str, dict[str, Any]] = {}
    ranks: dict[str, Any] = {}
    for column, value in row.items():
        if found := _RANK.fullmatch(column):
            ranks[found[1] or found[2]] = value
        elif found := _ITEM.fullmatch(column):
            role = "image" if found[1].lower() == "image" else "model"
            items.setdefault(found[2], {})[role] = value
    ranked = {number: rank for number, rank in ranks.items() if not (is_missing(rank) or is_unranked(rank))}
    if len(ranked) < 2:
        raise NoVote("fewer than two are ranked")
    for number, rank in ranked.items():
        if number not in items:
            raise InputError(f"rank {visible(str(rank))} has no item {number}", remedy="give every rank its item")
        yield {**row, "rank": rank, **items[number]}


def is_unranked(rank: object) -> bool:
    """Whether a rank is -1, which means not ranked."""
    return str(rank).strip() in ("-1", "-1.0")


def one_hot(row: Row) -> Iterator[Row]:
    """LMSYS and Kaggle: a column of 0 and 1 for every outcome (`winner_model_a`, `winner_model_b`, `winner_tie`)."""
    said = []
    for column in filter(re.compile(ONE_HOT).fullmatch, row):
        chosen = is_yes(row[column])
        if chosen is None:
            raise InputError(f"{column} {visible(str(row[column]))!r} is neither 0 nor 1", remedy="correct the row")
        said += [column] if chosen else []
    if len(said) != 1:
        raise InputError(f"one outcome must be 1: {', '.join(said) or 'none'} is", remedy="correct the row")
    word = said[0].removeprefix("winner_").removeprefix("model_")
    yield {**row, "winner": "both_bad" if "bad" in word else word}
