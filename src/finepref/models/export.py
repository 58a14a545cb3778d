"""A finished run in the form that another tool loads: diffusers part or LoRA, LoRA file, or one whole pipeline."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from finepref.core.errors import InputError, check_word
from finepref.core.files import atomic_file, read_object, write_json
from finepref.core.known import refuse_damaged
from finepref.core.outfolders import check_folder, made_as, refuse_changed, whole_folder
from finepref.core.ownership import check_file, own_file
from finepref.core.provenance import hash_config, provenance, sha256_file
from finepref.core.seal import seal
from finepref.formats.folders import EXPORT
from finepref.formats.run import RUN, at_step, is_finished, read_run
from finepref.models import lora, lora_names
from finepref.models.family import Family, family_of
from finepref.models.header import DAMAGED
from finepref.models.load import load_pipeline
from finepref.models.lora_layouts import OLD_CLIP, TEXT
from finepref.models.packed import write_checkpoint
from finepref.models.precision import to_half
from finepref.models.run_folder import inputs_of, run_model_settings, said_of
from finepref.models.source import INDEX, WEIGHTS, Source, empty_part, locate, quiet
from finepref.models.start import check_below, full_start
from finepref.models.variant import is_twin, name_plainly

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
    files = {name: sha256_file(run / name) for name in (RUN, "config.yaml") if (run / name).is_file()}
    made = hash_config({"files": files, "format": format, "half": half})
    out = _place(run, base, Path(out), format, made=made, overwrite=overwrite)
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
        raise InputError(what, where=run, remedy="use --format merged")
    if format == "diffusers":
        return _diffusers(run, out, part, lora_file=has_lora, vae=vae, made=made)
    if format in LORA_FILES:
        if not has_lora:
            raise InputError("the run trained all weights", where=run, remedy="use --format merged")
        return _lora_file(run, out, format, source=source, kind=kind, made=made)
    pipe = load_pipeline(base, run, family=family, **said)
    if has_lora:
        with quiet():
            pipe.fuse_lora()
            pipe.unload_lora_weights()
    if format == "single-file":
        return _single_file(pipe, run, out, half=half, made=made)
    changed = [name for name in lora.parts(run) if name.startswith(TEXT)] if has_lora else []
    changed += ["vae"] if vae is not None else []
    return _merged(pipe, source, out, [part, *changed], half=half, made=made)


def _place(run: Path, base: str | Path, out: Path, format: str, *, made: str, overwrite: bool) -> Path:
    """Where the file or folder is written: taken by nothing, by the same export, or by an older one to overwrite."""
    inputs = [run, base, *inputs_of(run_model_settings(run))]
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
            shutil.copytree(run / part, place / part, ignore=_checked(lambda folder, names: []))
        if vae is not None:
            (place / "config.yaml").write_text(yaml.safe_dump({"model": {"vae": vae}}), encoding="utf-8")
    return out


def _checked(left_out: Callable[[str, list[str]], Iterable[str]]) -> Callable[[str, list[str]], set[str]]:
    """What a copy of a folder leaves out; the rest of it must be files, and folders that end.

    Raises:
        InputError: a link that leads nowhere or to a folder above it, a pipe, a device.
    """

    def left(folder: str, names: list[str]) -> set[str]:
        out = {*left_out(folder, names)}
        for path in (Path(folder) / name for name in names if name not in out):
            if not os.path.exists(path):
                what = "it is a link that leads nowhere"
            elif path.is_dir() and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(path)):
                what = "it is a link to a folder that it lies in itself"
            elif not (path.is_dir() or path.is_file()):
                what = "it is neither a file nor a folder"
            else:
                continue
            raise InputError(what, where=path, remedy="move it away")
        return out

    return left


def _lora_file(run: Path, out: Path, format: str, *, source: Source, kind: Family, made: str) -> Path:
    """A LoRA under another tool's names; for kohya's trainers with their `ss_*` metadata."""
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    for part in lora.parts(run):
        weights, metadata = lora.read(run, part)
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
    metadata = lora.read(run, kind.part)[1]
    about = {} if format != "kohya" else lora_names.about(kind.name, metadata)
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


def _merged(pipe: Any, source: Source, out: Path, changed: Sequence[str], *, half: bool, made: str) -> Path:
    """Copy the base, then write what is not its own in place of it: what the run changed, all networks halved.

    changed: the denoiser, text encoders that were trained, another VAE.
    """
    base = source.folder
    networks = {name: each for name, each in pipe.components.items() if hasattr(each, "state_dict")}
    replaced = {name: each for name, each in networks.items() if half or name in changed}
    for name, network in replaced.items() if half else ():
        for key, tensor in network.state_dict().items():
            to_half(f"{name}.{key}", tensor)
        with quiet():
            network.half()
    pickled, strays = (".bin", ".ckpt", ".msgpack"), (".bin", ".ckpt", ".msgpack", ".safetensors", ".md", ".sha256")

    def left_out(folder: str, names: list[str]) -> list[str]:
        """What is not copied: of the base's own folder what is replaced and stray files, below it pickled ones."""
        if Path(folder) != base:
            return [name for name in names if name.endswith(pickled) or is_twin(name, names, source.variant)]
        return [name for name in names if name in replaced or name.startswith(".") or name.endswith(strays)]

    with whole_folder(out, EXPORT, fingerprint=made) as place:
        shutil.copytree(base, place, dirs_exist_ok=True, ignore=_checked(left_out))
        name_plainly(place, source.variant)
        with quiet():
            for name, module in replaced.items():
                module.save_pretrained(str(place / name), safe_serialization=True)
                if name not in changed:  # its config names the type that it is used in
                    shutil.copyfile(base / name / "config.json", place / name / "config.json")
        if "vae" in changed:
            write_json(place / INDEX, {**read_object(place / INDEX), "vae": ["diffusers", type(pipe.vae).__name__]})
    return out
