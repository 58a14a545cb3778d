"""Preferences from files of any known format, streamed, with the pair ids that tie every sidecar to its data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from finepref.core.errors import InputError, nearest
from finepref.core.provenance import sha256_bytes
from finepref.data.formats import BY_NAME, FORMATS, Columns, Draft, Format
from finepref.data.rows import Table, tables
from finepref.data.schema import ImageRef, Preference, Quarantined

Paths = str | Path | Sequence[str | Path]


def detect_format(path: Paths) -> str:
    """The format of the first table behind `path`, by its columns.

    Raises:
        InputError: no known format has these columns.
    """
    return _format(tables(path)[0], "auto", {}).name


def read_preferences(
    paths: Paths,
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    images: bool = True,
    quarantine: list[Quarantined] | None = None,
) -> Iterator[Preference]:
    """Every usable preference, in file order, images not decoded.

    Args:
        format: a name of `formats.FORMATS`, or auto.
        columns: the format's column name -> the table's, where they differ.
        root: where relative image paths start; None for the table's folder.
        images: whether the image columns must be there.
        quarantine: gets the rows that cannot be used; None makes the first such row an error.

    Raises:
        InputError: a missing column, an unknown label value, an unusable row without `quarantine`, an empty data set.
    """
    count = 0
    for row, pair_id, draft in _identified(paths, format=format, columns=columns, root=root, images=images):
        if draft.problem:
            if quarantine is None:
                raise InputError(draft.problem, where=f"row {row} (pair {pair_id})", remedy="repair or drop the row")
            quarantine.append(Quarantined(row=row, pair_id=pair_id, reason=draft.problem))
            continue
        count += 1
        yield Preference(
            pair_id=pair_id,
            prompt=draft.prompt,
            image_0=draft.image_0,
            image_1=draft.image_1,
            label=draft.label,
            model_0=draft.model_0,
            model_1=draft.model_1,
            voter=draft.voter,
        )
    if count == 0:
        raise InputError("the data set has no usable preference", where=_name(paths), remedy="give at least one row")


def read_pair_ids(
    *paths: str | Path,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
) -> tuple[list[str], np.ndarray]:
    """(pair ids, labels) of every row in file order, unusable rows included.

    pair_id is the data set's own id (ranking_id, pair_id) where every row has one and all differ, else a hash of
    (prompt, both image hashes, voter, occurrence number); only the second reads image bytes, and none is decoded.

    Returns:
        ids, and float64 labels: P(image_0 preferred) in {1, 0.5, 0}, nan where nobody voted.
    """
    ids: list[str] = []
    labels: list[float] = []
    for _, pair_id, draft in _identified(list(paths), format=format, columns=columns, root=root, images=False):
        ids.append(pair_id)
        labels.append(draft.label)
    if not ids:
        raise InputError("the data set is empty", where=_name(list(paths)), remedy="give at least one row")
    return ids, np.asarray(labels, dtype=np.float64)


def _identified(
    paths: Paths,
    *,
    format: str,
    columns: Mapping[str, str] | None,
    root: str | Path | None,
    images: bool,
) -> Iterator[tuple[int, str, Draft]]:
    """(row number over all tables, pair id, draft)."""
    given = dict(columns or {})
    opened = [(table, _format(table, format, given)) for table in tables(paths)]
    for table, kind in opened:
        _check_columns(table, kind, given, images=images)
    own = _own_ids_unique(opened, given)
    seen: dict[tuple[str, ...], int] = {}
    hashes: dict[Path, str] = {}
    row = 0
    for table, kind in opened:
        wanted = [name for name in (given.get(f, f) for f in kind.fields()) if name in table.columns]
        if own and not images:
            held = {given.get(name, name) for group in kind.images for name in group}
            wanted = [name for name in wanted if name not in held]
        place = Columns(names=given, root=table.root if root is None else Path(root), where=table.path)
        for draft in kind.convert(table.rows(wanted), place):
            if own:
                assert draft.own_id is not None
                pair_id = draft.own_id
            else:
                images_key = (_image_key(draft.image_0, hashes), _image_key(draft.image_1, hashes))
                identity = (draft.prompt, *images_key, draft.voter or "")
                seen[identity] = seen.get(identity, 0) + 1
                pair_id = sha256_bytes("\x1f".join([*identity, str(seen[identity])]).encode())[:32]
            yield row, pair_id, draft
            row += 1


def _image_key(image: ImageRef, hashes: dict[Path, str]) -> str:
    """Hash of the encoded bytes; of a missing image, its name."""
    if image.data is not None:
        return sha256_bytes(image.data)
    if image.path is None:
        return f"uid:{image.uid}"
    if image.path not in hashes:
        try:
            hashes[image.path] = sha256_bytes(image.read())
        except InputError:
            hashes[image.path] = f"missing:{image.path.name}"
    return hashes[image.path]


def _own_ids_unique(opened: list[tuple[Table, Format]], names: Mapping[str, str]) -> bool:
    """Whether every table has its format's own id column, without gaps and without repetition in the whole data set."""
    seen: set[str] = set()
    for table, kind in opened:
        column = next((names.get(f, f) for f in kind.own_id if names.get(f, f) in table.columns), None)
        if column is None:
            return False
        for row in table.rows([column]):
            value = row.get(column)
            if value is None or value == "" or str(value) in seen:
                return False
            seen.add(str(value))
    return True


def _format(table: Table, name: str, columns: Mapping[str, str]) -> Format:
    if name != "auto":
        if name not in BY_NAME:
            raise InputError(f"unknown format {name!r}", where="data.format", remedy=nearest(name, ("auto", *BY_NAME)))
        return BY_NAME[name]
    has = set(table.columns)
    for kind in FORMATS:
        if all(any(columns.get(f, f) in has for f in group) for group in kind.signature):
            return kind
    raise InputError(
        "no known preference format has these columns",
        where=table.path,
        remedy=f"name the format and its columns; the table has {', '.join(sorted(has))}",
    )


def _check_columns(table: Table, kind: Format, names: Mapping[str, str], *, images: bool) -> None:
    known = kind.fields()
    for field, column in names.items():
        if field not in known:
            raise InputError(
                f"format {kind.name} has no field {field!r}", where="columns", remedy=nearest(field, known)
            )
        if column not in table.columns:
            raise _missing(column, table)
    for group in (*kind.needs, *(kind.images if images else ())):
        if not any(names.get(f, f) in table.columns for f in group):
            raise _missing(names.get(group[0], group[0]), table)


def _missing(column: str, table: Table) -> InputError:
    return InputError(
        f"column {column!r} is missing", where=table.path, remedy=f"it has {', '.join(sorted(table.columns))}"
    )


def _name(paths: Paths) -> str:
    return str(paths) if isinstance(paths, str | Path) else ", ".join(str(p) for p in paths)


def winner_of(label: float) -> int | None:
    """Index of the preferred image (label 1 -> 0, label 0 -> 1); None for a tie or no vote."""
    return None if math.isnan(label) or label == 0.5 else int(label == 0.0)
