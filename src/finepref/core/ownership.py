"""What a command may write: what is new, empty, or its own older result. Everything else at the place is refused.

A folder of ours holds `finepref.json` {kind, version, created, fingerprint, files, sha256}; what of it is ours is
known by that list of files, or by the names that its kind of folder has. A file of ours is known by what only we write
in it, or by a `NAME.json` beside it with its hash, so that one which a person has changed is his.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import FOOTER, expected_empty, followed, write_json, write_text
from finepref.core.locks import LOCK, collect, locked
from finepref.core.provenance import sha256_bytes, sha256_file

VERSION = 1
REMEDY = "name another file or folder"
Inputs = Iterable[str | Path]


def refuse_folder(out: Path, remedy: str = REMEDY) -> None:
    """Refuse a folder where a file is to stand; who makes names of the file's asks it first, since `.` has none."""
    if out.is_dir():
        raise InputError("it is a folder, not a file", where=out, remedy=remedy)


def check_file(
    out: str | Path, ours: Callable[[Path], bool], *, inputs: Inputs = (), what: str = "a file of this kind"
) -> Path:
    """Where a file is written: a new name, or an older result.

    Args:
        ours: whether the file that stands there is an older result. inputs: what is read.

    Raises:
        InputError: anything else stands there, or it is one of the inputs.
    """
    out, place = Path(out), followed(out)
    refuse_inputs(out, place, inputs, folder=False)
    refuse_folder(out)
    if os.path.lexists(place) and not (place.is_file() and safely(ours, place)):
        raise InputError(f"it is not {what} of finepref's as it was written", where=out, remedy=f"{REMEDY}")
    return place


@contextmanager
def own_file(
    out: str | Path, ours: Callable[[Path], bool], *, inputs: Inputs = (), what: str = "a file of this kind"
) -> Iterator[Path]:
    """Check a file's place and hold it while it is made; leftovers of killed runs beside it go.

    Where nothing stands there, what another puts there meanwhile is not replaced: writing it is refused then.

    Raises:
        InputError: see `check_file`; another process writes there.
    """
    place = check_file(out, ours, inputs=inputs, what=what)
    lock = place.with_name(f"{LOCK}-{sha256_bytes(place.name.encode(errors='surrogateescape'))[:12]}")
    with made(place.parent), locked(lock, place=Path(out)):
        check_file(out, ours, inputs=inputs, what=what)
        collect(place.parent)
        with expected_empty(place):
            yield place


def has_footer(*columns: str, more: Iterable[str] = ()) -> Callable[[Path], bool]:
    """Whether a parquet file has our footer, these columns, and no others: one that a person added makes it theirs.

    more: columns that it may have beside them, those of newer or older versions.
    """

    def ours(path: Path) -> bool:
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)
        whole = len({*schema.names}) == len(schema.names)
        return whole and FOOTER in (schema.metadata or {}) and {*columns} <= {*schema.names} <= {*columns, *more}

    return ours


def sidecar(path: Path) -> Path:
    """`ask.csv` -> `ask.csv.json`."""
    return path.with_name(f"{path.name}.json")


@contextmanager
def own_beside(out: str | Path, *, kind: str, inputs: Inputs = ()) -> Iterator[Path]:
    """Hold the place of a text that `write_beside` writes; one that was changed since is a person's.

    Raises:
        InputError: see `own_file`, of the text and of the file beside it.
    """

    def is_sidecar(path: Path) -> bool:
        held = json.loads(path.read_text(encoding="utf-8"))
        return bool(held["kind"] == kind and held["sha256"])

    def ours(path: Path) -> bool:
        return is_sidecar(sidecar(path)) and sha256_file(path) in json.loads(sidecar(path).read_bytes())["sha256"]

    what = f"a file of {kind}"
    check_file(sidecar(followed(out)), is_sidecar, inputs=inputs, what=f"the record of {what}")
    with own_file(out, ours, inputs=inputs, what=what) as place:
        yield place


def write_beside(path: str | Path, text: str, *, kind: str, provenance: Mapping[str, Any]) -> None:
    """Write a text that cannot carry its provenance, and the file beside it that does; a kill leaves it ours."""
    place = followed(path)
    hashes = [sha256_bytes(text.encode()), *([sha256_file(place)] if place.is_file() else [])]
    record = {"kind": kind, "version": VERSION, **provenance, "sha256": hashes}
    write_json(sidecar(place), record)
    write_text(place, text)
    write_json(sidecar(place), {**record, "sha256": hashes[:1]})


def safely(ours: Callable[[Path], bool], path: Path) -> bool:
    """What cannot be read as ours, for whatever reason, is not ours."""
    try:
        return ours(path)
    except Exception:
        return False


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; what is empty at the end goes again."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for place in missing:
            remove_empty(place)


def remove_empty(folder: Path) -> bool:
    """Remove a folder that is empty; whether it was."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def refuse_inputs(out: Path, place: Path, inputs: Inputs, *, folder: bool) -> None:
    """Refuse an output that is an input, or lies in a folder that is one, or a folder that holds one."""
    for given in inputs:
        if not os.path.exists(read := Path(os.path.expanduser(given))):  # as of what no file can be called
            continue
        read = Path(os.path.realpath(read))
        if place == read or (place.exists() and os.path.samefile(place, read)):
            raise InputError("it is one of the inputs", where=out, remedy=REMEDY)
        if folder and read in place.parents and read.is_dir():
            raise InputError(f"it lies in {given}, which is read", where=out, remedy=REMEDY)
        if folder and place in read.parents:
            raise InputError(f"it holds {given}, which is read", where=out, remedy=REMEDY)
