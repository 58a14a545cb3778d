"""A finished run in the form that another tool loads: diffusers part or LoRA, LoRA file, or one whole pipeline."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from finepref.core.errors import InputError, check_word
from finepref.core.files import atomic_file
from finepref.core.known import refuse_damaged
from finepref.core.outfolders import check_folder, made_as, refuse_changed, whole_folder
from finepref.core.ownership import check_file, own_file
from finepref.core.provenance import hash_config, provenance, sha256_file, sha256_folder
from finepref.core.seal import seal
from finepref.formats.folders import EXPORT
from finepref.formats.run import RUN, at_step, is_finished, read_run
from finepref.models import lora, lora_names
from finepref.models.family import Family, family_of
from finepref.models.header import DAMAGED
from finepref.models.load import load_pipeline
from finepref.models.lora_layouts import OLD_CLIP, TEXT
from finepref.models.merged import checked, write_merged
from finepref.models.negative_network import negative_part
from finepref.models.packed import write_checkpoint
from finepref.models.run_folder import inputs_of, run_model_settings, said_of, say_unless_losers
from finepref.models.source import INDEX, WEIGHTS, Source, empty_part, locate, quiet
from finepref.models.start import check_below, full_start

MADE_BY = "finepref_made_by"
MADE_OF = "finepref_made_of"  # by which the same export knows its own result again
LORA_FILES = tuple(lora_names.TOOLS)
FORMATS = ("diffusers", *LORA_FILES, "merged", "single-file")


def export(
    run: str | Path,
    base: str | Path | None,
    out: str | Path,
    *,
    format: str,
    family: str = "auto",
    half: bool = False,
    negative: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a run's trained part for another tool.

    diffusers: folder with `unet/` or `transformer/`, or `pytorch_lora_weights.safetensors`; where the run decodes with
    another VAE, a config.yaml that says which, for `load_pipeline`.
    kohya, comfyui: a LoRA in one .safetensors under the names that these tools read (`models.lora_names`), with an
    alpha for every module.
    single-file: one .safetensors with the whole pipeline in the original layout of its family, a LoRA fused.
    merged: a whole pipeline folder, a LoRA fused into its weights, with the run's own VAE; untouched parts are copied
    from the base, never saved again.

    Args:
        base: None for that of the run; one that moved may be named, but no other.
        half: float16 weights, of all networks (merged and single-file).
        negative: a run of the same base, trained on losers, that guidance leads away from (merged); the folder then
            holds both networks, and a pipeline.py for diffusers (`models.guided_pipelines`).

    Returns:
        the file or folder.

    Raises:
        InputError: unknown format, nothing to export, a LoRA that does not lie on the base itself, a family or a module
            that the tool has no name for, or something is at `out` already. The base is not that of the run, or
            what is there of either was damaged.
    """
    run = Path(at_step(run))
    check_word(format, FORMATS, "format", where="format")
    if not os.path.isdir(run):
        raise InputError("no such run", where=run, remedy="give the folder of a finished run, or RUN@STEP")
    if base is None and not is_finished(run):
        what = f"it holds no {RUN}, as a finished run does, so no base model is known"
        raise InputError(what, where=run, remedy="give a finished run or a checkpoint as RUN@STEP, or name the --base")
    base = read_run(run).base if base is None else base
    refuse_changed(run, remedy=DAMAGED)
    away = None if negative is None else _negative(negative, run, format)
    made = hash_config({"files": _described(run), "format": format, "half": half, **_beside(away)})
    read = [run, base, *filter(None, [away])]
    out = _place(run, read, Path(out), format, made=made, overwrite=overwrite)
    whole = format in ("merged", "single-file")
    if half and not whole:
        raise InputError(f"half precision has no effect on format {format}", where="half", remedy="drop it")
    said = said_of(run, base)
    source = locate(base, **said)
    kind = family_of(source, family)
    part = kind.part
    check_below(run, part, source, remedy="give the base that it was trained on, as it was then")
    has_lora, has_part = (run / lora.FILE).is_file(), (run / part).is_dir()
    if not has_lora and not has_part:
        remedy = "give the folder of a finished run of this base"
        raise InputError(f"holds neither {part}/ nor {lora.FILE}", where=run, remedy=remedy)
    vae = run_model_settings(run).get("vae")
    below = full_start(run, part, source) if has_lora and not whole else None
    if below is not None:
        what = f"its LoRA lies on the weights of {below.name}, not on those of the base"
        raise InputError(what, where=run, remedy="use --format merged, or single-file for other programs")
    if format == "diffusers":
        return _diffusers(run, out, part, lora_file=has_lora, vae=vae, made=made)
    if format in LORA_FILES:
        if not has_lora:
            raise InputError(
                "the run trained all weights",
                where=run,
                remedy="use --format merged, or single-file for other programs",
            )
        return _lora_file(run, out, format, source=source, kind=kind, made=made)
    pipe = load_pipeline(base, run, family=family, **said)
    second = None if away is None else _second(pipe, base, away, family)
    if has_lora:
        _fuse(pipe)
    if format == "single-file":
        return _single_file(pipe, run, out, half=half, made=made)
    changed = [name for name in lora.parts(run) if name.startswith(TEXT)] if has_lora else []
    changed += ["vae"] if vae is not None else []
    return write_merged(pipe, source, out, [part, *changed], half=half, made=made, second=second)


def _described(run: Path | None) -> dict[str, str]:
    """Hashes of the files that say what a run is."""
    files = [] if run is None else [run / name for name in (RUN, "config.yaml")]
    known = {file.name: sha256_file(file) for file in files if file.is_file()}
    return known if known or run is None else {"folder": sha256_folder(run)}


def _beside(run: Path | None) -> dict[str, Any]:
    return {} if run is None else {"negative": _described(run)}


def _negative(run: str | Path, model: Path, format: str) -> Path:
    """The folder of the run that guidance leads away from."""
    if format != "merged":
        raise InputError(f"a second network has no effect on format {format}", where="negative", remedy="drop it")
    found = Path(at_step(run))
    if not os.path.isdir(found):
        raise InputError("no such run", where=found, remedy="give the folder of a run with signal.swap, or RUN@STEP")
    if os.path.realpath(found) == os.path.realpath(model):
        what = "it is the run itself, whose guidance it would not change"
        raise InputError(what, where="negative", remedy="give a run with signal.swap, or leave it out")
    if (found / INDEX).is_file():
        what = "it is a whole pipeline, of which nobody knows the base"
        raise InputError(what, where=found, remedy="give the run that it was made of")
    refuse_changed(found, remedy=DAMAGED)
    say_unless_losers(found)
    return found


def _second(pipe: Any, base: str | Path, run: Path, family: str) -> dict[str, Any]:
    """The denoiser of a second run by its name in the pipeline, its LoRA fused."""
    other = load_pipeline(base, run, family=family, **said_of(run, base))
    part = negative_part(pipe, other)
    if (run / lora.FILE).is_file():
        _fuse(other)
    return {f"negative_{part}": getattr(other, part)}


def _fuse(pipe: Any) -> None:
    with quiet():
        pipe.fuse_lora()
        pipe.unload_lora_weights()


def _place(run: Path, read: Sequence[str | Path], out: Path, format: str, *, made: str, overwrite: bool) -> Path:
    """Where the file or folder is written: taken by nothing, by the same export, or by an older one to overwrite."""
    inputs = [*read, *inputs_of(run_model_settings(run))]
    file, ending = format in (*LORA_FILES, "single-file"), out.suffix.lower()
    if ending in WEIGHTS and not out.is_dir() and (not file or out.suffix != ".safetensors"):
        what = f"format {format} is {'one .safetensors file' if file else 'a folder'}, and this is the name of another"
        raise InputError(what, where=out, remedy="name a folder" + (", or a file NAME.safetensors" if file else ""))
    if file:
        named = out if out.suffix == ".safetensors" else out / f"{run.name}.safetensors"
        out = check_file(named, _is_ours, inputs=inputs)
        taken = out.exists() and _header(out).get(MADE_OF) != made
    else:
        place = check_folder(out, EXPORT, inputs=inputs)
        taken = place.exists() and any(place.iterdir()) and made_as(place) != made
    if taken and not overwrite:
        raise InputError("something is there already", where=out, remedy="use another name, or --overwrite")
    return out


def _single_file(pipe: Any, run: Path, out: Path, *, half: bool, made: str) -> Path:
    """The pipeline in one file, with what made it in the header; names of files go without their folders."""
    known = provenance(inputs=[run / RUN, run / "config.yaml"])
    about = {name: known[name] for name in ("created", "versions")}
    about["inputs"] = {Path(name).name: value for name, value in known["inputs"].items()}
    with own_file(out, _is_ours), atomic_file(out) as temporary:
        own = {MADE_BY: "finepref", MADE_OF: made, "finepref": json.dumps(about)}
        write_checkpoint(pipe, temporary, half=half, metadata=own)
        seal(temporary)
    return out


def _diffusers(run: Path, out: Path, part: str, *, lora_file: bool, vae: str | None, made: str) -> Path:
    with whole_folder(out, EXPORT, fingerprint=made) as place:
        if lora_file:
            refuse_damaged(run / lora.FILE, remedy=DAMAGED)
            shutil.copy2(run / lora.FILE, place / lora.FILE)
        else:
            shutil.copytree(run / part, place / part, ignore=checked(lambda folder, names: []))
        if vae is not None:
            (place / "config.yaml").write_text(yaml.safe_dump({"model": {"vae": vae}}), encoding="utf-8")
    return out


def _lora_file(run: Path, out: Path, format: str, *, source: Source, kind: Family, made: str) -> Path:
    """A LoRA under another tool's names; for kohya's trainers with their `ss_*` metadata."""
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    of_part = {part: lora.read(run, part) for part in lora.parts(run)}
    for part, (weights, metadata) in of_part.items():
        found = lora_names.pairs(weights, metadata, tool=lora_names.TOOLS[format])
        network = empty_part(source, part)
        modules = dict(network.named_modules())
        for name, pair in found.items():
            module = modules.get(name) or modules.get(name.removeprefix(OLD_CLIP))
            held = getattr(module, "weight", None)
            if held is None or (held.shape[0], held.shape[1]) != (pair.up.shape[0], pair.down.shape[1]):
                what = f"its module {name} does not fit the {part} of {source.name}"
                raise InputError(what, where=run, remedy="give the base of the run")
        if part == kind.part:
            tensors |= lora_names.named(format, kind.name, found, network)
        else:
            tensors |= lora_names.of_text(kind.name, part, found)
    denoiser = of_part[kind.part][1] if kind.part in of_part else {}
    about = {} if format != "kohya" else lora_names.about(kind.name, denoiser)
    with own_file(out, _is_ours), atomic_file(out) as temporary:
        save_file(tensors, str(temporary), metadata={**about, MADE_BY: "finepref", MADE_OF: made, "format": "pt"})
        seal(temporary)
    return out


def _is_ours(path: Path) -> bool:
    return _header(path).get(MADE_BY) == "finepref"


def _header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}
