"""Votes that answer several questions: an arena for each, and one folder that holds them side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finepref.arena.findings import Findings
from finepref.arena.ratings import Ratings, load_ratings
from finepref.arena.whole import PAGE, ArenaRequest, run_arena
from finepref.core.errors import InputError
from finepref.core.progress import say
from finepref.core.provenance import fingerprinted
from finepref.formats.questions import QUESTIONS, QuestionFolder, QuestionsRecord, read_questions, write_questions
from finepref.formats.ratings import RATINGS
from finepref.formats.sources import find_files
from finepref.formats.votefiles import read_as

Page = Callable[[Path, Findings, Mapping[str, Any]], None]
IndexPage = Callable[[Path, Sequence[tuple[QuestionFolder, Ratings]], Mapping[str, Any]], None]


def run_arenas(
    votes: Sequence[str | Path], out: str | Path, options: ArenaRequest, *, page: Page, index: IndexPage
) -> QuestionsRecord:
    """Rate the votes on every question by themselves.

    Each question has a whole arena folder below `out`; questions.json lists them, arena.html shows them side by side.

    Args:
        votes, options, page: as of `run_arena`; `options.reading.question` is "all".
        out: folder to write. index: writes the page that shows all boards.

    Raises:
        InputError: the votes cannot be used, or name no question; `out` holds something else.
    """
    out = Path(out)
    made = fingerprinted(inputs=find_files(votes, options.reading), config=options.config())
    if (out / RATINGS).exists():
        raise InputError("holds an arena of one question", where=out, remedy="give another --out")
    if (out / QUESTIONS).exists() and not options.overwrite and not read_questions(out).is_of(made):
        remedy = "give another --out, or --overwrite to replace it"
        raise InputError("holds arenas of other votes or settings", where=out, remedy=remedy)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent, ignore_cleanup_errors=True) as scratch:
        table = read_as(votes, options.reading, skip_bad_rows=options.skip_bad_rows, spill=Path(scratch))
        names = table.votes.questions or ()
    pairs = zip(names, _folders(names), strict=True)
    boards = tuple(QuestionFolder(question=name, folder=folder) for name, folder in pairs)
    for board in boards:
        say(f"question {board.question!r}: {out / board.folder}")
        one = replace(options, reading=replace(options.reading, question=board.question))
        run_arena(votes, out / board.folder, one, page=page)
    record = QuestionsRecord(boards=boards, provenance=made)
    index(out / PAGE, [(board, load_ratings(out / board.folder)) for board in boards], made)
    write_questions(out, record)
    return record


def _folders(questions: Sequence[str]) -> list[str]:
    """A folder name for every question: its number and its letters and digits."""
    words = [re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-")[:40] for question in questions]
    return [f"{number}-{word}".rstrip("-") for number, word in enumerate(words, start=1)]
