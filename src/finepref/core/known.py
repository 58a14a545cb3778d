"""What is known of large files that did not change: their SHA-256, and that they are as we wrote them.

Noted on this machine alone, below `cache_home()`, one small file a folder. A file is taken for unchanged while its
size, its times of change, its number on the disk and its first and last MiB are the same. What changes bytes in the
middle of a file and none of these (a failing disk, a program that writes to the device) is not seen then; `forget`,
which is `finepref train --verify`, has everything read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from finepref.core.device import cache_home
from finepref.core.errors import InputError
from finepref.core.locks import remove, temporary
from finepref.core.seal import CHANGED, is_intact, is_sealed, sealed_text, sha256_content

SMALL = 1 << 22  # bytes; up to here reading a file whole costs no more than knowing it
_END = 1 << 20
_SHA256, _WHOLE = "sha256", "whole"


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, from what is known where it did not change."""
    return _known(path, _SHA256, lambda: sha256_content(path))


def refuse_damaged(path: str | Path, *, remedy: str) -> None:
    """Refuse a file that carries a hash of another content. It is read for that once, until it changes.

    Raises:
        InputError: its content changed.
    """
    path = Path(path)
    if is_sealed(path) and _known(path, _WHOLE, lambda: "yes" if is_intact(path) else "") != "yes":
        raise InputError(CHANGED, where=path, remedy=remedy)


def forget() -> None:
    """Have every file read again when it is next asked for."""
    remove(cache_home() / "known")


def _known(path: Path, what: str, make: Callable[[], str]) -> str:
    """What `make` says of a file, "" for nothing that may be noted; what was noted of it where it did not change."""
    if path.stat().st_size <= SMALL:
        return make()
    state, notes = _state(path), _notes(path.parent)
    held = _read(notes).get(path.name, {})
    if held.get("state") != state or held.get("ends") != ends_sha256(path):
        held = {"state": state}
    if what not in held:
        made = make()
        if not made or state != _state(path):
            return made
        held |= {what: made, "ends": ends_sha256(path)}
        _write(notes, path.parent, {**_read(notes), path.name: held})
    return str(held[what])


def _state(path: Path) -> str:
    """Size, times and number on the disk."""
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"


def ends_sha256(path: Path) -> str:
    """Hex SHA-256 of the first and the last MiB of a file (of a smaller one, of all of it)."""
    ends = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        ends.update(file.read(_END))
        file.seek(max(file.tell(), os.fstat(file.fileno()).st_size - _END))
        ends.update(file.read(_END))
    return ends.hexdigest()


def _notes(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return cache_home() / "known" / f"{name}.json"


def _read(notes: Path) -> dict[str, dict[str, str]]:
    """Name of a file -> what is noted of it; notes that were damaged say nothing."""
    try:
        return dict(json.loads(notes.read_bytes())["files"]) if is_intact(notes) else {}
    except (OSError, ValueError):
        return {}


def _write(notes: Path, folder: Path, known: dict[str, dict[str, str]]) -> None:
    # where a home cannot be written, or a name is no text, nothing is noted
    with suppress(OSError, UnicodeError), temporary(notes.parent) as made:
        made.write_text(sealed_text({"folder": str(folder.resolve()), "files": known}), encoding="utf-8")
        os.replace(made, notes)
