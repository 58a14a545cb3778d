"""Addresses, such as s3://bucket/votes.parquet: what does not lie on this disk, and is no path of it."""

from __future__ import annotations

import os
import re
from pathlib import Path, PosixPath

from finepref.core.errors import InputError

_FORM = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}([^/].*)", re.DOTALL)


class Address(PosixPath):
    """An address as the name of a file: in a path its two slashes would be one."""

    def __str__(self) -> str:
        return re.sub(":/+", ":///" if super().__str__().startswith("file:") else "://", super().__str__(), count=1)


def address_of(name: str | Path) -> str | None:
    """The address that a name is, also one that became a path; None of what is a name on this disk."""
    form = _FORM.fullmatch(str(name))
    if form is None or os.path.lexists(name):
        return None
    return f"{form[1]}:{'///' if form[1] == 'file' else '//'}{form[2]}"


def refuse_address(name: str | Path) -> None:
    """Refuse an address where only a disk will do.

    Raises:
        InputError: it is one.
    """
    if (address := address_of(name)) is not None:
        what = "it is an address, and only preference tables are read from one; nothing is written to one"
        raise InputError(what, where=address, remedy="name a file or folder on a disk, and copy from or to it")
