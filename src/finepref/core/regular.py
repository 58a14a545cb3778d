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


def read_regular(path: Path, *, root: Path | None) -> bytes:
    """The bytes of a regular file of at most 2^28 bytes.

    Args:
        path: the file. Symbolic links are followed, and may lead nowhere but below `root`.
        root: the folder that it must lie in, whatever its name says; None where the person's own program names it.

    Raises:
        InputError: it is elsewhere, missing, too large, or no regular file: pipes, devices and folders are not opened.
    """
    try:
        real = path.resolve()
        if root is not None and not _holds(root.resolve(), real):
            remedy = "put it there, or name the folder of all images with --images (data.images of a config)"
            raise InputError(f"the image lies outside {root}", where=path, remedy=remedy)
        _check(os.lstat(real), path)
        with open(os.open(real, _FLAGS), "rb") as file:
            state = os.fstat(file.fileno())
            _check(state, path)
            return file.read(state.st_size)
    except (OSError, ValueError, RuntimeError) as error:  # also a zero byte in a name, a circle of links
        if isinstance(error, InputError):
            raise
        said = getattr(error, "strerror", None) or str(error)
        if re.match(
            r"https?:/", str(path if root is None or not path.is_relative_to(root) else path.relative_to(root))
        ):
            said = "an address on the net, which is never fetched"
        raise InputError(f"image cannot be read ({said})", where=path) from None


def _check(state: os.stat_result, path: Path) -> None:
    """Refuse what is not a regular file of a size that a picture has."""
    kind = next((name for is_kind, name in KINDS if is_kind(state.st_mode)), "")
    if kind or not stat.S_ISREG(state.st_mode):
        raise InputError(f"{kind or 'a special file'}, not an image file", where=path)
    if state.st_size > MAX_BYTES:
        raise InputError(f"{state.st_size} bytes are too many for an image ({MAX_BYTES} at most)", where=path)


def _holds(root: Path, file: Path) -> bool:
    """Whether a folder holds a file; a snapshot of a hub data set also holds the blobs that its links name."""
    if file.is_relative_to(root):
        return True
    shot = next((at for at in (root, *root.parents) if at.parent.name == "snapshots"), None)
    return shot is not None and file.is_relative_to(shot.parent.parent / "blobs")
