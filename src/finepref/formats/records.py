"""Files of records: a frozen dataclass is what a JSON file holds, checked field by field when it is read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from finepref.core.errors import InputError
from finepref.core.files import read_json

Record = TypeVar("Record")


def as_record(kind: type[Record], value: object, *, where: object, remedy: str) -> Record:
    """A value read from JSON as a dataclass of `kind`, its fields checked against their annotations.

    Raises:
        InputError: a field is missing or of another type; names the first one.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{place}: {first['msg'].lower()}", where=where, remedy=remedy) from None


def read_record(path: str | Path, kind: type[Record], *, version: int, remedy: str, flat: Sequence[str] = ()) -> Record:
    """Read a JSON file of one record; a file without a `version` is read as it is.

    Args:
        version: the newest that is known. flat: fields that are records whose entries the file holds beside the others.

    Raises:
        InputError: no such file, not JSON, not such a record, or of a newer version.
    """
    held = read_json(path)
    found = held.get("version", version) if isinstance(held, dict) else version
    if found != version:
        raise InputError(f"version {found} is not known here", where=path, remedy="use the finepref that wrote it")
    if isinstance(held, dict):
        held = {**held, **dict.fromkeys(flat, held)}
    return as_record(kind, held, where=path, remedy=remedy)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """At least one row as csv, with the names of the first as header."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
