"""arena.html of several questions: their boards side by side, and every model's rating on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from finepref.arena.ratings import Ratings
from finepref.arena.whole import PAGE
from finepref.core import files
from finepref.formats.questions import QuestionFolder, QuestionsRecord
from finepref.formats.ratings import RatedModel
from finepref.report.kit import Cell, TextTable, render, table
from finepref.report.standings import standings
from finepref.report.wording import NONE, number, shorten, span, weight, whole


def write_index(path: Path, boards: Sequence[tuple[QuestionFolder, Ratings]], record: QuestionsRecord) -> None:
    """Write the page of these boards, and of the questions without one."""
    shown = [(board.question, quote(f"{board.folder}/{PAGE}"), standings(ratings)) for board, ratings in boards]
    models = {name for _, ratings in boards for name in ratings.models}
    votes = sum(ratings.votes for _, ratings in boards)
    tiles = [(whole(len(boards)), "questions"), (weight(votes), "votes"), (whole(len(models)), "models")]
    told = {"boards": shown, "refused": record.refused, "table": _together(boards), "tiles": tiles}
    files.write_text(path, render("questions.html.j2", **told, made=record.provenance))


def _together(boards: Sequence[tuple[QuestionFolder, Ratings]]) -> TextTable:
    """Every model's rating, interval and tier for each question; in the order of its mean rank."""
    rated = [{row.name: (rank, row) for rank, row in enumerate(ratings.table(), start=1)} for _, ratings in boards]
    names = sorted({name for board in rated for name in board}, key=lambda name: (_mean_rank(name, rated), name))
    rows = [(shorten(name, 60), *(_cell(board.get(name)) for board in rated)) for name in names]
    return table(("Model", *(shorten(board.question, 60) for board, _ in boards)), rows, left=(0,), wrap=(0,))


def _mean_rank(name: str, rated: Sequence[Mapping[str, tuple[int, RatedModel]]]) -> float:
    ranks = [board[name][0] for board in rated if name in board]
    return sum(ranks) / len(ranks)


def _cell(found: tuple[int, RatedModel] | None) -> Cell:
    if found is None:
        return Cell(NONE)
    rank, row = found
    return Cell(number(row.mu), small=(span(row.low, row.high), f"rank {rank}, tier {row.tier}"))
