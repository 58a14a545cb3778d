"""The tables of the two papers as numbers, to stand beside a user's own rows."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

Values = tuple[float | None, ...]

SET_ROWS = {"papv2": 487, "hpsv2": 3200, "partiprompts": 1632}
"""Rows of the published prompt sets."""
ABLATIONS = ("arenapo-4", "arenapo-5", "arenapo-8", "smpo-3", "smpo-4", "smpo-5", "smpo-6", "smpo-7")


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A printed table, or the part of one that has one backbone and one prompt set.

    metrics: scorer names as `finepref score` knows them (`ksort`, `gpu-hours` are none). labels: the paper's words.
    scale: printed = scale * score. rows: method -> values. win_rates: method -> percent of prompts on which
    `win_rate_of` beats it, over n prompts.
    """

    id: str
    paper: str
    title: str
    family: str
    prompt_set: str | None
    protocol: str | None
    statistic: str
    metrics: tuple[str, ...]
    labels: tuple[str, ...]
    scale: tuple[float, ...]
    rows: Mapping[str, Values]
    win_rate_of: str | None = None
    win_rates: Mapping[str, Values] | None = None
    n: int | None = None

    @property
    def ablation(self) -> bool:
        """Whether it varies one method instead of comparing methods."""
        return self.id in ABLATIONS


@functools.cache
def load_tables() -> tuple[PaperTable, ...]:
    """All tables, in the order of the papers."""
    text = (resources.files("finepref.evaluate.papers") / "tables.json").read_text(encoding="utf-8")
    return tuple(_table(record) for record in json.loads(text)["tables"])


def _table(record: dict[str, Any]) -> PaperTable:
    found: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    for key in ("rows", "win_rates"):
        if found.get(key):
            found[key] = {name: tuple(values) for name, values in record[key].items()}
    return PaperTable(**found)


def best_and_second(values: Sequence[float | None], *, lower: bool = False) -> tuple[set[int], set[int]]:
    """Positions of the best and of the second best value of a column, ties included; missing values are in neither."""
    there = sorted({value for value in values if value is not None}, reverse=not lower)
    return (
        {place for place, value in enumerate(values) if there and value == there[0]},
        {place for place, value in enumerate(values) if len(there) > 1 and value == there[1]},
    )


def same_metric(wanted: str, names: Sequence[str]) -> str | None:
    """The name that is this metric: itself, else the same scorer with another preprocessing, else None."""
    if wanted in names:
        return wanted
    return next((name for name in names if name.partition(":")[0] == wanted.partition(":")[0]), None)


def tables_for(metrics: Sequence[str], prompt_sets: Sequence[str]) -> list[PaperTable]:
    """Tables of these prompt sets that share at least two metrics with a user's."""
    return [
        table
        for table in load_tables()
        if table.prompt_set in prompt_sets
        and sum(same_metric(metric, metrics) is not None for metric in table.metrics) >= 2
    ]
