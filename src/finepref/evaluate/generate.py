"""Images of models x prompts x seeds, with equal initial noise at equal prompt row and seed; resumable."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from finepref.core.device import Precision, default_device, device_name, free_memory
from finepref.core.errors import InputError, check_word
from finepref.core.files import atomic_file
from finepref.core.outfolders import check_folder, own_folder
from finepref.core.progress import progress, say
from finepref.core.provenance import provenance, sha256_bytes, sha256_file
from finepref.data.prompt_sets import load_prompt_set
from finepref.evaluate.named_models import NamedModel, as_source
from finepref.evaluate.sampling import SCHEDULERS, Control, Noise, Refiner, Sampler, Sampling, prepare, scheduler_class
from finepref.formats import manifest
from finepref.formats.folders import EVALUATION
from finepref.formats.manifest import FolderRecord, ImageRow, Key, Manifest, ModelRecord, PromptsRecord
from finepref.formats.prompts import PromptSet, as_prompt_set, prompt_sha256

if TYPE_CHECKING:
    from finepref.models.quantized import Quantization

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]*")


def generate(
    models: Mapping[str, NamedModel | str | Path | Any],
    prompts: PromptSet | str | Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    steps: int = 50,
    guidance: float = 7.5,
    scheduler: str | None = None,
    size: tuple[int, int] | None = None,
    negative_prompt: str | None = None,
    noise: Noise = "per-prompt",
    control: Control | None = None,
    refiner: Refiner | None = None,
    precision: Precision = "no",
    quantize: Quantization | None = None,
    negative: NamedModel | str | Path | None = None,
    offload: bool = False,
    batch_size: int = 8,
    protocol: str | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Generate every model x prompt x seed that is not there yet, and list it in `out/manifest.jsonl`.

    Args:
        models: name -> run folder, diffusers folder, hub name, a loaded diffusers pipeline, or a `NamedModel`.
        prompts: texts; a prompt file, or a set by name (`lab-eval`, `papv2`).
        seeds: distinct integers; an image's noise is a function of (prompt row, seed).
        out: folder; images go to `out/images/<model>/<set>/<row>_s<seed>.png`.
        steps, guidance, scheduler, size, negative_prompt, noise, control, refiner, precision, quantize: see `Sampling`.
        negative: the model, trained on losers, that all others are guided away from (Diffusion-NPO); as in `models`.
        offload: keep only the network at work on the accelerator; slower, in less memory, the same images.
        batch_size: images per pipeline call, >= 1; does not change the noise.
        protocol: name of the protocol these settings come from, for the record.
        overwrite: generate again what is there with other settings, instead of refusing.

    Returns:
        The images and what they were made with, as they are in the folder.

    Raises:
        InputError: an unusable name or setting, or the folder holds images of these names made in another way.
    """
    check_loading(models, precision, quantize, offload=offload)
    if negative is not None and offload:
        raise InputError("two networks work at once", where="negative", remedy="leave offload out")
    read = [each for each in (*models.values(), prompts, negative) if isinstance(each, str | Path)]
    check_folder(out, EVALUATION, inputs=[*read, *([] if control is None else [control.maps])])
    prompt_set = load_prompt_set(prompts) if isinstance(prompts, str) else as_prompt_set(prompts)
    if isinstance(negative, str | Path):
        from finepref.models.run_folder import say_unless_losers

        say_unless_losers(negative)
    away = None if negative is None else as_source(negative)
    sampling = Sampling(
        steps, guidance, scheduler, size, negative_prompt, noise, control, refiner, precision, quantize, away
    )
    sources = {name: as_source(model) for name, model in models.items()}
    _check(sources, prompt_set, seeds, batch_size)
    if scheduler is not None and scheduler not in SCHEDULERS:
        scheduler_class(scheduler)
    with own_folder(out, EVALUATION) as folder:
        is_there = (folder / manifest.LINES).is_file()
        rows = {row.key: row for row in manifest.read_rows(folder, partial=True)} if is_there else {}
        record = _merged_record(folder, sources, prompt_set, sampling, rows, overwrite=overwrite)
        slots = dict.fromkeys((f"{name}/{prompt_set.name}" for name in sources if protocol), protocol or "")
        record = replace(record, protocols={**record.protocols, **slots})
        wanted = [(row, seed) for row in range(len(prompt_set)) for seed in seeds]
        todo = (sources, prompt_set, sampling, rows, record, wanted)
        return _fill(folder, *todo, batch_size=batch_size, offload=offload)


def _fill(
    out: Path,
    sources: Mapping[str, NamedModel],
    prompt_set: PromptSet,
    sampling: Sampling,
    rows: dict[Key, ImageRow],
    record: FolderRecord,
    wanted: Sequence[tuple[int, int]],
    *,
    batch_size: int,
    offload: bool,
) -> Manifest:
    """Make what is missing of every model, one after the other. Nothing is written before the first is loaded."""
    place = default_device()
    for name, source in sources.items():
        missing = [key for key in wanted if not _finished(out, rows.get((name, prompt_set.name, *key)))]
        if not missing:
            say(f"{name}: all {len(wanted)} images are there")
            continue
        for key in missing:
            rows.pop((name, prompt_set.name, *key), None)
        started = time.perf_counter()
        batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        sampler = prepare(sampling.load(source, "cpu" if offload else place), sampling, offload=offload)
        manifest.write_rows(out, rows.values())
        manifest.write_record(out, record)
        for batch in progress(batches, f"images of {name}", unit="batch"):
            done = _sample(sampler, name, prompt_set, batch, out)
            manifest.append_rows(out, done)
            rows.update({row.key: row for row in done})
        del sampler  # before the next model is loaded
        free_memory()
        about = record.models[name]
        seconds = round(about.seconds + time.perf_counter() - started, 2)
        about = replace(about, seconds=seconds, device=device_name(place))
        record = replace(record, models={**record.models, name: about})
    ordered = sorted(rows.values(), key=lambda row: (row.prompt_set, row.prompt_index, row.seed))
    manifest.write_rows(out, ordered)
    manifest.write_record(out, record)
    return Manifest(tuple(ordered), record)


def _check(sources: Mapping[str, NamedModel], prompts: PromptSet, seeds: Sequence[int], batch_size: int) -> None:
    if not sources:
        raise InputError("no model", where="models", remedy="give at least one NAME=PATH")
    for name in (*sources, prompts.name):
        if not NAME.fullmatch(name):
            remedy = "use letters, digits, dot, _, +, @ and -"
            raise InputError(f"{name!r} cannot be a folder name", where="names", remedy=remedy)
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds {list(seeds)}", where="seeds", remedy="give at least one, each once")
    if batch_size < 1:
        raise InputError(f"a batch of {batch_size}", where="batch size", remedy="use at least 1")


def check_loading(models: Mapping[str, Any], precision: str, quantize: str | None, *, offload: bool) -> None:
    """Refuse what this machine cannot do, offloading without effect, and any of it for pipelines that are loaded."""
    from finepref.models.quantized import check_quantization

    check_word(precision, get_args(Precision), "precision", where="precision")
    check_quantization(quantize, default_device(), where="quantize")
    if offload and default_device() == "cpu":
        what = "it has no effect: this machine's networks are on the CPU anyway"
        raise InputError(what, where="offload", remedy="leave it out")
    loaded = [name for name, model in models.items() if not isinstance(model, NamedModel | str | Path)]
    if loaded and (offload or quantize or precision != "no"):
        what = f"'{loaded[0]}' is loaded already, in its own precision and place"
        raise InputError(what, where="models", remedy="give its path, or load it so and leave the option out")


def _merged_record(
    out: Path,
    sources: Mapping[str, NamedModel],
    prompts: PromptSet,
    sampling: Sampling,
    rows: dict[Key, ImageRow],
    *,
    overwrite: bool,
) -> FolderRecord:
    """The folder's record with these models; images made in another way are refused, or forgotten to be made again."""
    record = manifest.read_record(out)
    models, settings = dict(record.models), dict(record.sampling)
    now = sampling.record(len(prompts))
    for name, source in sources.items():
        slot, known = f"{name}/{prompts.name}", models.get(name)
        have = [row for row in rows.values() if row.model == name]
        here = [row for row in have if row.prompt_set == prompts.name]
        changed = bool(here) and (settings.get(slot) != now or not all(_same(row, prompts) for row in here))
        if changed or (have and (known is None or known.fingerprint != source.fingerprint)):
            if not overwrite:
                what = f"it holds images of '{name}' made with other weights, settings or prompts"
                remedy = "write to another folder, or start again with --overwrite"
                raise InputError(what, where=out, remedy=remedy)
            for row in have:
                del rows[row.key]
            have = []
        spent = (known.seconds, known.device) if have and known is not None else ()
        models[name] = ModelRecord(source.origin, source.fingerprint, source.rewards, source.pipeline, *spent)
        settings[slot] = now
    sets = {**record.prompt_sets, prompts.name: PromptsRecord(prompts.sha256, len(prompts))}
    made = provenance(config={"sampling": now})
    return replace(record, models=models, sampling=settings, prompt_sets=sets, provenance=made)


def _same(row: ImageRow, prompts: PromptSet) -> bool:
    """Whether a listed row is still that prompt, as far as the set has it (it may have grown or been cut)."""
    return row.prompt_index >= len(prompts) or row.prompt == prompts.prompts[row.prompt_index]


def _finished(out: Path, row: ImageRow | None) -> bool:
    return row is not None and (out / row.path).is_file() and sha256_file(out / row.path) == row.image_sha256


def _sample(
    sampler: Sampler, name: str, prompts: PromptSet, batch: Sequence[tuple[int, int]], out: Path
) -> list[ImageRow]:
    """The images of these (prompt row, seed), written below `out`."""
    found, sampling = [], sampler.sampling
    images = sampler.sample([prompts.prompts[row] for row, _ in batch], batch)
    for (row, seed), image in zip(batch, images, strict=True):
        relative, text = f"images/{name}/{prompts.name}/{row:05d}_s{seed}.png", prompts.prompts[row]
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        with atomic_file(out / relative) as temporary:
            temporary.write_bytes(buffer.getvalue())
        found.append(
            ImageRow(
                name, prompts.name, row, text, prompt_sha256(text), seed, relative, sha256_bytes(buffer.getvalue()),
                sampler.scheduler, sampling.steps, sampling.guidance, image.size, prompts.tags_of(row),
            )
        )  # fmt: skip
    return found
