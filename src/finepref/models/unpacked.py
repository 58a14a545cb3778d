"""A single-file checkpoint as a diffusers folder: made once in the user's cache, whole or absent, known by content.

The folder holds the hashes of its files. One that is not as it was made (a failing disk, a cleaner) is made again.

Every stage works from a folder with a model_index.json, part by part. A folder costs the disk a second copy of the file
(in the file's own precision) and one reading of it; for that nothing else in the house knows of single files, a start
that finds the folder is as fast as with any other, and its identity is that of its content. The file is not changed.

Configs and tokenizers are not in a single file. They come from `model.config`, else from the published repository of
the file's family in the hub's cache on this machine, else from the hub.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from finepref.core.device import cache_home
from finepref.core.errors import InputError
from finepref.core.files import atomic_folder, read_object, write_json, write_sealed
from finepref.core.locks import LOCK, collect, locked
from finepref.core.outfolders import refuse_changed
from finepref.core.progress import say
from finepref.core.provenance import hash_config, sha256_file
from finepref.models import original
from finepref.models.header import DAMAGED, Header, read_header
from finepref.models.layouts import LAYOUTS, VAE_FILE, FilePart, layout_of
from finepref.models.prediction import check_schedule, scheduler_of
from finepref.models.single_file import (
    Held,
    account,
    empty_network,
    hold,
    likest,
    read_part,
    refuse_others,
    require_checkpoint,
    told_left_out,
)
from finepref.models.source import INDEX, SCHEDULER, Source, is_folder, load_part, locate_part, quiet
from finepref.models.variant import SMALL

VERSION = 1
HASHES = "finepref.sha256"
PATTERNS = (INDEX, *(f"*/*{end}" for end in SMALL))
EXTRAS = ("safety_checker", "feature_extractor", "image_encoder")


def unpacked(file: Path, *, config: str | None = None, prediction_type: str | None = None) -> Source:
    """A checkpoint as a pipeline folder.

    Args:
        config: diffusers folder or hub name whose configs and tokenizers are used, and whose weights where the file
            has none of a part. prediction_type: `epsilon` or `v_prediction`, where the file does not say.

    Raises:
        InputError: no whole checkpoint of a known layout; tensors other than those of the configs; no configs in reach.
    """
    header = read_header(file)
    require_checkpoint(header)
    model, default = _published(header)
    configs = _configs(header, config or default)
    parts = layout_of(str(configs.index.get("_class_name")), where=configs.name)
    found = account(header, configs, parts)
    published = read_object(configs.folder / SCHEDULER)
    check_schedule(published, configs.folder / SCHEDULER)
    scheduler, who = scheduler_of(
        header,
        published,
        given=prediction_type,
        named=config is not None,
        asked=model == "v2",
    )
    lent = {part: _lent(header, configs, part, named=config is not None) for part in found.lacking}

    def make(place: Path) -> str:
        _copy_configs(configs, place)
        for held in found.held:
            _write_part(header, held, configs, place / held.part.name)
        for part, files in lent.items():
            (place / part).mkdir(exist_ok=True)
            for weights in files:
                shutil.copyfile(weights, place / part / weights.name)
        write_json(place / SCHEDULER, scheduler)
        type_ = scheduler.get("prediction_type", "flow")
        lines = [f"prediction type {type_}, as {who} says", told_left_out(found)]
        lines += [f"{part} is that of {configs.name}" for part in lent]
        return "; ".join(line for line in lines if line)

    known = {
        "file": sha256_file(file),
        "configs": _digest(configs),
        "scheduler": scheduler,
        "lent": {part: [sha256_file(each) for each in files] for part, files in lent.items()},
    }
    folder = _kept(file, known, make)
    return Source(name=str(file), folder=folder, index=read_object(folder / INDEX))


def unpacked_part(file: Path, source: Source, part: str, *, option: str) -> Path:
    """A folder with one part of a file that fits a pipeline: its VAE, or its denoiser.

    What else the file holds must be equal to the pipeline's own, since only that part of it is used.

    Args:
        source: whose config the part has. option: who asks, in errors.

    Raises:
        InputError: the file has no such part, or other parts that differ.
    """
    header = read_header(file)
    config = read_object(source.folder / part / "config.json")
    layout = LAYOUTS.get(str(source.index.get("_class_name")), ())
    own = [each for each in (*layout, *([VAE_FILE] if part == "vae" else [])) if each.name == part]
    plain = FilePart(part, ("", f"{part}."), original.same)
    held = hold(header, likest(header, (*own, plain), source, config), source, config)
    if held is None:
        what = f"it holds no {part} of {source.name}"
        raise InputError(what, where=file, remedy=f"give {option} a file or a folder of the same family")
    for other in refuse_others(header, held, source, layout, option=option):
        _require_equal(header, other, source, option=option)

    def make(place: Path) -> str:
        _write_part(header, held, source, place)
        return f"the {part} of {option}"

    known = {"file": sha256_file(file), "part": part, "config": config}
    return _kept(file, known, make)


def _home() -> Path:
    return cache_home() / "single"


def _kept(file: Path, known: Mapping[str, Any], make: Callable[[Path], str]) -> Path:
    """The folder of this name in the cache, made where it is not whole; make: fills it, says what there is to say."""
    key = hash_config({"version": VERSION, **known})[:32]
    place = _home() / key
    if _differing(place) is not None:
        _home().mkdir(parents=True, exist_ok=True)
        with locked(_home() / f"{LOCK}-{key[:12]}", place=place, wait=True):
            if (name := _differing(place)) is not None:
                collect(_home())
                how = f"again, since its {name} was not as it was made," if place.is_dir() else "once"
                with atomic_folder(place, own=("*",)) as made:
                    said = make(made)
                    write_sealed(made / HASHES, _hashes(made))
                say(f"{file}: unpacked {how} into {place} ({said})")
    return place


def _hashes(folder: Path) -> dict[str, str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != HASHES)
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}


def _differing(folder: Path) -> str | None:
    """The first file of a folder in the cache that is not as it was made; None where all are."""
    try:
        known, found = read_object(folder / HASHES), _hashes(folder)
    except InputError:
        return HASHES
    return next((name for name in sorted({*known, *found}) if known.get(name) != found.get(name)), None)


def _published(header: Header) -> tuple[str, str]:
    """(architecture in the words of diffusers, hub name of its published pipeline)."""
    from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS, infer_diffusers_model_type

    with torch.device("meta"):
        shaped = {name: torch.empty(shape) for name, shape in header.shapes.items()}
    model = infer_diffusers_model_type(shaped)
    return model, DIFFUSERS_DEFAULT_PIPELINE_PATHS[model]["pretrained_model_name_or_path"]


def _configs(header: Header, name: str) -> Source:
    """The pipeline whose configs and tokenizers a file is read with."""
    if is_folder(name):
        refuse_changed(Path(name).expanduser(), remedy=DAMAGED)
    try:
        if is_folder(name):
            folder = Path(name).expanduser()
        else:
            try:
                folder = locate_part(name, patterns=PATTERNS, cached=True)
            except InputError:
                folder = locate_part(name, patterns=PATTERNS)
        index = read_object(folder / INDEX)
    except InputError as error:
        include = " ".join(f"--include '{pattern}'" for pattern in PATTERNS)
        what = (
            f"a single file holds neither configs nor tokenizers, and those of {name} are out of reach ({error.what})"
        )
        remedy = (
            "name a diffusers folder of the same family as model.config, or fetch these small files once with "
            f"`hf download {name} {include}`"
        )
        raise InputError(what, where=header.path, remedy=remedy) from None
    return Source(name=name, folder=folder, index=index)


def _lent(header: Header, configs: Source, part: str, *, named: bool) -> list[Path]:
    """The weights of a part that the file lacks, in the folder that the user named."""
    if named and not is_folder(configs.name):
        locate_part(configs.name, patterns=(f"{part}/*",))
    files = sorted((configs.folder / part).glob("*.safetensors*")) if named else []
    if not files:
        what = f"it holds no {part}" + (f", and neither does {configs.name}" if named else "")
        remedy = "name a diffusers folder that has one as model.config, or null in its model_index.json to go without"
        raise InputError(what, where=header.path, remedy=remedy)
    return files


def _small(configs: Source) -> list[Path]:
    """Config and tokenizer files of the parts, relative to the folder."""
    parts = [part for part in configs.index if configs.has(part) and part not in EXTRAS]
    files = [path for part in parts for path in (configs.folder / part).glob("*") if path.suffix in SMALL]
    return sorted(path.relative_to(configs.folder) for path in files if not path.name.endswith(".index.json"))


def _digest(configs: Source) -> str:
    return hash_config(
        {path.as_posix(): sha256_file(configs.folder / path) for path in (Path(INDEX), *_small(configs))}
    )


def _copy_configs(configs: Source, place: Path) -> None:
    for path in _small(configs):
        (place / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(configs.folder / path, place / path)
    index = {**configs.index, **{part: [None, None] for part in EXTRAS if part in configs.index}}
    if "safety_checker" in index:
        index["requires_safety_checker"] = False
    write_json(place / INDEX, index)


def _write_part(header: Header, held: Held, configs: Source, folder: Path) -> None:
    """A part's weights as diffusers and transformers save them, beside its config as it is."""
    network = empty_network(configs, held.part.name)
    network.load_state_dict(read_part(header, held), assign=True)
    with quiet():
        network.save_pretrained(str(folder), safe_serialization=True)
    shutil.copyfile(configs.folder / held.part.name / "config.json", folder / "config.json")


def _require_equal(header: Header, held: Held, source: Source, *, option: str) -> None:
    """Refuse a part of a file that differs from the pipeline's own."""
    tensors = read_part(header, held)
    kind = next(iter(tensors.values())).dtype
    own = load_part(source, held.part.name, dtype=kind).state_dict()
    if any(not torch.equal(own[name], tensor) for name, tensor in tensors.items()):
        what = f"its {held.part.name} is not that of {source.name}, and {option} does not take it"
        raise InputError(what, where=header.path, remedy="give the file as model.base, or one without that part")
