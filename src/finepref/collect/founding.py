"""A new study in a folder: its pictures, each encoded again without what its file says, and what is asked."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from finepref.collect.fitting import fit_pictures
from finepref.collect.pictures import StudyPicture, find_pictures
from finepref.core.errors import InputError, check_word
from finepref.core.files import atomic_file
from finepref.core.images import open_rgb_file
from finepref.core.locks import temporary
from finepref.core.progress import progress, say
from finepref.core.provenance import hash_config, provenance, sha256_bytes, sha256_file
from finepref.core.rng import numpy_generator
from finepref.formats.answers import VOTES, PictureRow, create
from finepref.formats.collection import (
    PICTURES,
    Choice,
    CollectionRecord,
    GoldSet,
    Mode,
    StudyQuestion,
    StudySource,
    is_study,
    read_study,
    write_study,
)
from finepref.formats.preferences import read_preferences, winner_of

USUAL = StudyQuestion("overall", "Which picture is better?")
BEST = StudyQuestion("overall", "Which picture is the best?")
ORDER = StudyQuestion("overall", "Put the pictures in order, the best one first.")
ASKED: Mapping[str, StudyQuestion] = {"pair": USUAL, "best": BEST, "rank": ORDER}
GOLD_EVERY = 12
SIZES: Mapping[str, tuple[int, int]] = {"pair": (2, 2), "rank": (3, 6), "best": (2, 6)}


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

    Raises:
        InputError: pictures that cannot be read, options that do not fit them, or another study is there.
    """
    preset = _preset(options)
    if options.gold_every is not None and options.gold is None:
        raise InputError("it has no effect without --gold", where="--gold-every", remedy="leave it out")
    choice = _choice(options, preset)
    found = find_pictures(sources, prompts=options.prompts)
    mode: Mode = options.mode or (preset.mode if preset else "pair")
    models = tuple(dict.fromkeys(each.model for each in found))
    images = options.images or (min(preset.images, len(models)) if preset else 2 if mode == "pair" else 4)
    _check_size(mode, images, models)
    kept = _kept(found, images, preset.prompts if preset else None, options.seed)
    keys = list(dict.fromkeys(each.key for each in kept))
    texts = {each.key: each.prompt for each in kept}
    pictures = _encode(folder, kept, models, keys)
    fit_pictures(folder, pictures, [texts[key] for key in keys])
    record = CollectionRecord(
        id=options.id or secrets.token_hex(4), mode=mode, images=images, models=models,
        prompts=tuple(texts[key] for key in keys), seed=options.seed,
        questions=options.questions or (preset.questions if preset else (ASKED[mode],)), preset=options.preset,
        purpose="training" if options.purpose == "training" else "order", votes=options.votes, error=options.error,
        choice=choice,
        sources=tuple(_sources(kept, pictures)), gold=_gold(options.gold, models, texts, keys, pictures, mode),
        gold_every=(options.gold_every or GOLD_EVERY) if options.gold else 0, repeat_every=25,
        provenance=provenance(seed=options.seed),
    )  # fmt: skip
    if not all(texts.values()):
        say("some pictures have no prompt: votes on them can be rated, but not trained on (name them with --prompts)")
    if is_study(folder):
        if _identity(read_study(folder)) != _identity(record):
            what = "it holds a study of other pictures or questions"
            raise InputError(what, where=folder, remedy="name another folder; `finepref collect STUDY` goes on")
        return read_study(folder)
    with atomic_file(folder / VOTES) as made:
        made.unlink(missing_ok=True)
        create(made, pictures)
    write_study(folder, record)
    return record


def _identity(record: CollectionRecord) -> str:
    held = [record.mode, record.images, record.questions, record.models, record.prompts, record.gold]
    return hash_config({"study": repr([*held, [(s.model, s.sha256) for s in record.sources]])})


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


def _encode(
    folder: Path, found: Sequence[StudyPicture], models: Sequence[str], keys: Sequence[str]
) -> list[PictureRow]:
    """Every picture as PNG below `pictures/`, upright, sRGB, and with nothing else in it; those there are kept."""
    place = folder / PICTURES
    place.mkdir(exist_ok=True)
    model_at = {model: at for at, model in enumerate(models)}
    key_at = {key: at for at, key in enumerate(keys)}

    def encode(numbered: tuple[int, StudyPicture]) -> PictureRow:
        number, each = numbered
        model, key, sha = model_at[each.model], key_at[each.key], sha256_file(each.path)
        name = sha256_bytes(f"{model} {key} {sha}".encode())[:24] + ".png"
        image = open_rgb_file(each.path, root=each.root)
        if not (place / name).is_file() or not (place / name).stat().st_size:  # of a machine that went off
            with temporary(place) as made:
                image.save(made, "PNG", compress_level=4)
                os.replace(made, place / name)
        return PictureRow(number, model, key, name, sha, image.width, image.height)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(progress(pool.map(encode, enumerate(found)), "pictures", unit="picture", total=len(found)))


def _sources(found: Sequence[StudyPicture], pictures: Sequence[PictureRow]) -> list[StudySource]:
    held: dict[tuple[str, str], list[str]] = {}
    for each, picture in zip(found, pictures, strict=True):
        held.setdefault((each.model, str(each.root)), []).append(f"{each.key} {picture.sha256}")
    return [
        StudySource(model, root, len(lines), sha256_bytes("\n".join(lines).encode()))
        for (model, root), lines in held.items()
    ]


def _gold(
    file: Path | None, models: Sequence[str], texts: Mapping[str, str], keys: Sequence[str],
    pictures: Sequence[PictureRow], mode: Mode,
) -> tuple[GoldSet, ...]:  # fmt: skip
    """Pairs of pictures whose better one is known: rows of a table of votes, by prompt and models."""
    if file is None:
        return ()
    if mode != "pair":
        raise InputError(f"known answers are pairs, the mode is {mode}", where="--gold", remedy="use --mode pair")
    at = {(picture.model, picture.prompt): picture.id for picture in pictures}
    prompt_at = {texts[key]: number for number, key in enumerate(keys)}
    model_at: Mapping[str | None, int] = {model: number for number, model in enumerate(models)}
    found = []
    for pair in read_preferences(file, images=False):
        better, prompt = winner_of(pair.label), prompt_at.get(pair.prompt, -1)
        first, second = (at.get((model_at.get(model, -1), prompt)) for model in (pair.model_0, pair.model_1))
        if better is None or first is None or second is None:
            what = f"a row of {pair.prompt!r} with {pair.model_0!r} and {pair.model_1!r} is no pair of this study"
            raise InputError(what, where=file, remedy="name prompts and models of the study, and a winner")
        found.append(GoldSet((first, second), better))
    return tuple(found)
