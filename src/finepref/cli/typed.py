"""The options of a command line as they were typed: refused where one stands twice, named so where one is at fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from finepref.core.errors import FineprefError, InputError


def refuse_repeats(app: typer.Typer, words: Sequence[str]) -> None:
    """Look at the words of a command line before it is run: the command line library would take the last.

    Raises:
        InputError: an option of one value stands twice.
    """
    options, given = _typed(app, words)
    counts = Counter(options[name].opts[0] for name in given if not (options[name].multiple or options[name].is_flag))
    for name, count in counts.items():
        if count > 1:
            raise InputError("it is given twice, and takes one value", where=name, remedy="leave one of them out")


def as_typed(error: FineprefError, app: typer.Typer, words: Sequence[str]) -> str:
    """The sentence of an error; where it names a setting that an option gave, it names the option."""
    options, given = _typed(app, words)
    labels = {option.lstrip("-"): name for name in given for option in options[name].opts}
    place = error.where.split(" ") if isinstance(error.where, str) else []
    for count in (2, 1):
        name = labels.get("-".join(place[:count]).replace("_", "-"))
        if name is not None:
            return str(FineprefError(error.what, where=" ".join([name, *place[count:]]), remedy=error.remedy))
    return str(error)


def _typed(app: typer.Typer, words: Sequence[str]) -> tuple[Mapping[str, Any], Sequence[str]]:
    """The options of the command that is called, by each of their names, and the names that stand in the words."""
    command, left = called(app, words)
    options = {
        name: option
        for option in getattr(command, "params", ())
        if getattr(option, "param_type_name", "") == "option"
        for name in option.opts
    }
    given = left[: left.index("--")] if "--" in left else left
    return options, [name for word in given if (name := word.partition("=")[0]) in options]


def called(app: typer.Typer, words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that is called, and its own words."""
    command: Any = typer.main.get_command(app)
    left = list(words)
    while left and hasattr(command, "commands") and left[0] in command.commands:
        command = command.commands[left.pop(0)]
    return command, left
