"""questions.json: an arena folder of several questions, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finepref.core.files import write_json
from finepref.formats.records import read_record

QUESTIONS = "questions.json"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionFolder:
    """A question and the arena folder of its votes, below the folder of questions.json."""

    question: str
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionRefused:
    """A question without a board, and why."""

    question: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionsRecord:
    """What questions.json holds."""

    boards: tuple[QuestionFolder, ...]
    refused: tuple[QuestionRefused, ...] = ()
    provenance: Mapping[str, Any]
    version: int = VERSION

    def is_of(self, made: Mapping[str, Any]) -> bool:
        """Whether it was made with the votes and the settings of this provenance."""
        return self.provenance.get("fingerprint") == made["fingerprint"]


def read_questions(folder: Path) -> QuestionsRecord:
    """Read questions.json of a folder.

    Raises:
        InputError: the file is missing, broken or no such record.
    """
    remedy = "write it with `finepref arena --question all`"
    return read_record(folder / QUESTIONS, QuestionsRecord, version=VERSION, remedy=remedy)


def write_questions(folder: Path, record: QuestionsRecord) -> None:
    """Write questions.json into a folder."""
    write_json(folder / QUESTIONS, asdict(record))
