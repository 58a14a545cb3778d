"""Parquet files at an address: s3://, gs://, hf://datasets/..., whatever pyarrow or fsspec reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs

from finepref.core.addresses import Address
from finepref.core.errors import FineprefError, InputError, first_line
from finepref.formats.tables import Parquet, Table, parquet_table, suffix_of

_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")


class StoredFile(NamedTuple):
    """A file at an address. folder: that was named, or that it lies in.

    identity: its size, and what its store says by which its content is told from another.
    """

    path: Address
    folder: Address
    key: str
    filesystem: pafs.FileSystem
    identity: str

    def table(self) -> Table:
        """Its table; paths of images in it lead nowhere.

        Raises:
            InputError: it is no parquet file, or cannot be read.
        """
        if suffix_of(self.path) != ".parquet":
            what = f"{self.path.suffix or 'a file without an ending'} is not read at an address, only .parquet is"
            raise InputError(what, where=self.path, remedy="copy it to a disk and name it there")
        file = Parquet(self.path, self.key, self.filesystem)
        with _reaching(str(self.path)):
            table = parquet_table(file, root=self.path, version=f"{self.path} {self.identity}")
        return replace(table, identify=lambda: self.identity)


def stored_files(address: str) -> tuple[list[StoredFile], list[str]]:
    """The file at an address; the parquet files in a folder and below, or that a pattern (*) in the last name means.

    Returns:
        the files in order of their names, and the names of files that are not parquet.

    Raises:
        InputError: nothing is there, its store cannot be reached, or a password stands in it.
    """
    if _PASSWORD.search(address):
        what = "a password stands in the address, and results say what they were made from"
        raise InputError(what, where="data", remedy="give it by the environment or a profile of your store")
    shown = address.partition("?")[0].rstrip("/")
    with _reaching(shown):
        filesystem, key = _store(address)
        at, _, name = key.rstrip("/").rpartition("/")
        if "*" in name:
            shown, key = shown.rpartition("/")[0], at
            found = [
                info for info in filesystem.get_file_info(pafs.FileSelector(at)) if fnmatchcase(info.base_name, name)
            ]
        elif (info := filesystem.get_file_info(key)).type == pafs.FileType.File:
            return [StoredFile(Address(shown), Address(shown).parent, key, filesystem, _identity(filesystem, info))], []
        else:
            found = filesystem.get_file_info(pafs.FileSelector(key, recursive=True, allow_not_found=True))
        below = {_below(info.path, key): info for info in found if info.type == pafs.FileType.File}
        files = {name: info for name, info in sorted(below.items()) if not re.search(r"(^|/)\.", name)}
        parquet = [name for name in files if name.lower().endswith(".parquet")]
        if not parquet:
            raise InputError(
                "no parquet file is there", where=address, remedy="check the address and your access to it"
            )
        folder = Address(shown)
        stored = [
            StoredFile(folder / name, folder, files[name].path, filesystem, _identity(filesystem, files[name]))
            for name in parquet
        ]
        return stored, sorted({*files} - {*parquet})


def _store(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an address, and the place in it: pyarrow's own, or one that fsspec knows."""
    try:
        filesystem, key = pafs.FileSystem.from_uri(address)
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise
        import fsspec

        store, key = fsspec.core.url_to_fs(address)
        filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(store))
    return filesystem, key


def _below(path: str, folder: str) -> str:
    """The name of a file below a folder, of which one may have a slash before it."""
    return path.strip("/").removeprefix(folder.strip("/")).strip("/")


def _identity(filesystem: pafs.FileSystem, info: pafs.FileInfo) -> str:
    said = [f"{info.size} bytes"]
    if info.mtime is not None:
        said.append(f"changed {info.mtime.isoformat()}")
    store: Any = getattr(getattr(filesystem, "handler", None), "fs", None)
    if store is not None:  # what fsspec takes for the state of a file: of most stores its etag or hash is part of it
        said.append(f"key {store.ukey(info.path)[:32]}")
    return ", ".join(said)


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Whatever a library says of a store becomes one sentence."""
    try:
        yield
    except FineprefError:
        raise
    except ImportError as error:
        raise InputError(f"it is not read here ({first_line(error)})", where=address, remedy="pip install it") from None
    except Exception as error:
        remedy = "check the address, your access and the network"
        raise InputError(
            f"its store does not hand it out ({first_line(error)})", where=address, remedy=remedy
        ) from None
