"""A finished run in the form that another tool loads: diffusers part or LoRA, kohya LoRA, or one whole pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from finepref.core.errors import CheckFailed, InputError, nearest
from finepref.core.files import atomic_file, read_object, reading, write_json
from finepref.core.outfolders import check_folder, whole_folder
from finepref.core.ownership import check_file, own_file
from finepref.formats.folders import EXPORT
from finepref.models import lora
from finepref.models.family import family_of
from finepref.models.load import full_start, load_pipeline, run_model_settings
from finepref.models.source import INDEX, locate, quiet

MADE_BY = "finepref_made_by"
FORMATS = ("diffusers", "kohya", "merged")


def export(
    run: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    format: str,
    revision: str | None = None,
    family: str = "auto",
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a run's trained part for another tool.

    diffusers: folder with `unet/` or `transformer/`, or `pytorch_lora_weights.safetensors`; where the run decodes with
    another VAE, a config.yaml that says which, for `load_pipeline`.
    kohya: one .safetensors with the names, alphas and metadata that WebUI and ComfyUI read (LoRA of SD1.5 and SDXL; for
    the other families these tools read the diffusers file).
    merged: a whole pipeline folder, a LoRA fused into its weights, with the run's own VAE; untouched parts are copied
    from the base, never saved again.

    Args:
        half: float16 weights (merged only).

    Returns:
        the file or folder.

    Raises:
        InputError: unknown format, nothing to export, a LoRA that does not lie on the base itself, or something is at
            `out` already.
        CheckFailed: a kohya file that does not hold every LoRA module with its alpha.
    """
    run, out = Path(run), Path(out)
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}", where="format", remedy=nearest(format, FORMATS))
    inputs = [run, base]
    if format == "kohya":
        out = check_file(out if out.suffix == ".safetensors" else out / f"{run.name}.safetensors", _is_kohya)
        taken = out.exists()
    else:
        place = check_folder(out, EXPORT, inputs=inputs)
        taken = place.exists() and any(place.iterdir())
    if taken and not overwrite:
        raise InputError("something is there already", where=out, remedy="use another name, or --overwrite")
    if half and format != "merged":
        raise InputError(f"half precision has no effect on format {format}", where="half", remedy="drop it")
    source = locate(base, revision=revision)
    kind = family_of(source, family)
    part = kind.part
    has_lora, has_part = (run / lora.FILE).is_file(), (run / part).is_dir()
    if not has_lora and not has_part:
        remedy = "give the folder of a finished run of this base"
        raise InputError(f"holds neither {part}/ nor {lora.FILE}", where=run, remedy=remedy)
    vae = run_model_settings(run).get("vae")
    below = full_start(run, part) if has_lora and format != "merged" else None
    if below is not None:
        what = f"its LoRA lies on the weights of {below}, not on those of the base"
        raise InputError(what, where=run, remedy="use --format merged")
    if format == "diffusers":
        return _diffusers(run, out, part, lora_file=has_lora, vae=vae)
    if format == "kohya":
        if not has_lora:
            raise InputError("the run trained all weights", where=run, remedy="use --format merged")
        if not kind.kohya:
            remedy = "use --format diffusers; WebUI and ComfyUI read that file for this family"
            raise InputError(f"there is no kohya form for {kind.name}", where="format", remedy=remedy)
        return _kohya(run, out, part)
    pipe = load_pipeline(base, run, revision=revision, family=family)
    return _merged(pipe, source.folder, out, part, fuse=has_lora, half=half, vae=vae is not None)


def _diffusers(run: Path, out: Path, part: str, *, lora_file: bool, vae: str | None) -> Path:
    with whole_folder(out, EXPORT) as place:
        if lora_file:
            shutil.copy2(run / lora.FILE, place / lora.FILE)
        else:
            shutil.copytree(run / part, place / part)
        if vae is not None:
            (place / "config.yaml").write_text(yaml.safe_dump({"model": {"vae": vae}}), encoding="utf-8")
    return out


def _kohya(run: Path, out: Path, part: str) -> Path:
    """kohya names (`lora_unet_..._lora_down.weight`) with an alpha per module and `ss_*` metadata."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
    from safetensors.torch import load_file, save_file

    weights, metadata = lora.read(run, part)
    renamed = convert_state_dict_to_kohya({f"{part}.{name}": value for name, value in weights.items()})
    rank, alpha = metadata["r"], metadata["lora_alpha"]
    for name in [name for name in renamed if name.endswith(".alpha")]:
        renamed[name] = torch.tensor(float(alpha))
    about = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(alpha)}
    with own_file(out, _is_kohya), atomic_file(out) as temporary:
        save_file(
            {name: value.contiguous() for name, value in renamed.items()},
            str(temporary),
            metadata={**about, MADE_BY: "finepref", "format": "pt"},
        )
        with reading(temporary, "what was written"):
            written = load_file(str(temporary))
        downs, alphas = (sum(name.endswith(end) for name in written) for end in ("lora_down.weight", ".alpha"))
        if 2 * downs != len(weights) or alphas != downs:
            raise CheckFailed(f"{len(weights)} LoRA weights became {downs} pairs and {alphas} alphas", where=run)
    return out


def _is_kohya(path: Path) -> bool:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get(MADE_BY) == "finepref"


def _merged(pipe: Any, base: Path, out: Path, part: str, *, fuse: bool, half: bool, vae: bool) -> Path:
    """Copy the base, then write the trained denoiser, and a VAE that is not the base's, in place of its own."""
    network = getattr(pipe, part)
    if fuse:
        with quiet():
            pipe.fuse_lora()
            pipe.unload_lora_weights()
    if half:
        network = network.to(torch.float16)
    replaced = {part: network, **({"vae": pipe.vae} if vae else {})}
    pickled, strays = (".bin", ".ckpt", ".msgpack"), (".bin", ".ckpt", ".msgpack", ".safetensors", ".md")

    def left_out(folder: str, names: list[str]) -> list[str]:
        """What is not copied: of the base's own folder what is replaced and stray files, below it pickled ones."""
        if Path(folder) != base:
            return [name for name in names if name.endswith(pickled)]
        return [name for name in names if name in replaced or name.startswith(".") or name.endswith(strays)]

    with whole_folder(out, EXPORT) as place:
        shutil.copytree(base, place, dirs_exist_ok=True, ignore=left_out)
        with quiet():
            for name, module in replaced.items():
                module.save_pretrained(str(place / name), safe_serialization=True)
        if vae:
            write_json(place / INDEX, {**read_object(place / INDEX), "vae": ["diffusers", type(pipe.vae).__name__]})
    return out
