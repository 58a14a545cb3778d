"""Once from an official file to a safetensors folder: transformers' names, the saved precision, provenance."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel

from finepref.core.errors import InputError
from finepref.core.files import atomic_folder, write_json
from finepref.core.provenance import provenance, sha256_file
from finepref.evaluate.scorers import blip, clip
from finepref.evaluate.scorers import tokenizer as text
from finepref.evaluate.scorers.heads import LinearHead
from finepref.evaluate.scorers.kinds import SCORERS, ScorerRow
from finepref.evaluate.scorers.weights import PROVENANCE_NAME, check_state, read_state, weight_files, weights_id

HEAD_WIDTH = 768


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
        for found in (by_hash, by_name):
            if found:
                return found[0]
        raise InputError("cannot tell which scorer this is", where=file, remedy="add --scorer " + "|".join(convertible))
    if scorer not in convertible:
        raise InputError(f"{scorer!r} has no official file to convert", remedy="use one of " + ", ".join(convertible))
    if by_hash and by_hash[0].name != scorer:
        raise InputError(f"this is the official file of {by_hash[0].name}, not of {scorer}", where=file)
    return SCORERS[scorer]


def _mapped(kind: ScorerRow, state: Mapping[str, Tensor], where: Path) -> tuple[dict[str, Tensor], nn.Module]:
    """The state in its final names, checked against the network it is for (on the meta device)."""
    with torch.device("meta"):
        if kind.family == "clip":
            assert kind.shape is not None
            network: nn.Module = CLIPModel(clip.clip_config(clip.SHAPES[kind.shape]))
            mapped = clip.transformers_state(state)
        elif kind.family == "imagereward":
            network = blip.RewardNetwork(blip.IMAGEREWARD)
            mapped = blip.from_imagereward(state) if blip.is_imagereward(state) else dict(state)
        else:
            network, mapped = LinearHead(HEAD_WIDTH), dict(state)
    check_state(network, mapped, where=where)
    return mapped, network


def _dropped(kind: ScorerRow, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    unused = blip.UNUSED if kind.family == "imagereward" else ()
    endings = clip.NOT_WEIGHTS
    return tuple(n for n in state if n.rsplit(".", 1)[-1] in endings or (unused and n.startswith(unused)))


def _copy_vocabulary(kind: ScorerRow, source: Path, target: Path) -> None:
    if kind.family == "aesthetic":
        raise InputError("the aesthetic scorer reads no prompts", where=source, remedy="leave out --vocabulary")
    if source.is_file():
        names = [source.name]
        folder = source.parent
    else:
        candidates = (text.BERT_NAME,) if kind.family == "imagereward" else (*text.CLIP_NAMES, text.BPE_NAME)
        names, folder = [name for name in candidates if (source / name).is_file()], source
    if kind.family == "imagereward":
        text.bert_text(source)
    else:
        text.clip_text(source, cleaned=kind.cleaned)
    for name in names:
        shutil.copyfile(folder / name, target / name)


def convert(
    file: str | Path,
    *,
    out: str | Path,
    scorer: str | None = None,
    vocabulary: str | Path | None = None,
    overwrite: bool = False,
) -> Converted:
    """Convert an official weights file to a folder that `NAME@FOLDER` loads, after checking every name and shape.

    The folder holds model.safetensors in the saved precision (scoring is float32 all the same), for CLIPs the
    config.json with which transformers loads it, the vocabulary if one is given, and `finepref_scorer.json`.

    Args:
        file: official file (.pt, .pth, .bin, .safetensors) or a transformers folder.
        out: folder to write.
        scorer: its name; may be left out where the file's hash or official name tells it.
        vocabulary: tokenizer folder or file to copy in, so that the folder needs no hub.
        overwrite: replace `out`.

    Raises:
        InputError: unsafe, damaged or foreign file, unknown scorer, or `out` is there.
    """
    file, out = Path(file), Path(out)
    if out.exists() and not overwrite:
        raise InputError("is already there", where=out, remedy="choose another --out or add --overwrite")
    sources = weight_files(file)
    digest = weights_id(file)
    kind = recognise(file, digest, scorer)
    state = read_state(file)
    mapped, network = _mapped(kind, state, file)
    dropped = _dropped(kind, state)
    with atomic_folder(out) as folder:
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
