"""What a person says about their tables: how every reader of votes and preferences is to take them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from finepref.core.errors import InputError, check_word
from finepref.core.text import is_missing
from finepref.formats.outcomes import MEANINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How tables are read. format: a name of `DIALECTS`, or auto. columns: role, or a dialect's column -> theirs.

    outcomes: word -> left, right, tie, both_bad or none (nobody voted), for words that the dialect does not know.
    encoding: of text files. split: which of a folder's splits. question: which one, where several were asked. images:
    the folder where the paths of images start and that they must stay in; None: for each table its own.
    """

    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    outcomes: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    split: str | None = None
    question: str | None = None
    images: str | None = None

    def __post_init__(self) -> None:
        for word, meaning in self.outcomes.items():
            check_word(meaning, MEANINGS, "meaning", where=f"outcome {word}")
            if is_missing(word):
                what = f"{word!r} is how files spell that nothing is there"
                raise InputError(what, where="outcome", remedy="write an outcome into the file")
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError:
            remedy = "name one such as utf-8, utf-16 or cp1252"
            raise InputError(f"unknown encoding {self.encoding!r}", where="encoding", remedy=remedy) from None

    def config(self) -> dict[str, Any]:
        """What decides which rows are read and how; format and columns always, the rest where it is said."""
        said = {name: value for name, value in asdict(self).items() if value}
        return {**said, "format": self.format, "columns": dict(self.columns)}

    def section(self) -> dict[str, Any]:
        """What is said, as keys of the section `data` of a run's config."""
        said = {name: value for name, value in asdict(self).items() if value not in (None, {}, "auto")}
        return {**said, "images": os.fspath(self.images)} if self.images is not None else said


AS_IT_IS = Reading()
