"""The pictures of a study: those of evaluation folders, or folders with files of equal names, and their prompts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finepref.core.encoded import texts_in
from finepref.core.errors import InputError, cut
from finepref.core.progress import say
from finepref.core.regular import read_regular
from finepref.core.text import clean_name, fault_of_name, fault_of_prompt, is_missing, visible
from finepref.formats.manifest import LINES, read_rows
from finepref.formats.prompts import read_prompts
from finepref.formats.records import read_csv
from finepref.formats.sources import PICTURES

_NAMED = re.compile(r"([^=/\\]+)=(.+)", re.DOTALL)
_TEXT_KEYS = ("parameters", "prompt", "Description")
"""Where tools keep a prompt in a PNG: AUTOMATIC1111's web UI, ours and others, NovelAI."""
_AFTER = re.compile(r"\n(?:Negative prompt:|Steps:)")
_TURNING = re.compile("[\x80-\x9f\u202a-\u202e\u2066-\u2069]")
"""Controls of terminals, and what turns the direction of the text around it; marks of one direction may be."""
LONGEST_NAME = 100
OF_SEED = ", seed "
"""Between the name of a model and a seed, where seeds are compared."""
_FILE, _PROMPT = ("file", "file_name", "image", "name"), ("prompt", "caption", "text")


@dataclass(frozen=True, slots=True)
class StudyPicture:
    """A picture before it is in a study. key: equal for the pictures of all models that are compared.

    prompt: empty where none is known. path: the file, which must lie in `root`. seed: of its noise, and `row`: the key
    without it, in an evaluation folder.
    """

    model: str
    key: str
    prompt: str
    path: Path
    root: Path
    seed: int | None = None
    row: str = ""


def find_pictures(sources: Sequence[str], *, prompts: Path | None = None) -> list[StudyPicture]:
    """The pictures behind evaluation folders and folders of pictures, `NAME=FOLDER` or by the folder's own name.

    Of one model alone with pictures from several seeds, each seed takes the place of a model.

    Args:
        prompts: a csv with the columns file and prompt, or a prompt file whose rows are the files in order of name;
            without it what the pictures say themselves.

    Raises:
        InputError: nothing there, one name for two models, no two models with a picture of one key, a prompt that
            cannot be shown, or two of one key without `prompts`.
    """
    found: list[StudyPicture] = []
    for source in sources:
        named = None if os.path.exists(source) else _NAMED.fullmatch(source)
        folder = Path(named[2] if named else source).expanduser()
        if not os.path.isdir(folder):  # also for a name that none can have
            raise InputError(
                "no such folder", where=cut(str(folder)), remedy="name one that is there, as FOLDER or NAME=FOLDER"
            )
        if (folder / LINES).is_file():
            found += _of_evaluation(folder, named[1] if named else None)
        else:
            found += _of_folder(_model_name(named[1] if named else folder.resolve().name, source), folder)
    if len({each.model for each in found}) == 1 and len({each.seed for each in found} - {None}) > 1:
        found = [replace(each, model=f"{each.model}{OF_SEED}{each.seed}", key=each.row) for each in found]
        say(f"one model: its pictures from {len({each.seed for each in found})} seeds are compared")
    _check_models(found, sources)
    keys = sorted({each.key for each in found})
    texts = _said(found) if prompts is None else _prompts(prompts, keys)
    return [replace(each, prompt=texts[each.key]) for each in found]


def _said(found: Sequence[StudyPicture]) -> Mapping[str, str]:
    """Key -> the prompt that its pictures say: the first that is not empty."""
    by: dict[str, StudyPicture] = {}
    for each in found:
        first = by.setdefault(each.key, each)
        if is_missing(each.prompt):
            continue
        fault = _fault_of_text(each.prompt)
        if fault:
            raise InputError(fault, where=each.path, remedy="give the prompts with --prompts")
        if not is_missing(first.prompt) and first.prompt != each.prompt:
            what = f"its prompt is {_short(each.prompt)}, that of {first.path} is {_short(first.prompt)}"
            raise InputError(what, where=each.path, remedy="say with --prompts which one is right")
        by[each.key] = each if is_missing(first.prompt) else first
    return {key: "" if is_missing(each.prompt) else each.prompt for key, each in by.items()}


def _short(text: str) -> str:
    line = visible(cut(text))
    return repr(line if len(line) <= 60 else f"{line[:57]}...")


def _fault_of_text(text: str) -> str:
    """Why a text cannot be a prompt, else nothing."""
    found = _TURNING.search(text)
    return f"the prompt holds the character {visible(found.group())}" if found else fault_of_prompt(text)


def _of_evaluation(folder: Path, name: str | None) -> Iterator[StudyPicture]:
    """The pictures of an evaluation folder; those of its only model under another name, where one is given."""
    rows = read_rows(folder)
    models = list(dict.fromkeys(row.model for row in rows))
    if name is not None and len(models) != 1:
        what = f"{name} cannot name the {len(models)} models of an evaluation folder"
        raise InputError(what, where=folder, remedy="give the folder alone: its models have names")
    for row in rows:
        key, model = f"{row.prompt_set}/{row.prompt_index:05d}", _model_name(name or row.model, folder)
        yield StudyPicture(model, f"{key}/{row.seed}", row.prompt, folder / row.path, folder, row.seed, key)


def _of_folder(model: str, folder: Path) -> Iterator[StudyPicture]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and not _hidden(p.relative_to(folder)))
    if not files:
        raise InputError("no picture in it", where=folder, remedy=f"put {', '.join(PICTURES)} files into it")
    seen: dict[str, Path] = {}
    for file in files:
        key = file.relative_to(folder).with_suffix("").as_posix()
        if key in seen:
            raise InputError(f"{seen[key].name} has the same name", where=file, remedy="keep one of the two")
        seen[key] = file
        yield StudyPicture(model, key, said_by(file), file, folder)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _model_name(name: str, where: object) -> str:
    cleaned = clean_name(name)
    fault = "it is empty" if not cleaned else fault_of_name(cleaned)
    if len(cleaned) > LONGEST_NAME:
        fault = f"it has {len(cleaned)} characters, more than {LONGEST_NAME}"
    if fault:
        raise InputError(f"the name of a model: {fault}", where=cut(str(where)), remedy="write NAME=FOLDER")
    return cleaned


def _check_models(found: Sequence[StudyPicture], sources: Sequence[str]) -> None:
    keys: dict[str, set[str]] = {}
    for each in found:
        held = keys.setdefault(each.key, set())
        if each.model in held:
            what = f"two pictures of {each.model!r} for {each.key!r}"
            raise InputError(what, where=", ".join(sources), remedy="give every folder its own NAME=")
        held.add(each.model)
    if not any(len(models) > 1 for models in keys.values()):
        what = "no two models have a picture of one prompt"
        remedy = "give two folders whose files have equal names, or an evaluation folder with two models or seeds"
        raise InputError(what, where=", ".join(sources), remedy=remedy)


def _prompts(file: Path, keys: Sequence[str]) -> Mapping[str, str]:
    """Key -> prompt."""
    if file.suffix.lower() == ".csv":
        rows = read_csv(file, ())
        names = {name.casefold(): name for name in rows[0]}
        picture, text = (next((names[n] for n in wanted if n in names), None) for wanted in (_FILE, _PROMPT))
        if picture is not None and text is not None:
            return _by_file(file, [(row[picture], row[text]) for row in rows], keys)
    texts = read_prompts(file).prompts
    if len(texts) != len(keys):
        what = f"{len(texts)} prompts for {len(keys)} names of pictures"
        raise InputError(what, where=file, remedy="give one a name in order, or a csv with the columns file and prompt")
    for number, line in enumerate(texts, start=1):
        if line:
            _refuse_prompt(line, f"{file}, prompt {number}")
    return dict(zip(keys, texts, strict=True))


def _by_file(file: Path, rows: Sequence[tuple[str, str]], keys: Sequence[str]) -> Mapping[str, str]:
    """Key -> prompt, from rows of a file's name and its prompt."""
    found: dict[str, str] = {}
    for number, (name, prompt) in enumerate(rows, start=1):
        where, path = f"{file}, row {number}", Path(name)
        if not path.name:
            raise InputError(f"{name!r} is no name of a file", where=where, remedy="write 000.png, or sub/000.png")
        key = path.with_suffix("").as_posix()
        if key in found:
            raise InputError(f"{visible(key)!r} stands twice", where=where, remedy="keep one row for every file")
        if not is_missing(prompt):
            _refuse_prompt(prompt, where)
        found[key] = prompt
    lacking = [key for key in keys if is_missing(found.get(key))]
    if lacking:
        raise InputError(f"no prompt for {lacking[0]!r}", where=file, remedy="write a row for every file")
    unknown = sorted(found.keys() - {*keys})
    if unknown:
        say(f"{file}: {len(unknown)} of {len(rows)} rows are of files that no folder has, such as {_short(unknown[0])}")
    return found


def _refuse_prompt(text: str, where: str) -> None:
    fault = _fault_of_text(text)
    if fault:
        raise InputError(fault, where=where, remedy="take the character out")


def said_by(file: Path) -> str:
    """The prompt that a picture's own text says; empty where it says none that can be used.

    Text chunks of PNG as AUTOMATIC1111's web UI (`parameters`: the prompt, then settings), ComfyUI (`prompt`: a graph
    of nodes, whose texts are not told apart, so that it is left) and others (`prompt`, `Description`) write them;
    EXIF UserComment of JPEG and WebP.
    """
    said = texts_in(read_regular(file, root=None))
    comment = said.get("UserComment")
    texts = [*(said.get(key) for key in _TEXT_KEYS), _decoded(comment) if isinstance(comment, bytes) else comment]
    for text in texts:
        if isinstance(text, str) and not text.lstrip().startswith("{"):
            prompt = _AFTER.split(text, maxsplit=1)[0].strip()
            if not _fault_of_text(prompt):
                return prompt
    return ""


def _decoded(comment: bytes) -> str:
    """An EXIF comment: eight bytes name its encoding."""
    kind, text = comment[:8], comment[8:]
    if kind.startswith(b"UNICODE"):
        big = text[:1] == b"\x00" or text[:2] == b"\xfe\xff"
        return text.decode("utf-16-be" if big else "utf-16-le", "replace").strip("\ufeff\x00")
    return text.decode("utf-8", "replace").strip("\x00")
