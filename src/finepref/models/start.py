"""What a run starts from (`model.init_from`): full weights or a LoRA, found, and checked against the base.

The check reads headers and configs, and a LoRA's tensors; it comes before any work on the data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from finepref.core.errors import InputError
from finepref.core.files import read_object, reading
from finepref.core.progress import say
from finepref.core.provenance import hash_config, sha256_file, sha256_folder
from finepref.formats.run import at_step, is_finished, read_run
from finepref.models import lora as low_rank
from finepref.models.family import Family, text_parts
from finepref.models.header import part_header, read_header
from finepref.models.lora import LoraSettings
from finepref.models.lora_file import put, read_lora
from finepref.models.pipeline_parts import check_header
from finepref.models.prediction import SPEC, marked, said_in
from finepref.models.run_folder import check_base, said_of, starts
from finepref.models.single_file import is_lora
from finepref.models.source import (
    SCHEDULER,
    Source,
    empty_part,
    is_file,
    is_folder,
    locate,
    locate_part,
    part_class,
    pipeline_class,
    resolve_base,
    unreachable,
)
from finepref.models.text_encoders import lora_of
from finepref.models.unpacked import unpacked_part

SAME = "give a start of the base's own family"


@dataclass(frozen=True, slots=True)
class Start:
    """Exactly one of the two is there. weights: the folder of a network's config.json and weights. lora: a file."""

    name: str
    weights: Path | None = None
    lora: Path | None = None


def find_start(name: str | Path, part: str, base: Source) -> Start:
    """A run or RUN@STEP, a pipeline or checkpoint, `unet/` or `transformer/`, a LoRA or a folder of one, a hub name.

    base: whose config the denoiser of a checkpoint in one file has.

    Raises:
        InputError: it holds neither, or several LoRA files, or parts of a pipeline that are not the base's.
    """
    name = at_step(name)
    file = Path(name).expanduser()
    if os.path.isfile(file):
        if file.suffix != ".safetensors":
            raise InputError("not a .safetensors file", where=name, remedy="convert it; no other weights are read")
        if is_lora(read_header(file)):
            return Start(str(name), lora=file)
        return Start(str(name), weights=unpacked_part(file, base, part, option="model.init_from"))
    folder = locate_part(name, patterns=("unet/*", "transformer/*", low_rank.FILE))
    for place in (folder / part, folder):
        if (place / "config.json").is_file():
            return Start(str(name), weights=place)
    return Start(str(name), lora=_lora_file(str(name), folder, part))


def _lora_file(name: str, folder: Path, part: str) -> Path:
    """The LoRA of a folder or of a hub repository: the one of diffusers' usual name, else the only .safetensors."""
    if (folder / low_rank.FILE).is_file():
        return folder / low_rank.FILE
    if is_folder(name):
        names = sorted(file.name for file in folder.glob("*.safetensors"))
    else:
        names = [file for file in _hub_files(name) if file.endswith(".safetensors") and "/" not in file]
    if not names:
        remedy = "give the folder of a finished run of the same family, or a LoRA file"
        raise InputError(f"holds neither {part}/ nor {low_rank.FILE} nor another LoRA", where=name, remedy=remedy)
    if len(names) > 1:
        what = f"holds {len(names)} .safetensors files: {', '.join(names[:5])}"
        remedy = "name one of them" if is_folder(name) else "download one of them and name that file"
        raise InputError(what, where=name, remedy=remedy)
    return folder / names[0] if is_folder(name) else locate_part(name, patterns=(names[0],)) / names[0]


def _hub_files(name: str) -> list[str]:
    from huggingface_hub import list_repo_files

    try:
        return list_repo_files(name)
    except (OSError, ValueError) as error:
        raise unreachable(name, error) from None


def full_start(run: str | Path, part: str, base: Source) -> Start | None:
    """The full weights that a run's LoRA lies on, as its configs name them; None for those of the base."""
    found = (find_start(name, part, base) for name in starts(run))
    return next((each for each in found if each.weights is not None), None)


def start_sha256(name: str | Path, part: str, base: Source) -> str:
    """Hash of the weights that `init_from` names: a trained part, or a LoRA and what it lies on.

    Raises:
        InputError: it holds neither.
    """
    found = find_start(name, part, base)
    if found.lora is None:
        assert found.weights is not None
        return sha256_folder(found.weights)
    file, below = sha256_file(found.lora), [*starts(found.name)]
    return hash_config({"lora": file, "below": start_sha256(below[0], part, base)}) if below else file


def check_below(
    run: str | Path, part: str, base: Source, *, start: bool = False, remedy: str = "put it back as it was then"
) -> None:
    """Refuse another base than that of a finished run, and for a LoRA that lies on other full weights, other ones.

    Args:
        start: what the run started from is used itself.

    Raises:
        InputError: their content is another than when the run was made; where they lie does not matter.
    """
    if not is_finished(run):
        return
    check_base(run, base, remedy=remedy)
    below = next(starts(run), None)
    used = start or ((Path(run) / low_rank.FILE).is_file() and full_start(run, part, base) is not None)
    if below is not None and used and start_sha256(below, part, base) != read_run(run).init_sha256:
        raise InputError(f"{below}, which it started from, has changed since it was trained", where=run, remedy=remedy)


def check_start(source: Source, kind: Family, name: str | Path, lora: LoraSettings | None) -> None:
    """Refuse a start that does not fit the base.

    Args:
        lora: what the run trains; None for all weights.

    Raises:
        InputError: a start of another family, for another kind of latents, prompts or prediction, or a file that would
            not be used whole. ConfigError: a LoRA of another rank, alpha or targets than the run asks for.
    """
    found = find_start(name, kind.part, source)
    _check_prediction(source, kind, found)
    if found.weights is not None:
        _check_weights(source, kind, found.weights)
        return
    assert found.lora is not None
    check_below(found.name, kind.part, source, remedy=f"give {found.lora}, to start from it on any base")
    below = full_start(name, kind.part, source)
    if below is not None:
        check_start(source, kind, below.name, lora=None)
    config = None if below is None or below.weights is None else read_object(below.weights / "config.json")
    networks = {kind.part: empty_part(source, kind.part, config)}
    if lora is not None and lora.text_encoder:
        networks |= {name: empty_part(source, name) for name in text_parts(kind, source)}
    for number, (part, held) in enumerate(read_lora(found.lora, networks, pipeline_class(source)).items()):
        if lora is not None and number == 0:  # the others go on as they are in the file
            low_rank.check_asked(networks[part], held, lora_of(part, kind, lora))
        put(networks[part], held, low_rank.POLICY)


def _check_weights(source: Source, kind: Family, place: Path) -> None:
    """Refuse a network that is not of the base's class, sees other latents or prompts, or whose file is another's."""
    file, cls = place / "config.json", part_class(source, kind.part)
    config = read_object(file)
    if config.get("_class_name", cls.__name__) != cls.__name__:
        what = f"a {config['_class_name']}, where the base has a {cls.__name__}"
        raise InputError(what, where=file, remedy=SAME)
    sees = []
    for each in (empty_part(source, kind.part, config), empty_part(source, kind.part)):
        with reading(file, f"a config of a {kind.part} of {kind.name}", remedy=SAME):
            channels = {f"{way}_channels": getattr(each.config, f"{way}_channels", None) for way in ("in", "out")}
            added = {"addition_embed_type": getattr(each.config, "addition_embed_type", None)}
            sees.append({**channels, **added, **kind.shapes(each.config)})
    for name, (theirs, ours) in {key: (sees[0].get(key), sees[1].get(key)) for key in sees[1]}.items():
        if theirs != ours:
            raise InputError(f"its {kind.part} has {name} {theirs}, the base's {ours}", where=file, remedy=SAME)
    check_header(place, cls, None)


def _check_prediction(source: Source, kind: Family, found: Start) -> None:
    """Refuse a start that was trained to predict something else than the base does."""
    theirs = _prediction(source, kind, found)
    ours = kind.path(read_object(source.folder / SCHEDULER)).parametrisation
    if theirs is not None and theirs != ours:
        remedy = "give a base and a start of one kind"
        raise InputError(f"it was trained for {theirs}, the base predicts {ours}", where=found.name, remedy=remedy)


def _prediction(source: Source, kind: Family, found: Start) -> str | None:
    """What a start predicts by its own scheduler, by its run's base or by its header; None where none of them tells."""
    if found.weights is not None and (found.weights.parent / SCHEDULER).is_file():
        return kind.path(read_object(found.weights.parent / SCHEDULER)).parametrisation
    if found.weights is not None and is_file(found.name):
        return marked(read_header(Path(found.name).expanduser()))
    if is_finished(found.name):
        record = read_run(found.name)
        try:
            if is_file(record.base):
                folder = locate(record.base, **said_of(found.name, record.base)).folder
            else:
                folder = locate_part(resolve_base(record.base), patterns=(SCHEDULER,), revision=record.revision)
            return kind.path(read_object(folder / SCHEDULER)).parametrisation
        except InputError:
            say(f"{found.name}: its base {record.base} is out of reach, so what it predicts is not compared")
            return None
    cls = part_class(source, kind.part)
    header = read_header(found.lora) if found.weights is None else part_header(found.weights, cls)  # type: ignore[arg-type]
    word = header.metadata.get(SPEC, "")
    return None if kind.part != "unet" and ("flow" in word or word == "velocity") else said_in(header)
