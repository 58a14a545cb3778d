"""The tables behind files, folders, patterns, addresses, queries and names of data sets on the hub."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from finepref.core.addresses import address_of
from finepref.core.errors import InputError, check_word
from finepref.core.files import reading as reading_file
from finepref.core.known import ends_sha256
from finepref.core.progress import say
from finepref.core.provenance import hash_config, sha256_file
from finepref.core.regular import read_regular
from finepref.core.text import visible
from finepref.formats.answers import VOTES
from finepref.formats.collection import is_study
from finepref.formats.hubtable import hub_table, on_hub
from finepref.formats.queries import is_query, query_table
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.stored import stored_files
from finepref.formats.studyvotes import study_table
from finepref.formats.tables import SUFFIXES, Table, file_table, row_count, suffix_of, version_of
from finepref.formats.textfiles import Line

Found = TypeVar("Found", bound=Path)
Paths = str | Path | Sequence[str | Path]
NAMED = ("metadata", "pairs", "preferences")  # names of the tables of a folder of images
TEXT_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
_CAPTIONS = (".txt", ".caption")
_SPLIT = re.compile(r"(?:^|[/_.-])(train|test|validation|valid|val|dev|eval)(?=$|[/_.-])")


def tables(paths: Paths | Table, reading: Reading = AS_IT_IS) -> list[Table]:
    """Every table behind files, folders, patterns, addresses, queries and hub names, in order, sorted in a folder.

    A table as it is.

    Raises:
        InputError: nothing there, an unknown kind of file, a broken one, or one that is there twice.
    """
    if isinstance(paths, Table):
        return [paths]
    behind = _behind(paths, reading)
    found = [each if isinstance(each, Table) else file_table(each, reading.encoding) for each in behind]
    if reading.split is not None and not any(os.path.isdir(name) or _is_away(name) for name in _listed(paths)):
        raise InputError("it has no effect on files that are named", where="--split", remedy="leave it out")
    if reading.encoding is not None and not any(suffix_of(table.path) in SUFFIXES[1:] for table in found):
        raise InputError("it has no effect on parquet", where="--encoding", remedy="leave it out")
    _refuse_repeated([table.path for table in found if table.path.is_file()])
    away = [table.path for table in found if table.identify is not None]
    if twice := next((path for path in away if away.count(path) > 1), None):
        raise InputError(_TWICE.format("it is named twice"), where=twice, remedy="name it once")
    return found


_TWICE = "{}, so its rows would count twice"


def _behind(paths: Paths, reading: Reading) -> Iterator[Path | Table]:
    """What the names stand for, in order, no file read: each file, or the table that is not one file."""
    for name in _listed(paths):
        if not isinstance(name, str | Path):
            raise InputError(f"{name!r} is no name of a file or folder", where="data", remedy="give paths as text")
        path = Path(name).expanduser()
        if (address := address_of(name)) is not None:
            yield from _stored_tables(address, reading.split)
        elif on_hub(name):
            yield hub_table(str(name), reading.split)
        elif is_query(path):
            yield query_table(path)
        elif is_study(path):
            yield study_table(path)
        elif os.path.isdir(path / "w") and os.path.isdir(path / "l"):
            yield _twin_folders(path)
        else:
            yield from _files(path, reading.split)


def find_files(paths: Paths, reading: Reading = AS_IT_IS) -> list[Path]:
    """The files of all tables behind the given files, folders and patterns; the others are `identities`."""
    here = (Path(name).expanduser() for name in _listed(paths) if not _is_away(name))
    return [file for path in here if not is_query(path) for file in _files(path, reading.split)]


def identities(paths: Paths, reading: Reading = AS_IT_IS) -> dict[str, str]:
    """What tells apart the content of the tables that are no files of this disk: by address, hub name, or query."""
    named = [name for name in _listed(paths) if _is_away(name) or is_query(Path(name).expanduser())]
    found = _behind(named, reading) if named else ()
    return {str(each.path): each.identify() for each in found if isinstance(each, Table) and each.identify is not None}


def named_inputs(paths: Paths) -> list[Path]:
    """What is named, and the files behind it, as far as there are some on this disk: no output may be one of them."""
    named = [Path(name).expanduser() for name in (_listed(paths) if paths else ())]
    found = list(named)
    for path in named:
        with suppress(InputError):  # said by who reads it; a folder of images has no table
            found += _files(path, None)
    return found


def versions(paths: Paths, reading: Reading = AS_IT_IS) -> list[str]:
    """The version of every table behind the given names, in order: equal while they stay as they are. None is read."""
    return [version_of(each) if isinstance(each, Path) else _version(each) for each in _behind(paths, reading)]


def _version(table: Table) -> str:
    """The version of a table; of a query, for which that takes a reading, what tells its rows from others."""
    return table.version or (table.identify() if table.identify is not None else "")


def stamp_of(paths: Paths, reading: Reading = AS_IT_IS) -> str:
    """A name for tables as they are now, from the version of each; images that are files of their own are not in it."""
    return hash_config({**reading.config(), "tables": versions(paths, reading)})


def count_rows(paths: Paths, reading: Reading = AS_IT_IS) -> int | None:
    """Rows of all tables behind the given names, without reading images; None where one is not on this disk."""
    if any(map(_is_away, _listed(paths))):
        return None
    return sum(row_count(table) for table in tables(paths, reading))


def _refuse_repeated(files: Sequence[Path]) -> None:
    """Refuse a file that is named twice, or whose content is there under another name."""
    groups = [files]
    for mark in (lambda file: file.stat().st_size, _ends, sha256_file):  # each reads more, of those that agree so far
        groups = [group for held in groups if len(held) > 1 for group in _alike(held, mark)]
    for first, other, *_ in (group for group in groups if len(group) > 1):
        what = "it is named twice" if first.samefile(other) else f"its content is that of {first}"
        raise InputError(_TWICE.format(what), where=other, remedy="name one of the two")


def _ends(file: Path) -> str:
    with reading_file(file, "a readable file"):
        return ends_sha256(file)


def _alike(files: Sequence[Path], mark: Callable[[Path], Any]) -> list[list[Path]]:
    """The files in groups of equal marks."""
    groups: dict[Any, list[Path]] = {}
    for file in files:
        groups.setdefault(mark(file), []).append(file)
    return [*groups.values()]


def _listed(paths: Paths) -> list[str | Path]:
    names = [paths] if isinstance(paths, str | Path) else list(paths)
    if not names:
        raise InputError("no data was named", remedy="give files or folders of preferences")
    return names


def _stored_tables(address: str, split: str | None) -> Iterator[Table]:
    """The tables at an address, chosen as those of a folder here."""
    files, unread = stored_files(address)
    stored = {file.path: file for file in files}
    if unread:
        _tell(f"{address}: {_few(unread)} not read")
    for file in _of_split(_named(stored, files[0].folder) or [*stored], files[0].folder, split):
        yield stored[file].table()


def _is_away(name: str | Path) -> bool:
    """Whether what is named does not lie on this disk."""
    return address_of(name) is not None or on_hub(name)


def _twin_folders(path: Path) -> Table:
    """Folders `w` and `l` with images of equal names; the caption is the text file beside the winner."""
    winners, losers = _images(path / "w"), _images(path / "l")
    for name in sorted({*winners} ^ {*losers}):
        where, other = (winners[name], "l/") if name in winners else (losers[name], "w/")
        raise InputError(f"no image of this name in {other}", where=where, remedy="give both folders equal names")

    def read(columns: Sequence[str] | None) -> Iterator[Line]:
        for at, (name, image) in enumerate(winners.items()):
            notes = [image.with_suffix(suffix) for suffix in _CAPTIONS]
            text = next((_caption(note, path) for note in notes if os.path.lexists(note)), "")
            names = {"chosen_file_name": f"w/{image.name}", "rejected_file_name": f"l/{losers[name].name}"}
            yield Line(at, names | {"prompt": text})

    columns = ("chosen_file_name", "rejected_file_name", "prompt")
    version = "\n".join(version_of(file) for side in ("w", "l") for file in sorted((path / side).iterdir()))
    return Table(path, columns, path, version, read)


def _caption(file: Path, folder: Path) -> str:
    try:
        return read_regular(file, root=folder, what="caption").decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"it cannot be read ({visible(str(error))})", where=file, remedy="save it as utf-8") from None


def _images(folder: Path) -> dict[str, Path]:
    """Name without ending -> image of a twin folder, which holds nothing but images and captions.

    Raises:
        InputError: a file of another kind, or two images of one name.
    """
    found: dict[str, Path] = {}
    for file in sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".")):
        kind = suffix_of(file)
        if not file.exists():
            raise InputError("a link that leads nowhere", where=file, remedy="remove it")
        if kind in _CAPTIONS:
            continue
        if kind not in PICTURES:
            kinds = ", ".join((*PICTURES, *_CAPTIONS))
            raise InputError("neither an image nor a caption", where=file, remedy=f"move it away; known are {kinds}")
        if file.stem in found:
            raise InputError(f"{found[file.stem].name} has the same name", where=file, remedy="keep one of the two")
        found[file.stem] = file
    return found


def _files(path: Path, split: str | None) -> list[Path]:
    if os.path.isfile(path):
        if suffix_of(path) not in SUFFIXES:
            remedy = f"save it as one of {', '.join(SUFFIXES)} (packed with gzip or zstd if you like)"
            raise InputError(f"unknown kind of file {path.suffix!r}", where=path, remedy=remedy)
        return [path]
    if is_study(path):
        return [path / VOTES]
    if os.path.isdir(path):
        return _inside(path, split)
    if os.path.exists(path):
        raise InputError("neither a file nor a folder", where=path, remedy="save it as a file")
    found = sorted(path.parent.glob(path.name)) if any(c in path.name for c in "*?[") else []
    found = [match for match in found if not match.name.startswith(".")]
    if not found:
        raise InputError("no such file or folder", where=path, remedy="check the path")
    return [file for match in found for file in _files(match, split)]


def _inside(folder: Path, split: str | None) -> list[Path]:
    """The tables of a folder: those called metadata, pairs or preferences, else all parquet files, else all in it.

    Only where a folder holds no table itself, those of the folders below are taken. Of several splits one is chosen;
    parquet beside text is refused.
    Hidden files never. The rest is named.
    """
    below = sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p.relative_to(folder)))
    tables = [p for p in below if suffix_of(p) in SUFFIXES]
    here = [p for p in tables if p.parent == folder]
    found = _named(here, folder) or [p for p in tables if suffix_of(p) == ".parquet"] or here or tables
    if not found:
        raise InputError("the folder holds no table", where=folder, remedy=f"put a {', '.join(SUFFIXES)} file into it")
    _refuse_alike(found)
    _refuse_mixed(found, tables)
    found = _of_split(found, folder, split)
    unread = [str(p.relative_to(folder)) for p in below if p not in {*found} and p.suffix.lower() not in _CONTENT]
    if unread:
        _tell(f"{folder}: {_few(unread)} not read")
    return found


def _named(files: Iterable[Found], folder: Path) -> list[Found]:
    """Of the tables of a folder those that have the first of the names which say that they are its tables."""
    here = [file for file in files if file.parent == folder]
    named = ([file for file in here if _stem(file) == stem] for stem in NAMED)
    return next(filter(None, named), [])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)


_CONTENT = (*PICTURES, *_CAPTIONS)


def _hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _refuse_alike(files: Sequence[Path]) -> None:
    """Refuse tables of one name in several kinds, such as metadata.csv beside metadata.jsonl: one of them is meant."""
    first: dict[Path, Path] = {}
    for file in files:
        other = first.setdefault(file.parent / _stem(file), file)
        if other != file:
            what = f"{other.name} and {file.name} have one name, so every pair may be there twice"
            raise InputError(what, where=file.parent, remedy="name the one that is meant")


def _refuse_mixed(found: Sequence[Path], tables: Sequence[Path]) -> None:
    """Refuse a folder that holds votes in parquet files and in text: either, or both, may be meant."""
    if suffix_of(found[0]) != ".parquet" or _stem(found[0]) in NAMED:
        return
    places = {file.parent for file in found}
    other = next((p for p in tables if p not in found and p.parent in places and suffix_of(p) in TEXT_TABLES), None)
    if other is not None:
        what = f"it holds {found[0].name} and {other.name}, and which are meant is not known"
        raise InputError(what, where=other.parent, remedy="name the files, or a pattern of them")


def _of_split(files: Sequence[Found], folder: Path, wanted: str | None) -> list[Found]:
    """The files of one split; all where the names say no split."""
    splits: dict[str, list[Found]] = {}
    for file in files:
        said = _SPLIT.findall(file.relative_to(folder).as_posix().lower())
        splits.setdefault(said[-1] if said else "", []).append(file)
    if wanted is not None:
        check_word(wanted, [name for name in splits if name], "split", where=folder)
        return splits[wanted]
    if len(splits) > 1:
        shown = ", ".join(name or f"no split ({files[0].name})" for name, files in splits.items())
        remedy = "choose one with --split, or name the files"
        raise InputError(f"it holds several splits: {shown}", where=folder, remedy=remedy)
    return list(files)


@functools.cache
def _tell(message: str) -> None:
    """Say it once, however often the tables are looked for."""
    say(visible(message))
