"""Reading files that a table or a manifest names: regular files below one folder, of a bounded size, and no others."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from finepref.core.errors import InputError

MAX_BYTES = 1 << 28
KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def read_regular(path: Path, *, root: Path | None, what: str = "image") -> bytes:
    """The bytes of a regular file of at most 2^28 bytes.

    Args:
        path: the file. Symbolic links are followed, and may lead nowhere but below `root`.
        root: the folder that it must lie in, whatever its name says; None where the person's own program names it.
        what: it is, in the error.

    Raises:
        InputError: it is elsewhere, missing, too large, or no regular file: pipes, devices and folders are not opened.
    """
    try:
        real = path.resolve()
        if root is not None and not _holds(root.resolve(), path, real):
            remedy = "put it there"
            if what == "image":
                remedy += ", or name the folder of all images with --images (data.images of a config)"
            raise InputError(f"the {what} lies outside {root}", where=path, remedy=remedy)
        _check(os.lstat(real), path, what)
        with open(os.open(real, _FLAGS), "rb") as file:
            state = os.fstat(file.fileno())
            _check(state, path, what)
            return file.read(state.st_size)
    except (OSError, ValueError, RuntimeError) as error:  # also a zero byte in a name, a circle of links
        if isinstance(error, InputError):
            raise
        said = getattr(error, "strerror", None) or str(error)
        if re.match(
            r"https?:/", str(path if root is None or not path.is_relative_to(root) else path.relative_to(root))
        ):
            said = "an address on the net, which is never fetched"
        raise InputError(f"{what} cannot be read ({said})", where=path) from None


def _check(state: os.stat_result, path: Path, what: str) -> None:
    """Refuse what is not a regular file of a size that a picture has."""
    kind = next((name for is_kind, name in KINDS if is_kind(state.st_mode)), "")
    if kind or not stat.S_ISREG(state.st_mode):
        raise InputError(f"{kind or 'a special file'}, not {'an' if what == 'image' else 'a'} {what} file", where=path)
    if state.st_size > MAX_BYTES:
        raise InputError(
            f"{state.st_size} bytes are too many for {'an' if what == 'image' else 'a'} {what} ({MAX_BYTES} at most)",
            where=path,
        )


def _holds(root: Path, path: Path, real: Path) -> bool:
    """Whether a folder holds the file that a path leads to; a link in a snapshot of the hub's cache may name a blob."""
    if real.is_relative_to(root):
        return True
    shot = next((at for at in (root, *root.parents) if at.parent.name == "snapshots"), None)
    if shot is None or not shot.parent.parent.name.startswith("datasets--"):
        return False
    linked = path.is_symlink() and path.parent.resolve().is_relative_to(root)
    return linked and real.parent == shot.parent.parent / "blobs"
