"""One cleaner of what people type: names, prompts, cells of tables that are written, words on the terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

MISSING = frozenset(("", "nan", "null", "none", "n/a", "#n/a", "<na>"))  # how files spell that nothing is there
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
_HIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_BIDI}]")
UNUSABLE = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
"""Ranges of characters that no prompt holds; beside them halves of characters, which utf-8 cannot hold."""
_UNUSABLE = re.compile(f"[{UNUSABLE}\ud800-\udfff]")
_IN_A_NAME = re.compile(f"[\x00-\x1f\x7f-\x9f\xad\u200b\u2060-\u2064\u2028\u2029\ud800-\udfff{_BIDI}]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: null, NaN, or text that is blank or spells it (`nan`, `None`, `null`, `N/A`)."""
    if isinstance(value, str):
        return value.strip().casefold() in MISSING
    return value is None or bool(value != value)


def cell_text(value: Any) -> str | None:
    """A cell as text, None where it is missing; as columns are: 12.0 is 12, a truth value true or false."""
    if is_missing(value):
        return None
    value = value.item() if hasattr(value, "item") else value  # of numpy
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    try:
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    except RecursionError:
        return "(nested too deeply)"


def visible(text: str) -> str:
    """Text for a terminal: line breaks, control characters and those that turn the direction become escapes."""
    return _HIDDEN.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), text)


def clean_name(text: str) -> str:
    """A name as it is compared: without blanks around it, composed (Unicode NFC)."""
    return unicodedata.normalize("NFC", text.strip())


def fault_of_name(text: str) -> str:
    """Why text cannot name something, else nothing: it holds characters that cannot be seen."""
    found = _IN_A_NAME.search(text.strip())
    return f"it holds the character {visible(found.group())}" if found else ""


def fault_of_prompt(value: object) -> str:
    """Why a cell cannot be a prompt, else nothing: missing, not text, or with characters that no text holds."""
    if is_missing(value):
        spelt = str(value).strip() if isinstance(value, str) else ""
        return f"the prompt is empty ({spelt!r})" if spelt else "the prompt is empty"
    if not isinstance(value, str):
        return f"the prompt is no text but {type(value).__name__} {visible(str(cell_text(value)))[:40]}"
    found = _UNUSABLE.search(value)
    return f"the prompt holds the character {visible(found.group())}" if found else ""


def inert(cell: object) -> object:
    """A cell of a csv file that no spreadsheet runs as a formula: text like one gets an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def as_typed(cell: Any) -> Any:
    """What `inert` was given."""
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def asked_otherwise(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What was asked for differently, each with both values as a person would write them."""
    return [
        f"{name} ({_as_written(before.get(name))}, not {_as_written(value)})"
        for name, value in now.items()
        if before.get(name) != value
    ]


def _as_written(value: str | None) -> str:
    return (value or "").translate(str.maketrans("", "", "()[]'")).strip(", ") or "none"
