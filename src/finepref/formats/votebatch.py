"""A batch of rows of a vote file to columns of numbers: outcomes, weights, shares, times, and codes of names."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.core.errors import InputError
from finepref.core.text import clean_name, visible
from finepref.formats.cells import (
    Bools,
    Cells,
    Checked,
    Floats,
    Gathered,
    as_number,
    as_text,
    cells_of,
    is_amount,
    not_amount,
)
from finepref.formats.exports import is_unranked, is_yes, no_tie
from finepref.formats.layout import Layout, has_vote
from finepref.formats.outcomes import BOTH_BAD, LEFT, NO_VOTE, OFF_BY, RIGHT, SHARE, TIE, UNKNOWN, Vocabulary
from finepref.formats.reading import Reading
from finepref.formats.store import hash_names
from finepref.formats.tables import Batch, Table

BOOKS = {"left": "model", "right": "model", "model": "model", "voter": "voter", "question": "question"}
HASHED = ("left_image", "right_image", "image", "prompt", "group", "game")
MAY_LACK = ("prompt", "voter", "question", "game")  # one without a name is one by itself
EVERY = "all"  # as a question: all of them
CORRECT = "correct the row, or leave such rows out with --skip-bad-rows"
NO_TIME = np.iinfo(np.int64).min
Ints = npt.NDArray[np.int8]


def take_batch(
    batch: Batch, layout: Layout, gathered: Gathered, table: Table, *, reading: Reading, offset: int
) -> None:  # fmt: skip
    """Check the rows of a batch and keep the good ones. offset: number of the first one over all files."""
    gathered.take_faults(list(batch.faults), table)
    columns = batch.columns
    cells = {role: cells_of(columns, name, table.path) for role, name in layout.columns.items() if role != "id"}
    rows = Checked(table, batch.at, cells, gathered, np.ones(columns.num_rows, dtype=bool), batch.repeats)
    if "has_label" in cells:
        said = np.array([has_vote(word) for word in cells["has_label"].words], dtype=bool)
        rows.leave_out(~said[cells["has_label"].codes], "nobody voted")
    if "question" in cells:
        _choose_question(rows, reading.question)
    for role in (*BOOKS, *HASHED):
        if role in cells and role not in MAY_LACK:
            rows.reject_missing(role)
    found = _numbers(rows, layout, layout.dialect.vocabulary(reading.outcomes, layout.columns))
    found |= {"row": batch.number + offset, "at": batch.at}
    found |= {} if batch.repeats is None else {"repeats": batch.repeats}
    found |= {f"no_{role}": cells[role].missing for role in ("prompt", "game") if role in cells}
    for role in HASHED:
        if role in cells:
            hashes = np.append(hash_names(cells[role].names), hash_names(pa.array([""])))
            found[role] = hashes[cells[role].codes]
    for role, book in BOOKS.items():
        if role in cells:
            gathered.store.add(role, rows.name_codes(role, book))
    for name, column in found.items():
        gathered.store.add(name, column[rows.good])
    if "id" in layout.columns:
        ids = as_text(columns.column(layout.columns["id"]), name=layout.columns["id"], where=table.path)
        gathered.store.add("id", ids.cast(pa.string()).filter(pa.array(rows.good)))


def _numbers(rows: Checked, layout: Layout, vocabulary: Vocabulary) -> dict[str, npt.NDArray[Any]]:
    """[n] what the rows say in numbers: outcome and share, or rank; weight and time where there are some."""
    found: dict[str, npt.NDArray[Any]] = {}
    if layout.dialect.kwise:
        found["rank"] = _ranks(rows)
    else:
        found["outcome"], found["both_bad"], share = _outcomes(rows, layout, vocabulary)
        found |= {} if share is None else {"share": share}
    weight = _weights(rows)
    if weight is not None:
        rows.leave_out(weight == 0, "a weight of 0")
        found["weight"] = weight
    if "time" in rows.cells:
        said = rows.cells["time"]
        found["time"] = np.array([_moment(word) for word in said.words], dtype=np.int64)[said.codes]
    return found


def _choose_question(rows: Checked, wanted: str | None) -> None:
    """Keep the rows of one question; refuse several where none is chosen."""
    cells = rows.cells["question"]
    asked = {
        word for word in np.array(cells.cleaned, dtype=object)[np.unique(cells.codes[rows.good])] if word is not None
    }
    known = rows.gathered.books["question"]
    for name in sorted(map(str, asked)):
        known.setdefault(name, len(known))
    if wanted is None:
        if len(known) > 1:
            what = f"its votes answer several questions: {visible(', '.join(known))[:200]}"
            remedy = f"choose one with --question, or --question {EVERY} for a board of each"
            raise InputError(what, where=rows.table.path, remedy=remedy)
    elif wanted != EVERY:
        chosen = np.array([word == clean_name(wanted) for word in cells.cleaned], dtype=bool)[cells.codes]
        rows.leave_out(~chosen, "another question")


def _outcomes(rows: Checked, layout: Layout, vocabulary: Vocabulary) -> tuple[Ints, Bools, Floats | None]:
    """([n] outcome, [n] whether a tie says that neither is good, [n] the left's share or None)."""
    cells, n = rows.cells, len(rows.good)
    share = _counted(rows)
    if share is not None:
        return np.sign(np.nan_to_num(share, nan=0.5) - 0.5).astype(np.int8), np.zeros(n, dtype=bool), share
    outcome = np.full(n, LEFT, dtype=np.int8)
    if "winner" in cells:
        outcome, share = _said(rows, layout, vocabulary)
    if "tie" in cells:
        tied = cells["tie"]
        says = [is_yes(word) for word in tied.words]
        unknown = np.array([each is None for each in says], dtype=bool)[tied.codes]
        rows.refuse(unknown, lambda at, where: no_tie(tied.column, tied.words[tied.codes[at]], where))
        outcome = np.where(np.array([bool(each) for each in says])[tied.codes], TIE, outcome).astype(np.int8)
    rows.leave_out(outcome == NO_VOTE, "nobody voted")
    bad = outcome == BOTH_BAD
    if "both_bad" in cells:
        says = [bool(is_yes(word)) for word in cells["both_bad"].words]
        bad |= np.array(says, dtype=bool)[cells["both_bad"].codes] & (outcome == TIE)
    return np.where(bad | (outcome == NO_VOTE), TIE, outcome).astype(np.int8), bad, share


def _said(rows: Checked, layout: Layout, vocabulary: Vocabulary) -> tuple[Ints, Floats | None]:
    """What the column of outcomes says: [n] codes, and [n] the left's share where the dialect has shares."""
    cells, dialect = rows.cells, layout.dialect
    said = cells["winner"]
    if dialect.null_is_no_vote:
        rows.leave_out(said.missing, "nobody voted")
    rows.reject_missing("winner")
    words = said.words
    sides = ((cells[side].codes, cells[side].cleaned) if side in cells else None for side in ("left", "right"))
    outcome = vocabulary.outcomes((said.codes, said.cleaned), *sides)
    rows.refuse(
        (outcome == UNKNOWN) & ~said.missing,
        lambda at, where: vocabulary.refusal(
            str(words[said.codes[at]]), said.column, where, _others(rows, said, outcome, str(words[said.codes[at]]))
        ),
    )
    _note_words(rows, said, vocabulary)
    if "winner_name" in cells:
        _check_names(rows, outcome)
    share = None
    if dialect.shares:
        shared = outcome == SHARE
        share = np.where(shared, said.numbers(), np.nan)
        outcome = np.where(shared, np.sign(np.nan_to_num(share, nan=0.5) - 0.5), outcome).astype(np.int8)
    if "other_label" in cells:
        other = cells["other_label"]
        total = np.array([vocabulary.points(word) for word in other.words])[other.codes]
        total += np.array([vocabulary.points(word) for word in words])[said.codes]
        remedy = "correct the row, or leave such rows out with --skip-bad-rows"
        rows.reject(
            ~(np.abs(total - 1.0) < 1e-6) & ~other.missing,
            f"{said.column} and {other.column} do not add up to 1",
            remedy,
        )
    return outcome, share


def _others(rows: Checked, said: Cells, outcome: Ints, first: str) -> list[str]:
    """The other words of the batch that say nothing."""
    codes = np.unique(said.codes[(outcome == UNKNOWN) & rows.good & ~said.missing]).tolist()
    return [word for code in codes if (word := str(said.words[code])) != first]


def _check_names(rows: Checked, outcome: Ints) -> None:
    """Reject rows whose second statement of the winner, by name, is not that of the first."""
    left, right, name = (
        np.array(rows.cells[role].cleaned, dtype=object)[rows.cells[role].codes]
        for role in ("left", "right", "winner_name")
    )
    agrees = np.where(outcome == LEFT, name == left, np.where(outcome == RIGHT, name == right, True)).astype(bool)
    what = f"{rows.cells['winner'].column} and {rows.cells['winner_name'].column} contradict each other"
    rows.reject(~agrees & ~rows.cells["winner_name"].missing, what, CORRECT)


def _note_words(rows: Checked, said: Cells, vocabulary: Vocabulary) -> None:
    """How each outcome word was taken."""
    for code in np.unique(said.codes[rows.good]).tolist():
        word = said.cleaned[code]
        if word is None:
            continue
        key, taken = vocabulary.taken(word)
        rows.gathered.words[key] = taken


def _counted(rows: Checked) -> Floats | None:
    """[n] the left's share of the votes that are counted, or that a share says; None without such columns."""
    cells = rows.cells
    if "left_votes" in cells:
        left, right = (_positive(rows, role) for role in ("left_votes", "right_votes"))
        rows.leave_out(left + right == 0, "nobody voted")
        with np.errstate(invalid="ignore"):
            return np.asarray(left / (left + right))
    if "left_share" not in cells:
        return None
    share = _positive(rows, "left_share")
    column = cells["left_share"].column
    rows.refuse(share > 1, lambda at, where: InputError(
        f"{column} {share[at]:g} is above 1", where=where, remedy="write shares of 1; divide percents by 100",
    ))  # fmt: skip
    if "right_share" in cells:
        other = _positive(rows, "right_share")
        what = f"{cells['left_share'].column} and {cells['right_share'].column} do not add up to 1"
        rows.leave_out(share + other == 0, "nobody voted")
        rows.reject(np.abs(share + other - 1) > OFF_BY, what, CORRECT)
    return share


def _weights(rows: Checked) -> Floats | None:
    """[n] how many votes each row stands for; None: one each."""
    weight = None
    if "weight" in rows.cells:
        weight = np.where(rows.cells["weight"].missing, 1.0, _positive(rows, "weight", may_lack=True))
    if "left_votes" in rows.cells:
        count = np.nan_to_num(rows.cells["left_votes"].numbers()) + np.nan_to_num(rows.cells["right_votes"].numbers())
        weight = count if weight is None else weight * count
    return weight


def _positive(rows: Checked, role: str, *, may_lack: bool = False) -> Floats:
    """[n] a column of numbers of 0 and above; others are bad rows, 0 here. may_lack: missing ones are none."""
    cells = rows.cells[role]
    numbers = cells.numbers()
    wrong = ~is_amount(numbers) & ~(cells.missing & may_lack)
    rows.reject_each(wrong, lambda at: not_amount(cells.column, cells.words[cells.codes[at]]), CORRECT)
    return np.nan_to_num(np.where(wrong, 0.0, numbers))


def _ranks(rows: Checked) -> Floats:
    said = rows.cells["rank"]
    unranked = np.array([word is not None and is_unranked(word) for word in said.words], dtype=bool)[said.codes]
    rows.leave_out(unranked, f"{said.column} -1: not ranked")
    ranks = said.numbers()
    rows.reject(~np.isfinite(ranks), f"{said.column} is not a number")
    return ranks


def _moment(word: str | None) -> int:
    """A time as a number that orders: seconds or ISO 8601; NO_TIME where it is neither."""
    if word is None:
        return NO_TIME
    number = as_number(word)
    if np.isfinite(number) and abs(number) < 1e12:
        return int(number * 1e6)
    if np.isfinite(number):
        return int(number) if abs(number) < 1e18 else NO_TIME
    try:
        moment = datetime.datetime.fromisoformat(word.strip())
    except ValueError:
        return NO_TIME
    return int(moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp() * 1e6)
