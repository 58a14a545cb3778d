"""A request that cannot be done, and what an answer says beside itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finepref.formats.answers import as_json
from finepref.formats.collection import Mode, fits_answer

DEVICES, INPUTS = ("phone", "tablet", "desktop"), ("key", "mouse", "touch")
LONGEST = 24 * 3600 * 1000


class Refused(Exception):
    """A request that cannot be done. status: of HTTP."""

    def __init__(self, status: int, error: str, remedy: str = "") -> None:
        super().__init__(error)
        self.status, self.error, self.remedy = status, error, remedy


def measures(body: Mapping[str, Any]) -> dict[str, Any]:
    """Milliseconds, device and input of an answer, as they are kept.

    Raises:
        Refused: a number or word that cannot be.
    """
    found: dict[str, Any] = {}
    for name in ("milliseconds", "loaded"):
        value = body.get(name)
        if type(value) is not int or value < 0:
            raise Refused(422, f"{name} is no number of milliseconds")
        found[name] = min(value, LONGEST)
    for name, words in (("device", DEVICES), ("input", INPUTS)):
        if body.get(name) not in words:
            raise Refused(422, f"{name} is none of {', '.join(words)}")
        found[name] = body[name]
    return found


def checked_answer(mode: Mode, size: int, value: Any, question: str) -> str:
    """An answer to a question about `size` pictures, as it is kept.

    Raises:
        Refused: it does not fit.
    """
    if not fits_answer(mode, value, size):
        raise Refused(422, f"an answer to {question!r} that does not fit mode {mode}")
    return as_json(value)
