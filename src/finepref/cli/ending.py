"""How a stage ends: what it wrote, on stdout, and the commands that go on from it, on stderr."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from finepref.core.progress import is_stage, say_lines
from finepref.core.rows import named_plugins
from finepref.core.terminal import width
from finepref.core.text import visible

Words = Sequence[object]
"""A command: the words after `finepref`."""
NEXT = "next: "
WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+""")  # with its quotes


def beside(place: Path, what: str) -> Path:
    """A place of its own beside another: runs/a -> runs/a-what."""
    return place.with_name(f"{place.name}-{what}")


def ends(wrote: object, *following: Words, when: str = "") -> None:
    """Print what a stage wrote and, where no other command runs it, the commands that go on from it.

    when: what has to happen before they make sense.
    """
    print(wrote, flush=True)
    if is_stage() or not following:
        return
    plugins = [word for name in named_plugins() for word in ("--plugin", name)]
    texts = [shlex.join(["finepref", *map(str, words), *plugins]) for words in following]
    lines = [line for text in texts for line in command_lines(text, start=" " * len(NEXT), most=width(sys.stderr))]
    say_lines([f"next, {when}:", *lines] if when else [NEXT + lines[0].lstrip(), *lines[1:]])


def command_lines(text: str, *, start: str = "", most: int | None = None) -> list[str]:
    """A command as a shell takes it, in lines of at most `most` characters (the terminal's) with a backslash between.

    text: the command, quoted. A word that is longer than a line stays whole.
    """
    most = width() if most is None else most
    text = visible(text)
    if not most or len(start) + len(text) <= most:
        return [start + text]
    lines, line = list[str](), start
    for word in WORD.findall(text):
        if line.strip() and len(line) + len(word) + 2 > most:
            lines.append(f"{line.rstrip()} \\")
            line = f"{start}    "
        line += f"{word} "
    return [*lines, line.rstrip()]
