"""Pages that we wrote, known by what only we write in them: the places of a page and its text are held by it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finepref.core.errors import InputError
from finepref.core.ownership import check_file, own_file, refuse_folder

HTML, TEXT = 'name="generator" content="finepref"', "<!-- finepref report -->"
BEFORE = re.compile(r">finepref \S+ · (\d{4}-[\d:T+-]+)")  # pages of an older version end so
ARENA = "title>Model arena"
STUDY = ("This page is written from the rows in `", "Nothing in it is written by hand.")


@contextmanager
def own_report(out: Path) -> Iterator[Path]:
    """Hold the places of a report and of its text; yields that of the text.

    Raises:
        InputError: something else stands at one of them, or they are one.
    """
    refuse_folder(out, "name a file, such as report.html")
    text = out.with_suffix(".md")
    if text == out:
        what = "the page cannot have the name of its text"
        raise InputError(what, where=out, remedy="end it in .html")

    def is_text(path: Path) -> bool:
        held = path.read_text(encoding="utf-8")
        return held.startswith(TEXT) or ((made := _created(out)) != "" and held.endswith(f"Made {made}.\n"))

    with own_file(out, _is_page, what="a report"), own_file(text, is_text, what="the text of a report"):
        yield text


def check_study(out: Path) -> Path:
    """The place of the page of a study, which is new or an older one.

    Raises:
        InputError: something else stands there.
    """
    what = "the page of a study"
    return check_file(out, lambda path: all(words in path.read_text(encoding="utf-8") for words in STUDY), what=what)


def _is_page(path: Path) -> bool:
    head = path.read_text(encoding="utf-8")[:2000]
    return ARENA not in head and (HTML in head or _created(path) != "")


def _created(page: Path) -> str:
    """When an older version made a page; empty where it did not."""
    found = BEFORE.search(page.read_text(encoding="utf-8")) if page.is_file() else None
    return "" if found is None else found[1]
