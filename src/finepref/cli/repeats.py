"""An option that takes one value and is given twice is refused: the command line library would take the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import typer

from finepref.core.errors import InputError


def refuse_repeats(app: typer.Typer, words: Sequence[str]) -> None:
    """Look at the words of a command line before it is run.

    Raises:
        InputError: an option of one value stands twice.
    """
    command: Any = typer.main.get_command(app)
    left = list(words)
    while left and hasattr(command, "commands") and left[0] in command.commands:
        command = command.commands[left.pop(0)]
    single = {
        name: option.opts[0]
        for option in getattr(command, "params", ())
        if getattr(option, "param_type_name", "") == "option" and not (option.multiple or option.is_flag)
        for name in option.opts
    }
    given = left[: left.index("--")] if "--" in left else left
    counts = Counter(single[name] for word in given if (name := word.partition("=")[0]) in single)
    for name, count in counts.items():
        if count > 1:
            raise InputError("it is given twice, and takes one value", where=name, remedy="leave one of them out")
