"""Exports of annotation tools: a row is a task with the answers of several people, and becomes one row an answer.

Sources of the shapes: Label Studio, label-studio-sdk converter and docs/task_format; Argilla 2, records/_io and
to_datasets; Argilla 1, FeedbackDataset.format_as("datasets").
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from finepref.core.errors import InputError
from finepref.core.text import is_missing, visible
from finepref.formats.exports import NoVote, Row

RESPONSES = ".responses"
_TASK = (  # keys of a Label Studio record that are no control and no data of the person's
    *("id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time", "agreement", "history"),
    *("prompt", "caption", "text"),
)
_CONTROLS = ("pairwise", "choices")


def label_studio(row: Row) -> Iterator[Row | NoVote]:
    """JSON: a task with `annotations`, each with results of controls; predictions are no votes."""
    tasks = row.get("annotations") or row.get("completions") or []
    if not tasks:
        yield NoVote("a task without annotations")
    for task in tasks:
        if task.get("was_cancelled") or task.get("skipped"):
            yield NoVote("skipped (was_cancelled)")
            continue
        said = [result for result in task.get("result") or [] if result.get("type") in _CONTROLS]
        if not said:
            yield NoVote("no answer (empty result)")
        for result in said:
            who = task.get("completed_by")
            yield {
                **row["data"],
                "winner": _selected(result["value"]),
                "voter": who.get("email", who.get("id")) if isinstance(who, Mapping) else who,
                "question": result.get("from_name"),
                "time": task.get("created_at"),
            }


def label_studio_min(row: Row) -> Iterator[Row | NoVote]:
    """JSON-MIN, csv and tsv: a row an annotation; the controls are columns that hold a list, a record, or a word."""
    controls = {}
    for name, value in row.items():
        said = _parsed(value)
        if name not in _TASK and isinstance(said, list) and said and isinstance(said[0], Mapping):
            controls[name] = said[0]
    plain = [name for name in ("choice", "choices", "verdict", "preference") if not is_missing(row.get(name))]
    if is_missing(row.get("annotation_id")) or not (controls or plain):
        yield NoVote("no answer")
        return
    words = {name: _selected(value) for name, value in controls.items() if {"selected", "choices"} & value.keys()}
    words |= {name: row[name] for name in plain if name not in controls}
    for name, word in words.items():
        rest = {key: value for key, value in row.items() if key not in words}
        yield {**rest, "winner": word, "voter": row.get("annotator"), "question": name, "time": row.get("created_at")}


def _selected(value: Mapping[str, Any]) -> object:
    """The word of a Pairwise or a Choices control."""
    if "selected" in value:
        return value["selected"]
    choices = value.get("choices") or []
    if isinstance(choices, str):
        return choices
    if len(choices) != 1:
        raise InputError(f"{len(choices)} choices for one question", remedy="keep one")
    return choices[0]


def _parsed(value: object) -> object:
    """JSON text of a csv cell as what it says; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def argilla(row: Row) -> Iterator[Row | NoVote]:
    """Argilla 2, nested: `responses` by question, each a value and a user; suggestions are no votes."""
    plain = _unnested({**(row.get("metadata") or {}), **(row.get("fields") or {})})
    answers = [(name, each) for name, found in (row.get("responses") or {}).items() for each in found or ()]
    if not answers:
        yield NoVote("a record without responses")
    for name, each in answers:
        yield {**plain, "winner": each.get("value"), "voter": each.get("user_id"), "question": name}


def argilla_flat(row: Row) -> Iterator[Row | NoVote]:
    """Argilla 2, flat: for each question three lists, `Q.responses`, `Q.responses.users` and `Q.responses.status`."""
    plain = _unnested(
        {name: value for name, value in row.items() if RESPONSES not in name and ".suggestion" not in name}
    )
    answered = False
    for column in (name for name in row if name.endswith(RESPONSES)):
        said = row[column] or []
        users, states = (row.get(f"{column}.{part}") or [None] * len(said) for part in ("users", "status"))
        for value, user, state in zip(said, users, states, strict=True):
            answered = True
            if state not in (None, "submitted"):
                yield NoVote(f"a response that is {visible(str(state))}")
            else:
                yield {**plain, "winner": value, "voter": user, "question": column.removesuffix(RESPONSES)}
    if not answered:
        yield NoVote("a record without responses")


def argilla_1(row: Row) -> Iterator[Row | NoVote]:
    """Argilla 1: a column for each question, a list of {user_id, value, status}; a value may be a ranking of two."""
    about = _parsed(row.get("metadata")) or {}
    plain = {str(name).replace("-", "_"): value for name, value in about.items()} if isinstance(about, Mapping) else {}
    questions = [name.removesuffix("-suggestion") for name in row if name.endswith("-suggestion")]
    answers = [(name, each) for name in questions for each in row.get(name) or ()]
    if not answers:
        yield NoVote("a record without responses")
    for name, each in answers:
        if each.get("status") not in (None, "submitted"):
            yield NoVote(f"a response that is {visible(str(each.get('status')))}")
            continue
        word = _ranked(each["value"])
        known = {key: value for key, value in row.items() if key not in questions and not key.startswith(name)}
        yield {**known, **plain, "winner": word, "voter": each.get("user_id"), "question": name}


def _ranked(value: object) -> object:
    """Of a ranking of two its winner's name or a tie; a word as it is."""
    if isinstance(value, list):
        value = {key: [each[key] for each in value] for key in ("rank", "value")}
    if not isinstance(value, Mapping):
        return value
    ranks, names = value["rank"], value["value"]
    if len(names) != 2:
        raise InputError(f"a ranking of {len(names)}", remedy="write one row an item, with group, rank and model")
    return "tie" if ranks[0] == ranks[1] else names[0] if ranks[0] < ranks[1] else names[1]


def _unnested(row: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the entries of records in it beside the others; vectors and other lists are left away."""
    plain = {name: value for name, value in row.items() if not isinstance(value, dict | list)}
    for value in row.values():
        plain |= value if isinstance(value, dict) and "bytes" not in value else {}
    return plain
