"""The words of the voter's page: the same names and blanks in every language, and those that the scripts use."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from finepref.collect.texts import FALLBACK, LANGUAGES, best_language, texts
from finepref.core.errors import InputError

MADE = {
    *(f"{state}_{part}" for state in ("paused", "done", "closed") for part in ("title", "text")),
    *(f"how_{mode}" for mode in ("pair", "rank", "best")),
    *(f"{side}_picture" for side in ("left", "right", "upper", "lower")),
    *("left", "right", "upper", "lower", "tie", "both_bad", "undo", "zoom", "submit", "placed", "unplaced"),
}
"""Names that the scripts put together, or take from an answer."""


def used() -> set[str]:
    """Names that scripts and template spell after `texts.`."""
    files = (
        ("finepref.report", "assets/ballot.js"),
        ("finepref.collect", "assets/vote.js"),
        ("finepref.collect", "templates/vote.html.j2"),
        ("finepref.collect", "templates/refused.html.j2"),
    )
    sources = [resources.files(package).joinpath(name).read_text(encoding="utf-8") for package, name in files]
    return {name for text in sources for name in re.findall(r"\btexts\.(?!py\b)(\w+)", text)}


def blanks(text: str) -> list[str]:
    return sorted(re.findall(r"\{\w+\}", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything(language: str) -> None:
    said, first = texts(language), texts(FALLBACK)
    assert said.keys() == first.keys()
    assert all(text.strip() == text != "" for text in said.values())
    assert {name: blanks(text) for name, text in said.items()} == {name: blanks(text) for name, text in first.items()}


def test_the_page_finds_its_words_and_uses_them_all() -> None:
    assert (used() | MADE) - texts(FALLBACK).keys() == set()
    assert texts(FALLBACK).keys() - used() - MADE == set()


def test_languages_differ() -> None:
    assert sum(texts("de")[name] == text for name, text in texts("en").items()) <= 2


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(InputError, match="unknown language 'fr'"):
        texts("fr")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.5", "de"),
        ("DE-ch", "de"),
        ("en-GB,en;q=0.9,de;q=0.8", "en"),
        ("fr, de;q=0.3", "de"),
        ("fr, it", "en"),
        ("en;q=0.2, de;q=0.7", "de"),
        ("de;q=0, en;q=0.1", "en"),
        ("de;q=0", "en"),
        ("*", "en"),
        ("de;q=0.4, *;q=0.5", "en"),
        ("de;q=", "en"),
        ("de;q=nan, ;;, =", "en"),
        ("de;q=7", "en"),
        ("de ; q=0.5", "de"),
        ("dex, den-DE", "en"),
    ],
)
def test_the_best_language_of_a_header(header: str, language: str) -> None:
    assert best_language(header) == language
