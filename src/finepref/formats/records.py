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


def read_yaml(path: Path, *, remedy: str) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        InputError: it cannot be read, is not YAML, or holds no mapping.
    """
    import yaml

    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = f"not a readable YAML file ({' '.join(str(error).split())})"
        raise InputError(what, where=path, remedy=remedy) from None
    if not isinstance(held, dict):
        raise InputError("the file must be a mapping of settings", where=path, remedy="write `key: value` lines")
    return held


def read_csv(path: str | Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a csv file.

    Raises:
        InputError: it cannot be read, lacks a needed column, or has no row.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            rows, names = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a readable csv file ({error})", where=path, remedy="check the path") from None
    for name in needed:
        if name not in names:
            raise InputError(f"column '{name}' is missing", where=path, remedy="it needs " + ", ".join(needed))
    if not rows:
        raise InputError("no row in it", where=path, remedy="write at least one row")
    return rows


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """At least one row as csv, with the names of the first as header."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
