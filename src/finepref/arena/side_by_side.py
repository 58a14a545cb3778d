"""Votes that answer several questions: an arena for each, and one folder that holds them side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finepref.arena.findings import Findings
from finepref.arena.ratings import Ratings, load_ratings
from finepref.arena.whole import PAGE, ArenaRequest, run_arena
from finepref.core.errors import InputError
from finepref.core.locks import temporary
from finepref.core.outfolders import check_folder, settle, whole_folder
from finepref.core.progress import say
from finepref.core.provenance import fingerprint_of, fingerprinted
from finepref.core.text import visible
from finepref.formats.folders import BOARDS
from finepref.formats.questions import (
    QUESTIONS,
    QuestionFolder,
    QuestionRefused,
    QuestionsRecord,
    read_questions,
    write_questions,
)  # fmt: skip
from finepref.formats.ratings import RATINGS
from finepref.formats.sources import find_files, identities
from finepref.formats.votefiles import read_as

Page = Callable[[Path, Findings, Mapping[str, Any]], None]
IndexPage = Callable[[Path, Sequence[tuple[QuestionFolder, Ratings]], QuestionsRecord], None]


def run_arenas(
    votes: Sequence[str | Path], out: str | Path, options: ArenaRequest, *, page: Page, index: IndexPage
) -> QuestionsRecord:
    """Rate the votes on every question by themselves.

    Each question has a whole arena folder below `out`; questions.json lists them, arena.html shows them side by side.
    A question whose votes cannot be rated has no board; it is listed with the reason.

    Args:
        votes, options, page: as of `run_arena`; `options.reading.question` is "all".
        out: folder to write. index: writes the page that shows all boards.

    Raises:
        InputError: the votes cannot be used, name no question, or none has a board; `out` holds something else.
    """
    out = Path(out)
    files = find_files(votes, options.reading)
    check_folder(out, BOARDS, inputs=[*votes, *files])
    settle(out, BOARDS)
    made = fingerprinted(inputs=files, config=options.config(), identities=identities(votes, options.reading))
    if (out / QUESTIONS).exists() and not options.overwrite:
        held = read_questions(out)
        if not held.is_of(made):
            remedy = "give another --out, or --overwrite to replace it"
            raise InputError("holds arenas of other votes or settings", where=out, remedy=remedy)
        if (out / PAGE).exists() and all((out / board.folder / RATINGS).exists() for board in held.boards):
            say(f"{out}: already holds the arenas of these votes and settings")
            return held
    with whole_folder(out, BOARDS, fingerprint=fingerprint_of(made)) as folder:
        with temporary(folder.parent, folder=True) as scratch:
            table = read_as(votes, options.reading, skip_bad_rows=options.skip_bad_rows, spill=scratch, repeated=True)
            names = table.votes.questions or ()
            del table
        boards, refused = [], []
        for board in (QuestionFolder(question=q, folder=f) for q, f in zip(names, _folders(names), strict=True)):
            say(f"question {visible(repr(board.question))}: {out / board.folder}")
            one = replace(options, reading=replace(options.reading, question=board.question))
            try:
                run_arena(votes, folder / board.folder, one, page=page, shown=out / board.folder)
                boards.append(board)
            except InputError as error:
                say(f"question {visible(repr(board.question))} has no board: {visible(error.what)}")
                refused.append((QuestionRefused(question=board.question, reason=error.what), error))
        if not boards:
            raise _of_all([error for _, error in refused])
        record = QuestionsRecord(boards=tuple(boards), refused=tuple(each for each, _ in refused), provenance=made)
        index(folder / PAGE, [(board, load_ratings(folder / board.folder)) for board in boards], record)
        write_questions(folder, record)
    return record


def _of_all(errors: Sequence[InputError]) -> InputError:
    """What is said where no question has a board: the one reason, or all."""
    if len({error.what for error in errors}) <= 1:
        return errors[0]
    reasons = "; ".join(dict.fromkeys(error.what for error in errors))
    return InputError(f"no question has a board: {reasons}", remedy="give votes between different models")


def _folders(questions: Sequence[str]) -> list[str]:
    """A folder name for every question: its number and its letters and digits."""
    words = [re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-")[:40] for question in questions]
    return [f"{number}-{word}".rstrip("-") for number, word in enumerate(words, start=1)]
