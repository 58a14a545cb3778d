"""Images of models x prompts x seeds, with equal initial noise at equal prompt row and seed; resumable."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from finepref.core.device import Precision, default_device, device_name, free_memory, work_device
from finepref.core.errors import InputError, check_word
from finepref.core.files import atomic_file
from finepref.core.locks import BUSY
from finepref.core.outfolders import check_folder
from finepref.core.progress import progress, say
from finepref.core.provenance import provenance, sha256_bytes
from finepref.data.prompt_sets import load_prompt_set
from finepref.data.readstretches import share
from finepref.evaluate.named_models import NamedModel, as_source
from finepref.evaluate.sampling import SCHEDULERS, Control, Noise, Refiner, Sampler, Sampling, prepare, scheduler_class
from finepref.evaluate.units import Images, ImageUnit, keep, lost_images, maker, recording, units_of
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
    shard: tuple[int, int] = (0, 1),
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
        batch_size: images per pipeline call, >= 1; does not change the noise. The first call in a folder makes it the
            unit that processes share out: any number may work on one folder at once, and each takes what nobody has.
        protocol: name of the protocol these settings come from, for the record.
        shard: (index, count): of count shares of each model's images this one alone.
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
    share((), shard)
    made = _Made(sources, prompt_set, sampling, tuple(seeds), batch_size, protocol or "", shard, overwrite)
    with maker(out) as hand:
        with recording(hand) as record:
            record = made.merged(record, hand)  # refused before anything is loaded or written
        for name in sources:
            _fill(hand, made, name, record, offload=offload)
        with recording(hand) as known:
            record = made.merged(known, hand)
            keep(hand, record)
            return Manifest(tuple(hand.known.values()), record)


@dataclass(frozen=True, slots=True)
class _Made:
    """What is to be made."""

    sources: Mapping[str, NamedModel]
    prompts: PromptSet
    sampling: Sampling
    seeds: tuple[int, ...]
    batch_size: int
    protocol: str
    shard: tuple[int, int]
    overwrite: bool

    def slot(self, name: str) -> str:
        """A model's images of the prompts, by name."""
        return f"{name}/{self.prompts.name}"

    def units(self, name: str, record: FolderRecord) -> Sequence[ImageUnit]:
        """The units of a model that are to be made here."""
        block = record.blocks[self.slot(name)]
        units = units_of(name, self.prompts.name, rows=len(self.prompts), seeds=self.seeds, block=block)
        return share(units, self.shard)

    def merged(self, record: FolderRecord, hand: Images) -> FolderRecord:
        """The folder's record with these models."""
        record = _merged_record(record, hand, self)
        blocks = {self.slot(name): record.blocks.get(self.slot(name), self.batch_size) for name in self.sources}
        slots = {self.slot(name): self.protocol for name in self.sources if self.protocol}
        return replace(record, protocols={**record.protocols, **slots}, blocks={**record.blocks, **blocks})


def _fill(hand: Images, made: _Made, name: str, record: FolderRecord, *, offload: bool) -> None:
    """Make what is missing of a model. Nothing is written before it is loaded."""
    units = made.units(name, record)
    lost = lost_images(hand, units)
    if not lost and all(map(hand.is_made, units)):
        say(f"{name}: all {sum(len(unit.rows) for unit in units)} images are there")
        return
    started = time.perf_counter()
    _run(hand, made, name, lost, offload=offload)
    free_memory()  # before the next model is loaded
    with recording(hand) as record:
        about = record.models[name]
        seconds = round(about.seconds + time.perf_counter() - started, 2)
        about = replace(about, seconds=seconds, device=device_name(work_device()))
        keep(hand, replace(record, models={**record.models, name: about}))


def _run(hand: Images, made: _Made, name: str, lost: Sequence[Key], *, offload: bool) -> None:
    """Load a model and make its units, and those of images that were lost; the model is gone at the end."""
    pipeline = made.sampling.load(made.sources[name], "cpu" if offload else work_device())
    sampler = prepare(pipeline, made.sampling, offload=offload)
    with recording(hand) as known:
        record = made.merged(known, hand)
        keep(hand, record)
    units = made.units(name, record)  # as whoever came first cuts them
    for key in lost:
        hand.known.pop(key, None)
    missing = [unit for unit in units if not hand.is_made(unit)]

    def make(unit: ImageUnit) -> list[ImageRow]:
        parts = [unit.rows[start : start + made.batch_size] for start in range(0, len(unit.rows), made.batch_size)]
        return [row for rows in parts for row in _sample(sampler, unit, made.prompts, rows, hand.folder)]

    for _ in progress(hand.work(missing, make), f"images of {name}", total=len(missing), unit="batch"):
        pass


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


def _merged_record(record: FolderRecord, hand: Images, made: _Made) -> FolderRecord:
    """The folder's record with these models; images made in another way are refused, or forgotten to be made again."""
    models, settings, blocks = dict(record.models), dict(record.sampling), dict(record.blocks)
    now, busy = made.sampling.record(len(made.prompts)), not hand.is_alone()
    for name, source in made.sources.items():
        slot, known = made.slot(name), models.get(name)
        have = [row for row in hand.known.values() if row.model == name]
        here = [row for row in have if row.prompt_set == made.prompts.name]
        begun = busy and slot in settings  # another process may be at it, though nothing is listed yet
        changed = (here or begun) and (settings.get(slot) != now or not all(_same(row, made.prompts) for row in here))
        if changed or ((have or begun) and (known is None or known.fingerprint != source.fingerprint)):
            if not made.overwrite:
                what = f"it holds images of '{name}' made with other weights, settings or prompts"
                remedy = "write to another folder, or start again with --overwrite"
                raise InputError(what, where=hand.folder, remedy=remedy)
            if busy:
                raise InputError(BUSY[0], where=hand.folder, remedy=BUSY[1])
            for row in have:
                del hand.known[row.key]
            have, here = [], []
        if not (here or begun):
            blocks.pop(slot, None)
        spent = (known.seconds, known.device) if known is not None and (have or begun) else ()
        models[name] = ModelRecord(source.origin, source.fingerprint, source.rewards, source.pipeline, *spent)
        settings[slot] = now
    sets = {**record.prompt_sets, made.prompts.name: PromptsRecord(made.prompts.sha256, len(made.prompts))}
    about = provenance(config={"sampling": now})
    return replace(record, models=models, sampling=settings, blocks=blocks, prompt_sets=sets, provenance=about)


def _same(row: ImageRow, prompts: PromptSet) -> bool:
    """Whether a listed row is still that prompt, as far as the set has it (it may have grown or been cut)."""
    return row.prompt_index >= len(prompts) or row.prompt == prompts.prompts[row.prompt_index]


def _sample(sampler: Sampler, unit: ImageUnit, prompts: PromptSet, rows: Sequence[int], out: Path) -> list[ImageRow]:
    """The images of these rows of a unit, written below `out`."""
    found, sampling, seed = [], sampler.sampling, unit.seed
    images = sampler.sample([prompts.prompts[row] for row in rows], [(row, seed) for row in rows])
    for row, image in zip(rows, images, strict=True):
        relative, text = f"images/{unit.model}/{prompts.name}/{row:05d}_s{seed}.png", prompts.prompts[row]
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        with atomic_file(out / relative) as temporary:
            temporary.write_bytes(buffer.getvalue())
        found.append(
            ImageRow(
                unit.model, prompts.name, row, text, prompt_sha256(text), seed, relative,
                sha256_bytes(buffer.getvalue()), sampler.scheduler, sampling.steps, sampling.guidance, image.size,
                prompts.tags_of(row),
            )
        )  # fmt: skip
    return found
