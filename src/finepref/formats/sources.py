"""The tables behind files, folders, patterns and names of data sets on the hub."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError, check_word
from finepref.core.files import reading as reading_file
from finepref.core.known import ends_sha256
from finepref.core.progress import say
from finepref.core.provenance import hash_config, sha256_file
from finepref.core.regular import read_regular
from finepref.core.text import visible
from finepref.formats.answers import VOTES
from finepref.formats.collection import is_study
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.studyvotes import study_table
from finepref.formats.tables import SUFFIXES, Table, file_table, row_count, suffix_of, version_of
from finepref.formats.textfiles import Line

Paths = str | Path | Sequence[str | Path]
NAMED = ("metadata", "pairs", "preferences")  # names of the tables of a folder of images
TEXT_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
_CAPTIONS = (".txt", ".caption")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w\[\]%:+-]+)?")
_SPLIT = re.compile(r"(?:^|[/_.-])(train|test|validation|valid|val|dev|eval)(?=$|[/_.-])")


def tables(paths: Paths | Table, reading: Reading = AS_IT_IS) -> list[Table]:
    """Every table behind the given files, folders, patterns and hub names, in order, sorted inside a folder.

    A table as it is.

    Raises:
        InputError: nothing there, an unknown kind of file, a broken one, or one that is there twice.
    """
    if isinstance(paths, Table):
        return [paths]
    behind = _behind(paths, reading)
    found = [each if isinstance(each, Table) else file_table(each, reading.encoding) for each in behind]
    if reading.split is not None and not any(os.path.isdir(name) or _on_hub(name) for name in _listed(paths)):
        raise InputError("it has no effect on files that are named", where="--split", remedy="leave it out")
    if reading.encoding is not None and not any(suffix_of(table.path) in SUFFIXES[1:] for table in found):
        raise InputError("it has no effect on parquet", where="--encoding", remedy="leave it out")
    _refuse_repeated([table.path for table in found if table.path.is_file()])
    return found


def _behind(paths: Paths, reading: Reading) -> Iterator[Path | Table]:
    """What the names stand for, in order, no file read: each file, or the table that is not one file."""
    for name in _listed(paths):
        if not isinstance(name, str | Path):
            raise InputError(f"{name!r} is no name of a file or folder", where="data", remedy="give paths as text")
        path = Path(name).expanduser()
        if _on_hub(name):
            yield _hub_table(str(name), reading.split)
        elif is_study(path):
            yield study_table(path)
        elif os.path.isdir(path) and (path / "w").is_dir() and (path / "l").is_dir():
            yield _twin_folders(path)
        else:
            yield from _files(path, reading.split)


def find_files(paths: Paths, reading: Reading = AS_IT_IS) -> list[Path]:
    """The files of all tables behind the given files, folders and patterns."""
    return [file for name in _listed(paths) for file in _files(Path(name).expanduser(), reading.split)]


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
    return [each.version if isinstance(each, Table) else version_of(each) for each in _behind(paths, reading)]


def stamp_of(paths: Paths, reading: Reading = AS_IT_IS) -> str:
    """A name for tables as they are now, from the version of each; images that are files of their own are not in it."""
    return hash_config({**reading.config(), "tables": versions(paths, reading)})


def count_rows(paths: Paths, reading: Reading = AS_IT_IS) -> int | None:
    """Rows of all tables behind the given names, without reading images; None where a hub data set is among them."""
    if any(_on_hub(name) for name in _listed(paths)):
        return None
    return sum(row_count(table) for table in tables(paths, reading))


def _refuse_repeated(files: Sequence[Path]) -> None:
    """Refuse a file that is named twice, or whose content is there under another name."""
    groups = [files]
    for mark in (lambda file: file.stat().st_size, _ends, sha256_file):  # each reads more, of those that agree so far
        groups = [group for held in groups if len(held) > 1 for group in _alike(held, mark)]
    for first, other, *_ in (group for group in groups if len(group) > 1):
        what = "it is named twice" if first.samefile(other) else f"its content is that of {first}"
        raise InputError(f"{what}, so its rows would count twice", where=other, remedy="name one of the two")


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


def _on_hub(name: str | Path) -> bool:
    """Whether a name is a data set on the hub: `owner/name` or `owner/name:split`, and nothing here."""
    return _HUB_NAME.fullmatch(str(name)) is not None and not os.path.exists(Path(name).expanduser())


def _hub_table(name: str, wanted: str | None) -> Table:
    """A data set on the hub, streamed by the `datasets` library; images stay encoded."""
    if importlib.util.find_spec("datasets") is None:
        remedy = "check the path; to read it from the hub, install finepref[datasets]"
        raise InputError("no such file or folder", where=name, remedy=remedy)
    import datasets
    from huggingface_hub import HfApi

    repository, _, split = name.partition(":")
    split = wanted or split
    try:
        version = str(HfApi().dataset_info(repository).sha)
        rows = datasets.load_dataset(repository, split=split or "train", revision=version, streaming=True).decode(False)
        columns = tuple(rows.features or next(iter(rows)))
    except Exception as error:  # both libraries and the http client under them raise many kinds
        what = f"the hub does not hand it out ({' '.join(str(error).split()) or type(error).__name__})"
        raise InputError(what, where=name, remedy="check name, split and network") from None

    def read(wanted: Sequence[str] | None) -> Iterator[Line]:
        chosen = rows if wanted is None else rows.select_columns(list(wanted))
        yield from (Line(at, dict(row)) for at, row in enumerate(chosen))

    return Table(Path(name), columns, Path(name), version, read, apart=False)  # its rows name no file here


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
    named = ([p for p in here if _stem(p) == stem] for stem in NAMED)
    found = next(filter(None, named), None) or [p for p in tables if suffix_of(p) == ".parquet"] or here or tables
    if not found:
        raise InputError("the folder holds no table", where=folder, remedy=f"put a {', '.join(SUFFIXES)} file into it")
    _refuse_alike(found)
    _refuse_mixed(found, tables)
    found = _of_split(found, folder, split)
    unread = [str(p.relative_to(folder)) for p in below if p not in {*found} and p.suffix.lower() not in _CONTENT]
    if unread:
        _tell(f"{folder}: {', '.join(unread[:3])}{f' and {len(unread) - 3} more' * (len(unread) > 3)} not read")
    return found


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


def _of_split(files: Sequence[Path], folder: Path, wanted: str | None) -> list[Path]:
    """The files of one split; all where the names say no split."""
    splits: dict[str, list[Path]] = {}
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
