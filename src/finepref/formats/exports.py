"""Known exports whose row is not one comparison: a function turns a row of it into rows that are one, or one item.

A row without a vote raises `NoVote`; one that contradicts itself, or whose values are not of the format, `InputError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from finepref.core.errors import InputError
from finepref.core.text import cell_text, is_missing, visible

Row = Mapping[str, Any]
WIDE = r"(?:system|model|image|item)_?\d+_?(?:id)?|(?:system|model|image|item)?_?\d*_?rank_?\d*"
_ITEM = re.compile(r"(system|model|image|item)_?(\d+)(?:_?id)?", re.IGNORECASE)
_RANK = re.compile(r"(?:(?:system|model|image|item)_?(\d+)_?rank|rank_?(\d+))", re.IGNORECASE)
SHARE_1, SHARE_2 = "weighted_results_image1", "weighted_results_image2"
ONE_HOT = r"winner_(model_)?[ab]|winner_(left|right|tie|draw)|winner_tie[ _(]*both[ _]?bad\)?"
_YES, _NO = ("1", "1.0", "true", "yes", "t", "y"), ("0", "0.0", "false", "no", "f", "n")


class NoVote(Exception):
    """A row that says itself that it holds no vote; its text is how."""


def is_yes(value: object) -> bool | None:
    """Whether a cell says yes (true, 1, yes) or no (false, 0, no, nothing); None: neither."""
    text = str(cell_text(value)).strip().casefold()
    return True if text in _YES else False if text in _NO or is_missing(value) else None


def no_tie(column: str, word: str | None, where: object) -> InputError:
    """Of a cell that should say whether a row is a tie."""
    what = f"{column} {visible(str(word))!r} says neither yes nor no"
    return InputError(what, where=where, remedy="write 1 for a tie and 0 for none")


def hpdv2(row: Row) -> Iterator[Row]:
    """HPDv2: a row lists the images of a prompt with one judgement for each: 1 or 0, or a rank."""
    files = row.get("file_path") or row.get("image_path") or []
    chosen = row.get("human_preference")
    ranks = (row.get("rank") or []) if chosen is None else [1.0 - float(value) for value in chosen]
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


def imagereward_lists(row: Row) -> Iterator[Row]:
    """ImageRewardDB test.json: the images of a prompt and their ranking, low is best."""
    files, ranks = row["generations"], row["ranking"]
    if len(files) != len(ranks) or len(files) < 2:
        raise InputError(f"{len(files)} images and {len(ranks)} ranks", remedy="a row lists at least two images")
    for image, rank in zip(files, ranks, strict=True):
        yield {"prompt": row.get("prompt"), "image": image, "rank": rank}


def pandalm(row: Row) -> Iterator[Row]:
    """PandaLM testset: three annotators; 1 and 2 name the better response, 0 a tie; `cmp_key` holds both models."""
    models = str(row["cmp_key"]).split("_")
    if len(models) != 2:
        raise InputError(
            f"cmp_key {visible(str(row['cmp_key']))!r} is not two names with one _", remedy="correct the row"
        )
    for voter in (name for name in row if name.startswith("annotator")):
        yield {"left": models[0], "right": models[1], "winner": row[voter], "voter": voter, "prompt": row.get("idx")}


def alpaca_eval(row: Row) -> Iterator[Row]:
    """alpaca_eval annotations: 1 and 2 name the better generator, 0 and 1.5 a draw, 1 to 2 a probability of the second.

    Source: alpaca_eval pairwise_evaluator.py and metrics/helpers.py (win rate = preference - 1); no answer: dropped.
    """
    said = row.get("preference")
    if is_missing(said):
        raise NoVote("no preference")
    number = float(str(said))
    words = {1.0: "left", 2.0: "right", 0.0: "tie", 1.5: "tie"}
    if number not in words and not 1.0 < number < 2.0:
        raise InputError(f"preference {visible(str(said))} is none of 0, 1 to 2", remedy="correct the row")
    yield {
        "left": row["generator_1"], "right": row["generator_2"], "prompt": row.get("instruction"),
        "voter": row.get("annotator"), "winner": words.get(number, 2.0 - number),
    }  # fmt: skip


def rapidata_shares(row: Row) -> Iterator[Row]:
    """Rapidata's sets of several questions: for each the share of either image; a question may lack in a row."""
    asked = 0
    for column in [name for name in row if name.startswith(SHARE_1)]:
        question = column.removeprefix(SHARE_1)
        left, right = row[column], row.get(SHARE_2 + question)
        if not (is_missing(left) and is_missing(right)):
            asked += 1
            rest = {key: value for key, value in row.items() if not key.startswith((SHARE_1, SHARE_2))}
            yield {**rest, "left_share": left, "right_share": right, "question": question.strip("_") or None}
    if not asked:
        raise NoVote("no question was answered")
