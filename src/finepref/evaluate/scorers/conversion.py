"""Once from an official file to a safetensors folder: transformers' names, the saved precision, provenance."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPModel

from finepref.core.errors import InputError
from finepref.core.files import write_json
from finepref.core.outfolders import check_folder, whole_folder
from finepref.core.provenance import provenance, sha256_file
from finepref.evaluate.scorers.families import FAMILIES
from finepref.evaluate.scorers.scorer_rows import SCORERS, ScorerRow
from finepref.evaluate.scorers.weights import PROVENANCE_NAME, check_state, read_state, weight_files, weights_id
from finepref.formats.folders import SCORER


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion wrote: folder, scorer, tensors written, scalars in them, names that were left out."""

    folder: Path
    scorer: str
    tensors: int
    parameters: int
    dropped: tuple[str, ...]


def recognise(file: Path, digest: str, scorer: str | None) -> ScorerRow:
    """The scorer of an official file: as told, else by its SHA-256, else by its exact official name.

    Raises:
        InputError: nothing tells it, or the file is known to be another scorer's than the one told.
    """
    by_hash = [kind for kind in SCORERS.values() if kind.official[1] == digest]
    by_name = [kind for kind in SCORERS.values() if kind.official[0] and kind.official[0] == file.name]
    convertible = [kind.name for kind in SCORERS.values() if kind.weights is not None]
    if scorer is None:
        if by_hash or by_name:
            return (by_hash or by_name)[0]
        raise InputError("cannot tell which scorer this is", where=file, remedy="add --scorer " + "|".join(convertible))
    if scorer not in convertible:
        raise InputError(f"{scorer!r} has no official file to convert", remedy="use one of " + ", ".join(convertible))
    if by_hash and by_hash[0].name != scorer:
        raise InputError(f"this is the official file of {by_hash[0].name}, not of {scorer}", where=file)
    return SCORERS[scorer]


def _copy_vocabulary(kind: ScorerRow, source: Path, target: Path) -> None:
    family = FAMILIES[str(kind.family)]
    if not family.vocabulary:
        raise InputError(f"the {kind.name} scorer reads no prompts", where=source, remedy="leave out --vocabulary")
    files = [source] if source.is_file() else [source / name for names in family.vocabulary for name in names]
    family.text(source, kind)
    for file in files:
        if file.is_file():
            shutil.copyfile(file, target / file.name)


def convert(
    file: str | Path,
    *,
    out: str | Path | None = None,
    scorer: str | None = None,
    vocabulary: str | Path | None = None,
    overwrite: bool = False,
) -> Converted:
    """Convert an official weights file to a folder that `NAME@FOLDER` loads, after checking every name and shape.

    The folder holds model.safetensors in the saved precision (scoring is float32 all the same), for CLIPs the
    config.json with which transformers loads it, the vocabulary if one is given, and `finepref_scorer.json`.

    Args:
        file: official file (.pt, .pth, .bin, .safetensors) or a transformers folder.
        out: folder to write; ./NAME of the scorer by default.
        scorer: its name; may be left out where the file's hash or official name tells it.
        vocabulary: tokenizer folder or file to copy in, so that the folder needs no hub.
        overwrite: replace `out`.

    Raises:
        InputError: unsafe, damaged or foreign file, unknown scorer, or `out` is there.
    """
    file, inputs = Path(file), [file, *([] if vocabulary is None else [vocabulary])]
    if out is not None:
        check_folder(out, SCORER, inputs=inputs)
    sources, digest = weight_files(file), weights_id(file)
    kind = recognise(file, digest, scorer)
    out = Path(kind.name if out is None else out)
    if out.exists() and any(check_folder(out, SCORER, inputs=inputs).iterdir()) and not overwrite:
        raise InputError("is already there", where=out, remedy="choose another --out or add --overwrite")
    state = read_state(file)
    family = FAMILIES[str(kind.family)]
    with torch.device("meta"):
        network = family.network(kind, None)
    mapped = family.mapped(state)
    check_state(network, mapped, where=file)
    dropped = tuple(name for name, tensor in state.items() if not family.mapped({name: tensor}))
    with whole_folder(out, SCORER, inputs=inputs, fingerprint=digest) as folder:
        weights = folder / "model.safetensors"
        save_file({name: t.clone().contiguous() for name, t in mapped.items()}, weights, metadata={"format": "pt"})
        if isinstance(network, CLIPModel):
            network.config.architectures = ["CLIPModel"]
            network.config.save_pretrained(folder)
        if vocabulary is not None:
            _copy_vocabulary(kind, Path(vocabulary), folder)
        record = {
            "scorer": kind.name,
            "source_name": file.name,
            "source_sha256": digest,
            "file_sha256": sha256_file(weights),
            "dtypes": sorted({str(t.dtype) for t in mapped.values()}),
            "tensors_read": len(state),
            "tensors_written": len(mapped),
            "dropped": list(dropped),
            **provenance(inputs=sources),
        }
        write_json(folder / PROVENANCE_NAME, record)
    return Converted(out, kind.name, len(mapped), sum(t.numel() for t in mapped.values()), dropped)
