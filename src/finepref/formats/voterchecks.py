"""Checks on the voters of a study, as the owner's page and `finepref collect --export` give them; read by people.

JSON: {kind, version, level, provenance, questions: [{question, answers, looked_at, voters: [{name, state, results}],
pooled}]}; a result is {check, value, low, high, p, flagged, n, words}, its numbers null where they cannot be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finepref.core.files import finite, read_json, write_json

KIND, VERSION, LEVEL = "voter checks", 1, 0.95
REMEDY = "write it with `finepref collect STUDY --export`"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check's number with its 95 % limits, nan where there is none.

    p: chance of this or worse for a voter with nothing wrong; nan where there is too little to say. flagged: p is below
    the error rate. n: answers looked at.
    """

    check: str
    value: float
    low: float
    high: float
    p: float
    flagged: bool
    n: int
    words: str


@dataclass(frozen=True, slots=True)
class CheckedVoter:
    """A voter of a study and what the checks say. state: active or excluded; checks change nothing of it."""

    name: str
    state: str
    results: tuple[CheckResult, ...]

    @property
    def flagged(self) -> tuple[str, ...]:
        """Names of the checks that flag the voter."""
        return tuple(result.check for result in self.results if result.flagged)


@dataclass(frozen=True, slots=True)
class QuestionChecks:
    """The checks on the answers to a question. answers: that stand. looked_at: the newest of them, of every voter.

    pooled: of all voters together.
    """

    question: str
    answers: int
    looked_at: int
    voters: tuple[CheckedVoter, ...]
    pooled: tuple[CheckResult, ...]


def checks_as_json(questions: Sequence[QuestionChecks], provenance: Mapping[str, Any]) -> Any:
    """What the file holds."""
    held = [asdict(each) for each in questions]
    return finite({"kind": KIND, "version": VERSION, "level": LEVEL, "provenance": dict(provenance), "questions": held})


def write_checks(path: Path, questions: Sequence[QuestionChecks], provenance: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all."""
    write_json(path, checks_as_json(questions, provenance))


def is_checks(path: Path) -> bool:
    """Whether a file is one of these."""
    held = read_json(path, remedy=REMEDY)
    return isinstance(held, dict) and held.get("kind") == KIND
