"""Folders that commands write: which are ours, what in them is, and how an older result gives way to a new one.

A folder of ours holds `finepref.json` {kind, version, created, fingerprint, files, sha256}; what of it is ours is known
by that list of files, or by the names that its kind of folder has. Everything else in it is a person's, and stays.
`sha256`: of the files that others read numbers from (weights, configs, tokenizers), by which damage is found.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from finepref.core.errors import FineprefError, InputError
from finepref.core.files import finish, followed, matches, write_json
from finepref.core.locks import BUSY, HELD, LOCK, collect, locked, remove, temporary
from finepref.core.ownership import REMEDY, VERSION, Inputs, made, refuse_inputs, remove_empty, safely
from finepref.core.provenance import sha256_file
from finepref.core.seal import CHANGED

MARKER = "finepref.json"
BEFORE = ".finepref-before"  # where an older result stands while a new one is made
MOVING = ".finepref-moving"  # where its files are on their way; they belong in the folder


@dataclass(frozen=True, slots=True)
class FolderKind:
    """A kind of output folder.

    name: as in `finepref.json`. words: in sentences. own: patterns of the relative names of the files that we write.
    before: whether a folder without `finepref.json` is one that an older version wrote. held: what is said, and what is
    to be done, where another process writes.
    """

    name: str
    words: str
    own: tuple[str, ...] = ()
    before: Callable[[Path], bool] = lambda _: False
    held: tuple[str, str] = BUSY


def check_folder(out: str | Path, kind: FolderKind, *, inputs: Inputs = ()) -> Path:
    """Where a folder is written, which is new, empty, or holds an older result of this kind.

    Args:
        inputs: what is read; what lies in a folder of ours under a name of ours may be.

    Raises:
        InputError: anything else stands there; it is an input, holds one, or lies in a folder that is one.
    """
    out, place = Path(out), followed(out)
    refuse_inputs(out, place, inputs, folder=True)
    if not place.exists():
        return place
    if not place.is_dir():
        raise InputError("it is a file, not a folder", where=out, remedy=REMEDY)
    held = sorted(entry.name for entry in place.iterdir() if not HELD.fullmatch(entry.name))
    if not held:
        return place
    if MARKER in held:
        found = _marker(place).get("kind")
        if found == kind.name:
            return place
        what = f"by its {MARKER} it holds {found or 'something'!r}, not {kind.words}"
    elif safely(kind.before, place):
        return place
    else:
        shown = ", ".join(held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "")
        what = f"it holds {shown}, and is not {kind.words} of finepref's"
    raise InputError(what, where=out, remedy=f"nothing was changed; {REMEDY}, new or empty")


@contextmanager
def own_folder(
    out: str | Path, kind: FolderKind, *, inputs: Inputs = (), fingerprint: str = "", part: str = "", wait: bool = False
) -> Iterator[Path]:
    """Check a folder, mark it as ours, and hold it while it is written; leftovers of killed runs in it go.

    Where nothing else was written, the mark goes again at the end, and the folder where it is new.

    Args:
        part: of the work, where several processes share it; each part has one writer. wait: for another writer.

    Raises:
        InputError: see `check_folder`; another process writes there.
    """
    place = check_folder(out, kind, inputs=inputs)
    lock = place / (f"{LOCK}-{part}" if part else LOCK)
    with made(place), locked(lock, place=Path(out), wait=wait, said=kind.held):
        check_folder(out, kind)  # as it is now that it is held
        collect(place, deep=True)
        _settle(place)
        unmarked = not (place / MARKER).is_file()
        mark(place, kind)
        try:
            yield place
            mark(place, kind, fingerprint=fingerprint)
        finally:
            if unmarked and not any(e.name != MARKER and not HELD.fullmatch(e.name) for e in place.iterdir()):
                (place / MARKER).unlink(missing_ok=True)


@contextmanager
def whole_folder(
    out: str | Path,
    kind: FolderKind,
    *,
    inputs: Inputs = (),
    fingerprint: str = "",
    wait: bool = False,
    hashed: bool = True,
) -> Iterator[Path]:
    """Yield a temporary folder; on a clean exit its files become the result in `out`, and those of the older one go.

    The older result stands until then; what a person put beside it stays.

    hashed: whether the hashes of all files are noted; not where each carries its own.

    Raises:
        InputError: see `own_folder`; a file that is not ours stands where one would be written.
    """
    with own_folder(out, kind, inputs=inputs, wait=wait) as place:
        before = _listed(place) if "files" in _marker(place) else {*own_files(place, kind.own)}
        mark(place, kind, files=before)  # of a kill nothing is listed that was not written
        with temporary(place, folder=True) as made:
            yield made
            paths = [path for path in made.rglob("*") if path != made / MARKER and not path.is_dir()]
            files = sorted(path.relative_to(made).as_posix() for path in paths)
            for path in paths:
                finish(path)
            _refuse_others(Path(out), {*files} - before)
            mark(made, kind, fingerprint=fingerprint, files=files, hashed=files if hashed else ())
            os.replace(made, place / MOVING)
            _settle(place)


def settle(out: str | Path, kind: FolderKind) -> None:
    """Finish what a process that was killed was about to put in its place, so that a folder holds one result."""
    if (followed(out) / MOVING / MARKER).is_file():
        with own_folder(out, kind):
            pass


def _refuse_others(folder: Path, names: Iterable[str]) -> None:
    """Refuse to replace what stands at one of these names, none of which we wrote before."""
    for name in sorted(names):
        if os.path.lexists(folder / name):
            what = "finepref did not write it, and would replace it"
            raise InputError(what, where=folder / name, remedy="move it away, or name another folder")


def _settle(folder: Path) -> None:
    moving = folder / MOVING
    if (moving / MARKER).is_file():
        names = sorted(path.relative_to(moving).as_posix() for path in moving.rglob("*") if not path.is_dir())
        _refuse_others(folder, {*names} - {MARKER} - _listed(folder))
        remove_files(folder, _listed(folder) - _listed(moving))
        for name in sorted(names, key=MARKER.__eq__):  # the mark last
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(moving / name, folder / name)
        remove(moving)


def mark(
    folder: Path,
    kind: FolderKind,
    *,
    fingerprint: str = "",
    files: Collection[str] | None = None,
    hashed: Collection[str] | None = None,
) -> None:
    """Write `finepref.json`; what is known already of the folder and not given now stays.

    hashed: names of files whose SHA-256 is to stand in it.
    """
    held = _marker(folder) if (folder / MARKER).is_file() else {}
    known = held.get("fingerprint", "")
    created = held["created"] if "created" in held and fingerprint in ("", known) else _now()
    listed = held.get("files") if files is None else sorted({*files})
    wanted = {"kind": kind.name, "version": VERSION, "created": created, "fingerprint": fingerprint or known}
    wanted |= {} if listed is None else {"files": listed}
    hashes = _hashes(held) if hashed is None else {name: sha256_file(folder / name) for name in sorted({*hashed})}
    wanted |= {"sha256": hashes} if hashes else {}
    if held != wanted:
        write_json(folder / MARKER, wanted)


def made_as(folder: Path) -> str:
    """The fingerprint of what a folder of ours was made from; "" where it has none."""
    return str(_marker(folder).get("fingerprint", ""))


def is_made_as(folder: Path, fingerprint: str) -> bool:
    """Whether a folder of ours was made from this, and every file that was written at once is still there."""
    return made_as(folder) == fingerprint and all((folder / name).is_file() for name in _listed(folder))


def refuse_changed(path: Path, *, remedy: str, whole: bool = False) -> int:
    """Refuse a folder or a file of ours in which something is not as it was written; returns how many were compared.

    That is known by the hashes in the `finepref.json` of the folder, and of every folder that it lies in.

    whole: a file that is missing is refused too; else whoever reads it says so.

    Raises:
        InputError: names the file.
    """
    place, compared = Path(os.path.realpath(path)), 0
    for owner in (place, *place.parents):
        for name, known in _hashes(_marker(owner)).items():
            held = owner / name
            if not held.is_relative_to(place) or not (whole or held.is_file()):
                continue
            compared += 1
            if sha256_file(held) != known:
                folder = "the folder" if owner == place else str(owner)
                mine = f"{remedy}, or remove {MARKER} from {folder} if you changed it yourself"
                raise InputError(CHANGED, where=path / held.relative_to(place), remedy=mine)
    return compared


def own_files(folder: Path, patterns: Sequence[str]) -> list[str]:
    """Relative names of the files in a folder that have one of these forms."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(name for name in names if not name.startswith(".finepref-") and matches(name, patterns))


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files of ours below a folder, and the folders that are empty then."""
    for path in [folder / name for name in names]:
        path.unlink(missing_ok=True)
        for above in path.parents:
            if above == folder or not remove_empty(above):
                break


def remove_marked(folder: Path) -> None:
    """Remove a folder of ours that holds nothing but its mark and what killed processes left."""
    collect(folder, deep=True)
    if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {MARKER}:
        (folder / MARKER).unlink(missing_ok=True)
        remove_empty(folder)


@contextmanager
def replacing(
    folder: Path, kind: FolderKind, *, again: bool, begun: Callable[[Path], bool], whole: Callable[[Path], bool]
) -> Iterator[None]:
    """Keep the older result of a folder that is held until the new one is whole, where the work starts again.

    It is set aside meanwhile. It comes back where the new one is refused or fails a check, or ends before there is
    anything to go on from, be it that the process was killed.

    Args:
        again: start again. begun: whether the folder holds something to go on from. whole: whether the result is whole.
    """
    aside = folder / BEFORE
    if again and aside.is_dir():
        remove_files(folder, own_files(folder, kind.own))
    elif again and own_files(folder, kind.own):
        _move(folder, folder / MOVING, kind)
        os.replace(folder / MOVING, aside)
    try:
        yield
    except BaseException as error:
        if aside.is_dir() and (isinstance(error, FineprefError) or not begun(folder)):
            _put_back(folder, kind)
        raise
    if whole(folder):
        remove(aside)


def recover(folder: Path, kind: FolderKind, *, begun: Callable[[Path], bool]) -> None:
    """Put the older result back that `replacing` set aside in a process that was killed, if nothing goes on from it."""
    moving, aside = (folder / MOVING).is_dir(), (folder / BEFORE).is_dir()
    if moving or (aside and not begun(folder)):
        with own_folder(folder, kind):
            if moving:
                _move(folder / MOVING, folder, kind)
                remove(folder / MOVING)
            else:
                _put_back(folder, kind)


def _put_back(folder: Path, kind: FolderKind) -> None:
    remove_files(folder, own_files(folder, kind.own))
    os.replace(folder / BEFORE, folder / MOVING)
    _move(folder / MOVING, folder, kind)
    remove(folder / MOVING)


def _move(source: Path, target: Path, kind: FolderKind) -> None:
    """Move the files of this kind; a kill leaves some of them in `MOVING`, from where `recover` takes them back."""
    target.mkdir(exist_ok=True)
    names = own_files(source, kind.own)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source / name, target / name)
    remove_files(source, names)


def _marker(folder: Path) -> dict[str, Any]:
    try:
        held = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _hashes(marker: Mapping[str, Any]) -> dict[str, str]:
    held = marker.get("sha256")
    return {str(name): str(known) for name, known in held.items()} if isinstance(held, dict) else {}


def _listed(folder: Path) -> set[str]:
    """The files that `finepref.json` says we wrote; names that would lead out of the folder are left out."""
    names = _marker(folder).get("files")
    paths = [PurePosixPath(str(name)) for name in names] if isinstance(names, list) else []
    return {path.as_posix() for path in paths if not path.is_absolute() and ".." not in path.parts}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
