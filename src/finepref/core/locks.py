"""Names that a living process holds: temporary files and folders, and locks. One that nobody holds is a leftover.

Every such name begins with `.finepref-`. Its process holds an flock on it, which ends when the process does, however
that ends; so a leftover is told from the work of a process that lives. Where a file system knows no locks, nothing is
taken for a leftover.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finepref.core.errors import InputError

LOCK = ".finepref-lock"
BUSY = ("another finepref is writing here", "wait until it is done, or name another file or folder")
"""What is said where another process holds a name, and what is to be done."""
HELD = re.compile(r"\.finepref-(?:[0-9a-f]{12}\.tmp|lock(?:-[0-9a-z]+)?)")


@contextmanager
def temporary(parent: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a new file or folder in `parent`, which is made where it is missing; what still has the name then goes."""
    parent.mkdir(parents=True, exist_ok=True)
    path = parent / f".finepref-{uuid.uuid4().hex[:12]}.tmp"  # torch.save wants a dot within
    handle = _held(path, folder=folder, wait=True)
    try:
        yield path
    finally:
        remove(path)
        os.close(handle)


@contextmanager
def locked(path: Path, *, place: Path, wait: bool = False, said: tuple[str, str] = BUSY) -> Iterator[None]:
    """Hold a lock file, which is removed at the end.

    Args:
        place: what it stands for, in the error. wait: until the other is done, instead of refusing. said: the error and
            its remedy.

    Raises:
        InputError: another process holds it.
    """
    try:
        handle = _held(path, wait=wait)
    except BlockingIOError:
        raise InputError(said[0], where=place, remedy=said[1]) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether another process, or another holder in this one, has this lock now."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        return _lock(handle, wait=False) is False
    finally:
        os.close(handle)


def collect(folder: Path, *, deep: bool = False) -> None:
    """Remove what killed processes left in a folder (deep: and below it); what a process holds stays."""
    for place, names, files in os.walk(folder):
        for name in filter(HELD.fullmatch, [*names, *files]):
            path = Path(place, name)
            with suppress(OSError):
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if _lock(handle, wait=False):
                        remove(path)
                finally:
                    os.close(handle)
        names[:] = [name for name in names if deep and not HELD.fullmatch(name)]


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder of our own making, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _held(path: Path, *, folder: bool = False, wait: bool) -> int:
    """A descriptor of the path, made where it is missing, with the lock; the path still names it then.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    while True:
        if folder:
            path.mkdir(exist_ok=True)
        try:
            handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            if path.parent.is_dir():
                continue  # taken for a leftover before it was held
            raise
        try:
            if _lock(handle, wait=wait) is False:
                raise BlockingIOError
            if _names(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, *, wait: bool) -> bool | None:
    """Whether the lock is held now; None where the file system has none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _names(path: Path, handle: int) -> bool:
    """Whether the path still leads to what was opened."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
