"""The file of `finepref next`: pairs of models to vote on, best first, with images to show where those are chosen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError, check_word
from finepref.core.files import read_parquet, write_parquet
from finepref.core.ownership import has_footer, own_beside, own_file, write_beside
from finepref.formats.records import csv_text, json_lines, read_csv, schema, to_table

SUFFIXES = (".csv", ".jsonl", ".parquet")
KIND = "proposals"
MODELS, IMAGES = ("left", "right"), ("left_image", "right_image")
REMEDY = "name a file that `finepref next` wrote"


@dataclass(frozen=True, slots=True)
class Proposal:
    """rank: from 1. left, right: names. gain: expected information of the vote in nats. votes: the pair's so far."""

    rank: int
    left: str
    right: str
    gain: float
    votes: int


@dataclass(frozen=True, slots=True)
class ImageProposal:
    """A `Proposal` with the names of the images to show, as in the votes, and of their prompt (empty: not named)."""

    rank: int
    left: str
    right: str
    gain: float
    votes: int
    prompt: str
    left_image: str
    right_image: str


AnyProposal = Proposal | ImageProposal


COLUMNS = tuple(field.name for field in fields(ImageProposal))


def check_suffix(path: Path) -> None:
    """Refuse a file type that cannot be written."""
    check_word(path.suffix, SUFFIXES, "file type", where=path)


def own_proposals(path: Path, *, inputs: Iterable[str | Path]) -> AbstractContextManager[object]:
    """Hold the place of the file, which is new or an older one that nobody has changed since."""
    check_suffix(path)
    if path.suffix == ".parquet":
        return own_file(
            path, has_footer("left", "right", "gain", more=COLUMNS), inputs=inputs, what="a file of proposals"
        )
    return own_beside(path, kind=KIND, inputs=inputs)


def proposals_csv(proposals: Sequence[AnyProposal], kind: type[AnyProposal]) -> str:
    """The csv as text; of no proposals the header alone."""
    if proposals:
        return csv_text([asdict(proposal) for proposal in proposals])
    return ",".join(field.name for field in fields(kind)) + "\n"


def write_proposals(
    path: Path, proposals: Sequence[AnyProposal], kind: type[AnyProposal], *, provenance: Mapping[str, Any]
) -> None:
    """Write .csv or .jsonl with the provenance in a `.json` beside it, or .parquet, whose footer holds it."""
    check_suffix(path)
    if path.suffix == ".parquet":
        write_parquet(path, to_table(proposals, schema(kind)), provenance)
    elif path.suffix == ".jsonl":
        lines = "".join(json.dumps(asdict(proposal), ensure_ascii=False) + "\n" for proposal in proposals)
        write_beside(path, lines, kind=KIND, provenance=provenance)
    else:
        write_beside(path, proposals_csv(proposals, kind), kind=KIND, provenance=provenance)


@dataclass(frozen=True, slots=True)
class Asked:
    """Names of a vote that is asked for: left and right model, and both images or None."""

    models: tuple[str, str]
    images: tuple[str, str] | None


def read_asked(path: Path) -> list[Asked]:
    """The votes that a file of `finepref next` asks for.

    Raises:
        InputError: the file is missing, broken or another one.
    """
    check_suffix(path)
    rows: Sequence[Any]
    if path.suffix == ".parquet":
        rows = read_parquet(path).to_pylist()
    elif path.suffix == ".jsonl":
        rows = [row for _, row in json_lines(path, remedy=REMEDY)]
    else:
        rows = read_csv(path, MODELS)

    def names(row: Any, columns: tuple[str, str]) -> tuple[str, str] | None:
        first, second = (row.get(name) if isinstance(row, dict) else None for name in columns)
        return (first, second) if isinstance(first, str) and isinstance(second, str) else None

    found = []
    for row in rows:
        models = names(row, MODELS)
        if models is None:
            raise InputError("its rows do not name two models, left and right", where=path, remedy=REMEDY)
        found.append(Asked(models, names(row, IMAGES)))
    return found
