"""A run as others get it: weights in the chosen formats, a model card, pictures; in a folder, or on the hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from finepref.core.errors import InputError, check_word
from finepref.core.outfolders import MARKER, check_folder, whole_folder
from finepref.core.rows import BASES
from finepref.evaluate.named_models import as_source
from finepref.formats.folders import PUBLISHED
from finepref.formats.manifest import LINES, read_manifest
from finepref.formats.records import read_yaml
from finepref.formats.run import at_step, home_of, is_finished, is_the_base, read_run
from finepref.models import lora
from finepref.models.export import FORMATS, export
from finepref.report.model_card import check_licence, write_card

SUFFIX = ".safetensors"


def publish(
    run: str | Path, *,
    repository: str | None, folder: str | Path | None, formats: Sequence[str], licence: str | None,
    evaluation: str | Path | None, private: bool = False, half: bool = False, overwrite: bool = False,
) -> str:  # fmt: skip
    """Write a run with its card into a folder, or upload it; the folder, or the address on the hub.

    Args:
        repository: NAME or OWNER/NAME on the hub; the title of the card. folder: where it is written, and nothing is
            uploaded then. formats: of `export`; none: a LoRA for diffusers and ComfyUI, else a whole pipeline.
        licence: of the card; None for that of a known base. evaluation: pictures of the run and of others, with their
            comparison; None for `eval` beside the run, where it is there and of this run. overwrite: replace what was
            published into `folder` before.

    Raises:
        InputError: no finished run, or one that left the base as it was; an unknown format or licence, neither folder
            nor name, pictures of other runs.
    """
    place = Path(at_step(run))
    if not is_finished(place):
        inside = is_finished(place / "run")
        remedy = f"did you mean {run}/run?" if inside else "finish it with `finepref train --resume`"
        raise InputError("no finished run", where=run, remedy=remedy)
    if repository is None and folder is None:
        raise InputError("nowhere to put it", where="publish", remedy="give --repo NAME, or --to FOLDER")
    record, config = read_run(place), read_yaml(place / "config.yaml", remedy="give a run that is whole")
    if is_the_base(place):
        what = "it left the base as it was, so there is no other model to publish"
        raise InputError(what, where=run, remedy="name another step, as RUN@STEP, or train on more pairs")
    has_lora = (place / lora.FILE).is_file()
    apart = has_lora and record.base not in BASES  # diffusers can load the base by its name
    chosen = list(formats) or (["diffusers", "comfyui"] if apart else ["merged"])
    for each in chosen:
        check_word(each, FORMATS, "format", where="--format")
    if "merged" in chosen and len(chosen) > 1:
        raise InputError("a whole pipeline stands alone in a folder", where="--format", remedy="name merged alone")
    title, known = repository or Path(str(folder)).resolve().name, check_licence(licence, record.base)
    seen = home_of(place)[0].parent / "eval" if evaluation is None else Path(evaluation)
    if evaluation is not None and not seen.is_dir():
        raise InputError("no such folder", where=evaluation, remedy="give what `finepref generate` wrote")
    model = _shown(place, seen) if (seen / LINES).is_file() else None
    if evaluation is not None and model is None:
        remedy = "give what `finepref generate --model NAME=RUN` wrote for this run"
        raise InputError(f"none of its pictures is of {run}", where=evaluation, remedy=remedy)
    if folder is not None and (Path(folder) / MARKER).is_file() and not overwrite:
        raise InputError("it holds a publication", where=folder, remedy="name another folder, or --overwrite it")
    with TemporaryDirectory() as own:
        target = Path(own) / "published" if folder is None else check_folder(folder, PUBLISHED, inputs=[place])
        with whole_folder(target, PUBLISHED) as made:
            _weights(place, made, chosen, half=half)
            code, also = _loading(record.base, title, chosen)
            write_card(
                place, made, title=title, licence=known, code=code, also=also, config=config,
                evaluation=None if model is None else seen, model=model or "",
            )  # fmt: skip
        return str(folder) if folder is not None else _upload(target, str(repository), private=private)


def _shown(run: Path, evaluation: Path) -> str | None:
    """What the run is called in a folder of pictures, by its weights; None where it is not there."""
    own = as_source(run).fingerprint
    models = read_manifest(evaluation).about.models
    return next((name for name, about in models.items() if about.fingerprint == own), None)


def _weights(run: Path, out: Path, formats: Sequence[str], *, half: bool) -> None:
    """The exports, one beside the other; what is there of finepref itself is left out."""
    for name in formats:
        with TemporaryDirectory() as own:
            whole = name in ("merged", "single-file")
            made = export(run, None, Path(own) / "out", format=name, half=half and whole)
            if made.is_file():
                shutil.copy2(made, out / f"{name}{SUFFIX}")
                continue
            for path in made.iterdir():
                if path.name != MARKER:
                    (shutil.copytree if path.is_dir() else shutil.copy2)(path, out / path.name)


def _loading(base: str, where: str, formats: Sequence[str]) -> tuple[str, list[str]]:
    """(python that loads it, how other tools do)."""
    head = "from diffusers import DiffusionPipeline\n\n"
    code = ""
    if "merged" in formats:
        code = f'{head}pipe = DiffusionPipeline.from_pretrained("{where}")'
    elif "diffusers" in formats:
        code = f'{head}pipe = DiffusionPipeline.from_pretrained("{base}")\npipe.load_lora_weights("{where}")'
    tools = {
        "comfyui": "ComfyUI: put comfyui.safetensors into models/loras.",
        "kohya": "kohya's trainers and WebUI: kohya.safetensors is the LoRA.",
        "single-file": "ComfyUI and WebUI: single-file.safetensors is a whole checkpoint.",
    }
    also = [tools[name] for name in formats if name in tools]
    return code or "# no format of diffusers was published", also


def _upload(folder: Path, repository: str, *, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=str(folder), commit_message="Published by finepref")
    except (HfHubHTTPError, OSError) as error:
        what = f"the hub did not take it ({str(error).splitlines()[0]})"
        raise InputError(what, where=repository, remedy="log in with `hf auth login`, or use --to FOLDER") from None
    return str(made)
