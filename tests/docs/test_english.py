"""The pages: sentences of at most 30 words, and our own words defined, or linked, where they first stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNREAD = ("LOG.md", "study.md")  # a diary; a page that a command writes
FOLDERS = ("", "explanation", "tutorials")
FOUND = [path for folder in FOLDERS for path in sorted((ROOT / "docs" / folder).glob("*.md"))]
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in FOUND if path.name not in UNREAD)]
LONGEST, LINES = 30, 200
WORDS = ("lab", "base", "reward", "signal", "margin", "gap", "guard", "held out")
"""The project's own words. Each is bold where it is defined, or its page links to one where it is."""


def prose(text: str) -> str:
    """The text without code, pictures, tables, comments and the addresses of links."""
    text = re.sub(r"^```.*?^```$", "\n", text, flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->|!\[[^\]]*\]\([^)]*\)", "", text, flags=re.S)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"^\|.*$", "", text, flags=re.M)


def sentences(text: str) -> list[str]:
    """Sentences, headings and items of lists."""
    text = re.sub(r"`[^`]*`", "`code`", prose(text))
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|^#+ .*$", text, flags=re.M)
    return [one for part in parts for one in re.split(r"(?<=[.!?])\s+(?=[A-Z`*\[])", " ".join(part.split())) if one]


def test_the_splitter() -> None:
    text = "# Head\n\nOne two. Three\nfour five.\n\n- six\n- seven: `a. B`\n\n```sh\nx y z\n```\n| a | b |\n"
    assert sentences(text) == ["One two.", "Three four five.", "- six", "- seven: `code`"]


@pytest.mark.parametrize("page", PAGES)
def test_short_sentences(page: str) -> None:
    long = [one for one in sentences((ROOT / page).read_text(encoding="utf-8")) if len(one.split()) > LONGEST]
    assert not long, long


@pytest.mark.parametrize("page", PAGES)
def test_own_words_are_defined_before_they_are_used(page: str) -> None:
    text = re.sub(r"`[^`]*`|https?://\S+|^#+ .*$", "", prose((ROOT / page).read_text(encoding="utf-8")), flags=re.M)
    for word in WORDS:
        first = re.search(rf"(\*\*)?\b{word}s?\b(\*\*)?", text, flags=re.I)
        assert first is None or first[1], f"{word}: ...{text[max(0, first.start() - 60) : first.end() + 20]}"


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LINES
