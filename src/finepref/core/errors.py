"""The exceptions a user can meet.

    FineprefError            one sentence: where, what, remedy          exit code 2
    +- InputError            a file, row, image or option that cannot be used
    +- ConfigError           a run config that cannot be used
    +- CheckFailed           it ran, and a check did not pass           exit code 1

Programming errors stay ordinary exceptions and keep their traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from finepref.core.text import visible

MOST_NAMES = 60  # names that a remedy lists
MOST = 1500  # characters of a sentence, whatever a name in it is
LONGEST = 200  # characters of what a library says


class FineprefError(ValueError):
    """An error whose text is for the user, in one line: where it is, what is wrong, and what to do about it."""

    exit_code = 2

    def __init__(self, what: str, *, where: object = None, remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        text = f"{where}: {what}" if where is not None else what
        shown = visible(f"{text}; {remedy}" if remedy else text)
        super().__init__(shown if len(shown) <= MOST else f"{shown[: MOST - 3]}...")


class InputError(FineprefError):
    """A file, row, image or option that cannot be used as it is."""


class ConfigError(FineprefError):
    """A run config that cannot be used as it is."""


class CheckFailed(FineprefError):
    """The command ran and a check that was asked for did not pass."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """The first line of what a library says, cut to `LONGEST`, or the kind of its error where it says nothing."""
    return cut((str(error).strip() or type(error).__name__).splitlines()[0])


def cut(text: str) -> str:
    """A text of any length as one line of at most `LONGEST` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def check_word(word: str, known: Iterable[str], what: str, *, where: object = None) -> None:
    """Refuse a word that is none of those that are known.

    Raises:
        InputError: `unknown WHAT`, with the nearest one.
    """
    if word not in (names := [*known]):
        raise InputError(f"unknown {what} {word!r}", where=where, remedy=nearest(word, names))


def nearest(word: str, names: Iterable[str]) -> str:
    """`did you mean 'x'?` for the nearest of `names`, else the list of them; for the remedy of an error."""
    options = [str(name) for name in names]
    if not options:
        return "there are none here"
    close = difflib.get_close_matches(str(word), options, n=1, cutoff=0.6)
    more = f" and {len(options) - MOST_NAMES} more" if len(options) > MOST_NAMES else ""
    return f"did you mean '{close[0]}'?" if close else "use one of " + ", ".join(options[:MOST_NAMES]) + more
