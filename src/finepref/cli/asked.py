"""Options of every command that reads votes or preferences: how the tables are to be read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from finepref.core.errors import InputError
from finepref.formats.reading import Reading

Command = Callable[..., None]
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


def share_of(shard: str) -> tuple[int, int]:
    """`--shard INDEX/COUNT` as numbers.

    Raises:
        InputError: it is of another form.
    """
    index, slash, count = shard.partition("/")
    if not (slash and shard.isascii() and index.isdecimal() and count.isdecimal()):
        raise InputError(f"'{shard}' is not INDEX/COUNT", where="--shard", remedy="write 0/4")
    return int(index), int(count)


def _reading(
    format: Format = "auto",
    column: Columns = None,
    outcome: Outcomes = None,
    encoding: Encoding = None,
    split: Split = None,
    question: Question = None,
    images: Images = None,
) -> Reading:
    return Reading(
        format=format,
        columns=pairs_of(column, "--column", "FIELD=COLUMN", "prompt=text"),
        outcomes=pairs_of(outcome, "--outcome", "WORD=MEANING", "1=left"),
        encoding=encoding, split=split, question=question,
        images=None if images is None else str(images),
    )  # fmt: skip


def words_of(reading: Reading) -> list[str]:
    """How the data are read, as the words of a command."""
    found = [] if reading.format == "auto" else ["--format", reading.format]
    found += [word for key, value in reading.columns.items() for word in ("--column", f"{key}={value}")]
    found += [word for key, value in reading.outcomes.items() for word in ("--outcome", f"{key}={value}")]
    for name in ("encoding", "split", "question", "images"):
        value = getattr(reading, name)
        found += [] if value is None else [f"--{name}", str(value)]
    return found


def with_reading(*, images: bool = True) -> Callable[[Command], Command]:
    """The options of how tables are read, in the place of a command's parameter `reading`, which gets what they say.

    images: whether --images is one of them.
    """
    asked = [each for each in signature(_reading, eval_str=True).parameters.values() if images or each.name != "images"]

    def decorate(command: Command) -> Command:
        own = signature(command, eval_str=True).parameters.values()
        shown = [option for each in own for option in (asked if each.name == "reading" else [each])]

        @functools.wraps(command)
        def read(*places: Any, **given: Any) -> None:
            said = {option.name: given.pop(option.name, option.default) for option in asked}
            command(*places, reading=_reading(**said), **given)

        read.__signature__ = Signature(shown)  # type: ignore[attr-defined]
        return read

    return decorate
