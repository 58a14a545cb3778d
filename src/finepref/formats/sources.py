"""The tables behind files, folders, patterns and names of data sets on the hub."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

from finepref.core.errors import InputError
from finepref.core.progress import say
from finepref.formats.tables import SUFFIXES, Row, Table, file_table, suffix_of, version_of

Paths = str | Path | Sequence[str | Path]
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_CAPTIONS = (".txt", ".caption")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w\[\]%:+-]+)?")


def tables(paths: Paths | Table) -> list[Table]:
    """Every table behind the given files, folders, patterns and hub names, in order, sorted inside a folder.

    A table as it is.

    Raises:
        InputError: nothing there, an unknown kind of file, or a broken one.
    """
    if isinstance(paths, Table):
        return [paths]
    found: list[Table] = []
    for name in _listed(paths):
        path = Path(name).expanduser()
        if _on_hub(name):
            found.append(_hub_table(str(name)))
        elif path.is_dir() and (path / "w").is_dir() and (path / "l").is_dir():
            found.append(_twin_folders(path))
        else:
            found += [file_table(file) for file in _files(path)]
    return found


def find_files(paths: Paths) -> list[Path]:
    """The files of all tables behind the given files, folders and patterns."""
    return [file for name in _listed(paths) for file in _files(Path(name).expanduser())]


def named_inputs(paths: Paths) -> list[Path]:
    """What is named, and the files behind it, as far as there are some on this disk: no output may be one of them."""
    named = [Path(name).expanduser() for name in (_listed(paths) if paths else ())]
    found = list(named)
    for path in named:
        with suppress(InputError):  # said by who reads it; a folder of images has no table
            found += _files(path)
    return found


def versions(paths: Paths) -> list[str]:
    """The version of every table behind the given names, in order: equal while the tables stay as they are."""
    return [table.version for table in tables(paths)]


def count_rows(paths: Paths) -> int | None:
    """Rows of all tables behind the given names, without reading images; None where a hub data set is among them."""
    if any(_on_hub(name) for name in _listed(paths)):
        return None
    found = ((table, suffix_of(table.path) == ".parquet") for table in tables(paths))
    return sum(
        pq.read_metadata(t.path).num_rows if whole else sum(1 for _ in t.rows(t.columns[:1])) for t, whole in found
    )


def _listed(paths: Paths) -> list[str | Path]:
    names = [paths] if isinstance(paths, str | Path) else list(paths)
    if not names:
        raise InputError("no data was named", remedy="give files or folders of preferences")
    return names


def _on_hub(name: str | Path) -> bool:
    """Whether a name is a data set on the hub: `owner/name` or `owner/name:split`, and nothing here."""
    return _HUB_NAME.fullmatch(str(name)) is not None and not Path(name).expanduser().exists()


def _hub_table(name: str) -> Table:
    """A data set on the hub, streamed by the `datasets` library; images stay encoded."""
    if importlib.util.find_spec("datasets") is None:
        remedy = "check the path; to read it from the hub, install finepref[datasets]"
        raise InputError("no such file or folder", where=name, remedy=remedy)
    import datasets
    from huggingface_hub import HfApi

    repository, _, split = name.partition(":")
    try:
        version = str(HfApi().dataset_info(repository).sha)
        rows = datasets.load_dataset(repository, split=split or "train", revision=version, streaming=True).decode(False)
        columns = tuple(rows.features or next(iter(rows)))
    except Exception as error:  # both libraries and the http client under them raise many kinds
        what = f"the hub does not hand it out ({' '.join(str(error).split()) or type(error).__name__})"
        raise InputError(what, where=name, remedy="check name, split and network") from None
    read = lambda wanted: iter(rows if wanted is None else rows.select_columns(list(wanted)))  # noqa: E731
    return Table(Path(name), columns, Path(), version, read)


def _twin_folders(path: Path) -> Table:
    """Folders `w` and `l` with images of equal names; the caption is the text file beside the winner."""
    winners, losers = _images(path / "w"), _images(path / "l")
    for name in sorted({*winners} ^ {*losers}):
        where, other = (winners[name], "l/") if name in winners else (losers[name], "w/")
        raise InputError(f"no image of this name in {other}", where=where, remedy="give both folders equal names")

    def read(columns: Sequence[str] | None) -> Iterator[Row]:
        for name, image in winners.items():
            notes = [image.with_suffix(suffix) for suffix in _CAPTIONS]
            text = next((note.read_text(encoding="utf-8").strip() for note in notes if note.is_file()), "")
            names = {"chosen_file_name": f"w/{image.name}", "rejected_file_name": f"l/{losers[name].name}"}
            yield names | {"prompt": text}

    columns = ("chosen_file_name", "rejected_file_name", "prompt")
    version = "\n".join(version_of(file) for side in ("w", "l") for file in sorted((path / side).iterdir()))
    return Table(path, columns, path, version, read)


def _images(folder: Path) -> dict[str, Path]:
    """Name without ending -> image of a twin folder, which holds nothing but images and captions.

    Raises:
        InputError: a file of another kind, or two images of one name.
    """
    found: dict[str, Path] = {}
    for file in sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".")):
        kind = suffix_of(file)
        if kind in _CAPTIONS:
            continue
        if kind not in _IMAGES:
            kinds = ", ".join((*_IMAGES, *_CAPTIONS))
            raise InputError("neither an image nor a caption", where=file, remedy=f"move it away; known are {kinds}")
        if file.stem in found:
            raise InputError(f"{found[file.stem].name} has the same name", where=file, remedy="keep one of the two")
        found[file.stem] = file
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if suffix_of(path) not in SUFFIXES:
            remedy = f"use one of {', '.join(SUFFIXES)}"
            raise InputError(f"unknown kind of file {path.suffix!r}", where=path, remedy=remedy)
        return [path]
    if path.is_dir():
        return _inside(path)
    found = sorted(path.parent.glob(path.name)) if any(c in path.name for c in "*?[") else []
    if not found:
        raise InputError("no such file or folder", where=path, remedy="check the path")
    return [file for match in found for file in _files(match)]


def _inside(folder: Path) -> list[Path]:
    """The tables of a folder: those called metadata, pairs or preferences, else all parquet files, else all in it.

    Only where a folder holds no table itself, those of the folders below are taken. The rest is named.
    """
    files = ((p, p.relative_to(folder)) for p in folder.rglob("*") if suffix_of(p) in SUFFIXES)
    below = sorted(p for p, name in files if not any(part.startswith(".") for part in name.parts))
    here = [p for p in below if p.parent == folder]
    here.sort(key=lambda p: SUFFIXES.index(suffix_of(p)))
    named = ([p for p in here if p.stem == stem] for stem in ("metadata", "pairs", "preferences"))
    found = next(filter(None, named), None) or [p for p in below if suffix_of(p) == ".parquet"] or sorted(here) or below
    if not found:
        raise InputError("the folder holds no table", where=folder, remedy=f"put a {', '.join(SUFFIXES)} file into it")
    unread = [str(p.relative_to(folder)) for p in below if p not in {*found}]
    if unread:
        _tell(f"{folder}: {', '.join(unread[:3])}{f' and {len(unread) - 3} more' * (len(unread) > 3)} not read")
    return found


@functools.cache
def _tell(message: str) -> None:
    """Say it once, however often the tables are looked for."""
    say(message)
