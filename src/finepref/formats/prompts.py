"""Prompt sets: rows of prompts with their tags (style, category, challenge), read from a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import parquet_columns, read_parquet
from finepref.core.provenance import sha256_bytes
from finepref.core.text import fault_of_prompt, is_missing, visible
from finepref.formats.textfiles import csv_header, csv_lines, json_values, opened, separator

PROMPT_COLUMNS = ("prompt", "caption", "text")
SUFFIXES = (".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt")
TAGS = ("style", "category", "challenge")


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts by row. A row is known by its index, never by its text: published sets repeat prompts.

    name: short name of the set. prompts: one text a row. tags: tag -> one value a row ("" for none).
    """

    name: str
    prompts: tuple[str, ...]
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise InputError("the prompt set is empty", where=self.name, remedy="give at least one prompt")
        for tag, values in self.tags.items():
            if len(values) != len(self.prompts):
                raise InputError(f"{len(values)} values of {tag} for {len(self.prompts)} prompts", where=self.name)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the prompts in order, as a JSON list."""
        return sha256_bytes(json.dumps(list(self.prompts), ensure_ascii=False).encode())

    def head(self, count: int | None) -> PromptSet:
        """The first `count` rows (all for None), under the same name."""
        if count is None or count >= len(self):
            return self
        return PromptSet(self.name, self.prompts[:count], {tag: values[:count] for tag, values in self.tags.items()})

    def tags_of(self, row: int) -> dict[str, str]:
        """The tags of a row that have a value."""
        return {tag: values[row] for tag, values in self.tags.items() if values[row]}


def prompt_sha256(prompt: str) -> str:
    """Hex SHA-256 of one prompt's utf-8 text."""
    return sha256_bytes(prompt.encode())


def as_prompt_set(prompts: PromptSet | Sequence[str], name: str = "prompts") -> PromptSet:
    """A prompt set as it is; a sequence of texts as a set without tags."""
    return prompts if isinstance(prompts, PromptSet) else PromptSet(name, tuple(prompts))


def read_prompts(path: str | Path, *, name: str | None = None) -> PromptSet:
    """Read a prompt set from txt (one a line), json (list of texts or records), jsonl, csv, tsv or parquet.

    Tables and records need a column `prompt`, `caption` or `text` (any case); `style`, `category` and `challenge`
    become tags. Empty lines of a txt file are no prompts; an empty prompt in a table is one (unconditional).

    Args:
        path: the file.
        name: name of the set; the file's stem by default.

    Returns:
        The rows in file order.

    Raises:
        InputError: the file is missing, of another kind, empty, or has no prompt column.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError("not a prompt file", where=path, remedy="give " + ", ".join(SUFFIXES))
    if not path.is_file():
        raise InputError("no such prompt file", where=path, remedy="check the path")
    records = [_record(row, place) for place, row in _rows(path)]
    if not records:
        raise InputError("no prompt in it", where=path, remedy="write one prompt a line")
    tags = {tag: tuple(record.get(tag, "") for record in records) for tag in TAGS}
    prompts = tuple(record["prompt"] for record in records)
    return PromptSet(name or path.stem, prompts, {tag: values for tag, values in tags.items() if any(values)})


def _record(row: Any, where: str) -> dict[str, str]:
    """Prompt and tags of a text or an object."""
    if isinstance(row, str):
        return {"prompt": _checked(row, where)}
    if not isinstance(row, Mapping):
        raise InputError("it is neither a text nor an object", where=where, remedy="write every prompt as a string")
    lower = {str(column).strip().lower(): value for column, value in row.items() if column is not None}
    column = next((name for name in PROMPT_COLUMNS if name in lower), None)
    if column is None:
        remedy = f"name it prompt or caption; it has {', '.join(lower)}"
        raise InputError("no column of prompts", where=where, remedy=remedy)
    return {
        "prompt": _checked(lower[column], where),
        **{tag: str(lower[tag]) for tag in TAGS if not is_missing(lower.get(tag))},
    }


def _checked(prompt: object, where: str) -> str:
    """A prompt as it is; an empty one may stand, the unconditional one."""
    fault = "" if prompt == "" else fault_of_prompt(prompt)
    if fault:
        raise InputError(fault, where=where, remedy="write every prompt as a string, and nothing for an empty one")
    return str(prompt)


def _rows(path: Path) -> Iterable[tuple[str, Any]]:
    """(place, text or object) of all that the file lists, in order."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        wanted = [name for name in parquet_columns(path) if name.strip().lower() in (*PROMPT_COLUMNS, *TAGS)]
        rows = read_parquet(path, wanted).to_pylist() if wanted else [{}]
        return ((f"{path}, row {number}", row) for number, row in enumerate(rows))
    if suffix == ".txt":
        with opened(path, None) as text:
            lines = [line.strip() for line in text.read().replace("\r\n", "\n").split("\n")]
        return [(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1) if line]
    if suffix in (".csv", ".tsv"):
        mark = separator(path, None)
        _refuse_twice(csv_header(path, None, mark), path)
        return (_sound(path, "line", line.at, line.cells, line.fault) for line in csv_lines(path, None, mark))
    unit = "object" if suffix == ".json" else "line"
    return (_sound(path, unit, at, value, fault) for at, value, fault in json_values(path))


def _refuse_twice(names: list[str], path: Path) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"column {visible(twice)!r} stands twice", where=path, remedy="keep one, or rename the other")


def _sound(path: Path, unit: str, at: int, value: Any, fault: str) -> tuple[str, Any]:
    place = f"{path}, {unit} {at}"
    if fault:
        raise InputError(fault, where=place, remedy="correct it, or take it out")
    return place, value
