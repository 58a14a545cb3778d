"""A new study in a folder: its pictures, each encoded again without what its file says, and what is asked."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from finepref.collect.fitting import fit_pictures, put_png
from finepref.collect.knownsets import gold_sets
from finepref.collect.pictures import StudyPicture, find_pictures
from finepref.core.errors import InputError, check_word
from finepref.core.files import atomic_file
from finepref.core.images import open_rgb_file
from finepref.core.progress import progress, say
from finepref.core.provenance import provenance, sha256_bytes, sha256_file
from finepref.core.rng import numpy_generator
from finepref.core.text import fault_of_name
from finepref.formats.answerfile import has_log, log_of, remove_log
from finepref.formats.answers import VOTES, PictureRow, answered_after, create, reading_votes, voters_of
from finepref.formats.collection import (
    PICTURES,
    SIZES,
    STUDY,
    Choice,
    CollectionRecord,
    Mode,
    StudyQuestion,
    StudySource,
    is_study,
    read_study,
    write_study,
)

USUAL = StudyQuestion("overall", "Which picture is better?")
BEST = StudyQuestion("overall", "Which picture is the best?")
ORDER = StudyQuestion("overall", "Put the pictures in order, the best one first.")
ASKED: Mapping[str, StudyQuestion] = {"pair": USUAL, "best": BEST, "rank": ORDER}
GOLD_EVERY = 12
GO_ON = "name another folder; `finepref collect STUDY` goes on with the study that is there"
NAMED: Mapping[str, str] = {
    "--mode": "mode", "--images": "images", "--question": "questions", "--preset": "preset", "--seed": "seed",
    "--choice": "choice", "--purpose": "purpose", "--gold-every": "gold_every",
}  # fmt: skip
"""Option -> what study.json keeps of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What a new study is asked for. None: what the preset says, else the usual. id: a new one, where it is empty."""

    mode: Mode | None = None
    images: int | None = None
    questions: tuple[StudyQuestion, ...] = ()
    prompts: Path | None = None
    gold: Path | None = None
    votes: int | None = None
    error: float | None = None
    purpose: str = "order"
    choice: Choice | None = None
    preset: str = ""
    seed: int = 0
    id: str = ""
    gold_every: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPreset:
    """A published study. prompts: how many of them, drawn. choice: of the next set."""

    mode: Mode
    images: int
    questions: tuple[StudyQuestion, ...]
    choice: Choice
    prompts: int | None = None


PRESETS: Mapping[str, StudyPreset] = {
    "smpo-study": StudyPreset(  # SmPO-Diffusion, Appendix E
        mode="best", images=4, prompts=50, choice="fewest-first",
        questions=(
            StudyQuestion("overall", "Which picture do you like best overall?"),
            StudyQuestion("appeal", "Which picture is the most beautiful to look at?"),
            StudyQuestion("alignment", "Which picture fits the text best?"),
        ),
    ),
    "ksort": StudyPreset(mode="rank", images=4, questions=(ORDER,), choice="ksort"),  # K-Sort Arena, K = 4, Rank mode
}  # fmt: skip


def found_study(folder: Path, sources: Sequence[str], options: StudyOptions) -> CollectionRecord:
    """Make a study in a folder that the caller holds; one that is there with the same sources and options is kept.

    Its pictures are made anew where they are gone or damaged.

    Raises:
        InputError: pictures that cannot be read, options that do not fit them, another study is there, or votes whose
            study.json is lost. Nothing is changed then.
    """
    _refuse_remains(folder)
    preset = _preset(options)
    _check_options(options)
    choice = _choice(options, preset)
    found = find_pictures(sources, prompts=options.prompts)
    mode: Mode = options.mode or (preset.mode if preset else "pair")
    models = tuple(dict.fromkeys(each.model for each in found))
    images = options.images
    if images is None:
        images = min(preset.images, len(models)) if preset else 2 if mode == "pair" else 4
    _check_size(mode, images, models)
    kept = _kept(found, images, preset.prompts if preset else None, options.seed)
    keys = list(dict.fromkeys(each.key for each in kept))
    texts = {each.key: each.prompt for each in kept}
    rows = _numbered(kept, models, keys)
    record = CollectionRecord(
        id=options.id or secrets.token_hex(4), mode=mode, images=images, models=models,
        prompts=tuple(texts[key] for key in keys), seed=options.seed,
        questions=options.questions or (preset.questions if preset else (ASKED[mode],)), preset=options.preset,
        purpose="training" if options.purpose == "training" else "order", votes=options.votes, error=options.error,
        choice=choice,
        sources=tuple(_sources(kept, rows)), gold=gold_sets(options.gold, models, texts, keys, rows, mode),
        gold_every=(options.gold_every or GOLD_EVERY) if options.gold else 0, repeat_every=25,
        provenance=provenance(seed=options.seed),
    )  # fmt: skip
    if not all(texts.values()):
        what = "votes on them can be rated and written as .csv, but not as .parquet, and not trained on"
        say(f"some pictures have no prompt: {what} (name them with --prompts)")
    there = read_study(folder) if is_study(folder) else None
    if there is not None:
        _refuse_other(folder, there, record)
    pictures = _encode(folder, kept, rows)
    fit_pictures(folder, pictures, [texts[key] for key in keys])
    if there is not None:
        return there
    remove_log(folder / VOTES)
    with atomic_file(folder / VOTES) as made:
        made.unlink(missing_ok=True)
        create(made, pictures)
    write_study(folder, record)
    return record


def _refuse_remains(folder: Path) -> None:
    """Refuse what is left of a study that has lost a part: votes would be replaced."""
    votes, about = folder / VOTES, folder / STUDY
    back = "from a backup, or name another folder; nothing was changed"
    if is_study(folder):
        return
    if os.path.lexists(about):
        raise InputError(f"it holds a {STUDY} whose {VOTES} is gone", where=folder, remedy=f"put it back {back}")
    if not os.path.lexists(votes):
        if has_log(votes):
            what = f"the log of votes whose {VOTES} is gone"
            raise InputError(what, where=log_of(votes), remedy=f"put {VOTES} back {back}")
        return
    with reading_votes(votes) as connection:
        voters, answers = len(voters_of(connection)), sum(1 for _ in answered_after(connection))
    if voters or answers:
        what = f"it holds {answers} answers of {voters} voters, whose {STUDY} is gone"
        raise InputError(what, where=votes, remedy=f"put {STUDY} back {back}")


def _refuse_other(folder: Path, there: CollectionRecord, asked: CollectionRecord) -> None:
    """Refuse to go on with a study that was made in another way, by the option that differs."""

    def pictured(record: CollectionRecord) -> list[Any]:
        return [record.models, record.prompts, [(each.model, each.sha256) for each in record.sources]]

    held: list[tuple[str, Any, Any]] = [
        (option, getattr(there, name), getattr(asked, name)) for option, name in NAMED.items()
    ]
    held.append(("--target", _target(there), _target(asked)))
    for option, before, now in held:
        if before != now:
            what = f"the study in {folder} was made with {_words(before)}, now it is {_words(now)}"
            raise InputError(what, where=option, remedy=f"give the same; or {GO_ON}")
    if pictured(there) != pictured(asked):
        raise InputError("it holds a study of other pictures or prompts", where=folder, remedy=GO_ON)
    if there.gold != asked.gold:
        raise InputError(f"the study in {folder} has other known answers", where="--gold", remedy=GO_ON)


def _target(record: CollectionRecord) -> str | None:
    return str(record.votes) if record.votes is not None else None if record.error is None else f"se={record.error:g}"


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{each.name}={each.text!r}" for each in value)
    return "none" if value in (None, "") else str(value)


def _check_options(options: StudyOptions) -> None:
    if options.gold_every is not None and options.gold is None:
        raise InputError("it has no effect without --gold", where="--gold-every", remedy="leave it out")
    for each in options.questions:
        fault = fault_of_name(each.name) or fault_of_name(each.text)
        if fault:
            raise InputError(f"the question {each.name!r}: {fault}", where="--question", remedy="take it out")


def _preset(options: StudyOptions) -> StudyPreset | None:
    if not options.preset:
        return None
    check_word(options.preset, PRESETS, "preset", where="--preset")
    if options.mode is not None or options.questions:
        named = "--mode" if options.mode is not None else "--question"
        raise InputError(f"the preset {options.preset} fixes it", where=named, remedy="leave one of the two out")
    return PRESETS[options.preset]


def _choice(options: StudyOptions, preset: StudyPreset | None) -> Choice:
    found: Choice = options.choice or (preset.choice if preset else "information")
    if found != "information":
        idle = [("--purpose", options.purpose == "training"), ("--target", options.error is not None)]
        for where, given in idle:
            if given:
                what = f"sets are chosen by {found}, on which it has no effect"
                raise InputError(what, where=where, remedy="leave it out, or use --choice information")
    elif options.purpose == "training" and options.error is not None:
        what = "a standard error of ratings ends a study of the order, not one for training"
        raise InputError(what, where="--target", remedy="give a number of sets, or use --purpose order")
    return found


def _check_size(mode: Mode, images: int, models: Sequence[str]) -> None:
    low, high = SIZES[mode]
    if not low <= images <= high:
        raise InputError(f"{images} pictures a set in mode {mode}", where="--images", remedy=f"give {low} to {high}")
    if images > len(models):
        what = f"{images} pictures a set of {len(models)} models"
        raise InputError(what, where="--images", remedy=f"give at most {len(models)}, or more models")


def _kept(found: Sequence[StudyPicture], images: int, most: int | None, seed: int) -> list[StudyPicture]:
    """The pictures that can be in a set: of keys with enough models; `most` keys of them, drawn."""
    count: dict[str, int] = {}
    for each in found:
        count[each.key] = count.get(each.key, 0) + 1
    keys = sorted(key for key, size in count.items() if size >= images)
    left = len(count) - len(keys)
    if not keys:
        raise InputError(f"no prompt has pictures of {images} models", where="--images", remedy="give fewer")
    if left:
        say(f"{left} of {len(count)} prompts have pictures of fewer than {images} models and are left out")
    if most is not None and len(keys) > most:
        chosen = numpy_generator(seed, "prompts of a study").choice(len(keys), most, replace=False)
        keys = [keys[at] for at in sorted(chosen)]
    held = {*keys}
    return sorted((each for each in found if each.key in held), key=lambda each: each.key)


def _numbered(found: Sequence[StudyPicture], models: Sequence[str], keys: Sequence[str]) -> list[PictureRow]:
    """The pictures by number and the names that they get; their sizes are not known yet."""
    model_at = {model: at for at, model in enumerate(models)}
    key_at = {key: at for at, key in enumerate(keys)}
    rows = []
    for number, each in enumerate(found):
        model, key, sha = model_at[each.model], key_at[each.key], sha256_file(each.path)
        name = sha256_bytes(f"{model} {key} {sha}".encode())[:24] + ".png"
        rows.append(PictureRow(number, model, key, name, sha, 0, 0))
    return rows


def _encode(folder: Path, found: Sequence[StudyPicture], rows: Sequence[PictureRow]) -> list[PictureRow]:
    """Every picture as PNG below `pictures/`, upright, sRGB, and with nothing else in it; those there are kept.

    Returns:
        The rows with the pictures' sizes.

    Raises:
        InputError: `pictures/` leads elsewhere, where files of others may be.
    """
    place = folder / PICTURES
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise InputError("it is no folder but a link or a file", where=place, remedy="remove it")
    place.mkdir(exist_ok=True)

    def encode(given: tuple[StudyPicture, PictureRow]) -> PictureRow:
        each, row = given
        image = open_rgb_file(each.path, root=each.root)
        if not _is_kept(place / row.name, image):
            put_png(image, place / row.name)
        return replace(row, width=image.width, height=image.height)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(encode, zip(found, rows, strict=True))
        return list(progress(made, "pictures", unit="picture", total=len(found)))


def _is_kept(file: Path, image: Image.Image) -> bool:
    """Whether a picture is there whole, pixel by pixel; a machine that went off, or a hand, may have left another."""
    if file.is_symlink() or not file.is_file():
        return False
    try:
        found = open_rgb_file(file)
    except InputError:
        return False
    return found.size == image.size and found.tobytes() == image.tobytes()


def _sources(found: Sequence[StudyPicture], pictures: Sequence[PictureRow]) -> list[StudySource]:
    held: dict[tuple[str, str], list[str]] = {}
    for each, picture in zip(found, pictures, strict=True):
        held.setdefault((each.model, str(each.root)), []).append(f"{each.key} {picture.sha256}")
    return [
        StudySource(model, root, len(lines), sha256_bytes("\n".join(lines).encode()))
        for (model, root), lines in held.items()
    ]
