"""Options of every command that reads votes or preferences: how the tables are to be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Option

from finepref.core.errors import InputError
from finepref.formats.reading import Reading

Format = Annotated[str, Option("--format", help="auto, or the name of a format (docs/data.md).")]
Columns = Annotated[list[str] | None, Option("--column", help="FIELD=COLUMN where the names differ; repeatable.")]
MEANS = "WORD=left|right|tie|both_bad|none: what an outcome word means; repeatable."
Outcomes = Annotated[list[str] | None, Option("--outcome", metavar="WORD=MEANING", help=MEANS)]
Encoding = Annotated[str | None, Option(help="Of text files, such as cp1252 or utf-16; utf-8 by default.")]
Split = Annotated[str | None, Option(help="Which split of a folder that holds several, such as train.")]
Question = Annotated[str | None, Option(help="Whose votes are read, where several questions were asked.")]
Images = Annotated[
    Path | None, Option(help="Folder where image paths start and that they must stay in; by default each table's own.")
]


def pairs_of(given: Sequence[str] | None, option: str, form: str, example: str) -> dict[str, str]:
    """`KEY=VALUE` words of a repeatable option as a dictionary.

    Raises:
        InputError: a word without =, or a key twice with two values.
    """
    found: dict[str, str] = {}
    for entry in given or ():
        key, equals, value = entry.rpartition("=") if option == "--outcome" else entry.partition("=")
        if not (equals and key and value):
            raise InputError(f"{entry!r} is not {form}", where=option, remedy=f"write {example}")
        if found.get(key, value) != value:
            raise InputError(f"{key!r} is said twice", where=option, remedy="say it once")
        found[key] = value
    return found


def reading_of(
    format: str,
    columns: Sequence[str] | None,
    outcomes: Sequence[str] | None,
    encoding: str | None,
    split: str | None,
    question: str | None,
    images: Path | None = None,
) -> Reading:
    """The options as a record."""
    return Reading(
        format=format,
        columns=pairs_of(columns, "--column", "FIELD=COLUMN", "prompt=text"),
        outcomes=pairs_of(outcomes, "--outcome", "WORD=MEANING", "1=left"),
        encoding=encoding, split=split, question=question,
        images=None if images is None else str(images),
    )  # fmt: skip
