"""How often each model's picture was called the best, per question: the table of a user study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from finepref.evaluate.stats import bootstrap_means
from finepref.formats.answers import VOTES, pictures_of, reading_votes
from finepref.formats.collection import read_study
from finepref.formats.studyvotes import votes_of
from finepref.report.kit import Cell, TextTable, table
from finepref.report.wording import NONE, percent, whole


def best_votes(folder: Path) -> TextTable | None:
    """A row a question, a column a model: the share of sets with a picture of the model in which that was the best one.

    With 95 % intervals that resample whole prompts. None where a study does not ask for the best, or nobody voted yet.
    """
    about = read_study(folder)
    if about.mode != "best":
        return None
    rows: list[list[tuple[int, list[float]]]] = [[] for _ in about.questions]
    with reading_votes(folder / VOTES) as connection:
        pictures = pictures_of(connection)
        for answer, shown in votes_of(connection, about):
            held = [pictures[number] for number in shown.pictures]
            won = [np.nan] * len(about.models)
            for place, picture in enumerate(held):
                won[picture.model] = float(place == json.loads(answer.answer))
            rows[answer.question].append((held[0].prompt, won))
    if not any(rows):
        return None
    shown_rows = []
    for question, own in zip(about.questions, rows, strict=True):
        cells: list[object] = [Cell(question.text, small=(question.name,)), whole(len(own))]
        if own:
            _, codes = np.unique([prompt for prompt, _ in own], return_inverse=True)
            for share in bootstrap_means(np.array([won for _, won in own]), codes):
                limits = () if np.isnan(share.low) else (f"{percent(share.low)} to {percent(share.high)}",)
                cells.append(Cell(percent(share.value), small=limits) if np.isfinite(share.value) else NONE)
        else:
            cells += [NONE] * len(about.models)
        shown_rows.append(cells)
    return table(("Question", "Sets", *about.models), shown_rows, left=(0,), wrap=(0,))
