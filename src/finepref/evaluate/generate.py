"""Images of models x prompts x seeds, with equal initial noise at equal prompt row and seed.

B images of a batch. Every (prompt row, seed) has its own CPU generator, so neither the model nor the batch size nor
the order changes the noise an image starts from.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finepref.data.prompts import PromptSet, as_prompt_set, prompt_sha256
from finepref.errors import InputError, nearest
from finepref.evaluate.manifest import (
    LINES,
    ImageRow,
    Key,
    append_rows,
    read_record,
    read_rows,
    write_record,
    write_rows,
)
from finepref.files import atomic_file
from finepref.progress import progress, say
from finepref.provenance import provenance, sha256_bytes, sha256_file
from finepref.rng import torch_generator

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Noise = Literal["per-prompt", "shared"]
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, slots=True)
class Source:
    """A model to generate with: how to load it, and what a reader of the results must know of it.

    load: () -> diffusers pipeline, called only when an image is missing. origin: path or hub id. fingerprint: changes
    when the weights do. rewards: names of the scorers whose values its training used.
    """

    load: Callable[[], Any]
    origin: str
    fingerprint: str
    rewards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an image is sampled; the pipeline's own default where None.

    guidance is diffusers' guidance_scale. size is (width, height) in pixels. scheduler is a short name (`ddim`,
    `euler`, ...) or a diffusers class name. noise "shared" starts every prompt from the same noise (SDPO's protocol).
    """

    steps: int
    guidance: float
    scheduler: str | None = None
    size: tuple[int, int] | None = None
    negative_prompt: str | None = None
    noise: Noise = "per-prompt"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.steps} sampling steps", where="steps", remedy="use at least 1")
        if not self.guidance >= 0:
            raise InputError(f"a guidance of {self.guidance}", where="guidance", remedy="use 0 or more")


def noise_generator(seed: int, row: int, noise: Noise = "per-prompt") -> torch.Generator:
    """The CPU generator of an image: a function of the seed and, unless noise is "shared", of the prompt row."""
    return torch_generator(seed, "image") if noise == "shared" else torch_generator(seed, "image", row)


def generate(
    models: Mapping[str, Source | Any],
    prompts: PromptSet | Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    steps: int = 50,
    guidance: float = 7.5,
    scheduler: str | None = None,
    size: tuple[int, int] | None = None,
    negative_prompt: str | None = None,
    noise: Noise = "per-prompt",
    batch_size: int = 8,
    overwrite: bool = False,
) -> Path:
    """Generate every model x prompt x seed that is not there yet, and list it in `out/manifest.jsonl`.

    Args:
        models: name -> `Source`, or a loaded diffusers pipeline.
        prompts: the set, or texts.
        seeds: distinct integers; an image's noise is a function of (prompt row, seed).
        out: folder; images go to `out/images/<model>/<set>/<row>_s<seed>.png`.
        steps, guidance, scheduler, size, negative_prompt, noise: see `Sampling`.
        batch_size: images per pipeline call, >= 1; does not change the noise.
        overwrite: generate again what is there with other settings, instead of refusing.

    Returns:
        Path of the manifest.

    Raises:
        InputError: an unusable name or setting, or the folder holds images of these names made in another way.
    """
    prompt_set = as_prompt_set(prompts)
    sampling = Sampling(steps, guidance, scheduler, size, negative_prompt, noise)
    sources = {name: _source(name, model) for name, model in models.items()}
    _check(sources, prompt_set, seeds, batch_size)
    out = Path(out)
    rows = {row.key: row for row in read_rows(out, partial=True)} if (out / LINES).is_file() else {}
    record = _merged_record(out, sources, prompt_set, sampling, rows, overwrite=overwrite)
    wanted = [(row, seed) for row in range(len(prompt_set)) for seed in seeds]
    out.mkdir(parents=True, exist_ok=True)
    if rows:
        write_rows(out, rows.values())
    write_record(out, record)
    for name, source in sources.items():
        missing = [key for key in wanted if not _finished(out, rows.get((name, prompt_set.name, *key)))]
        if not missing:
            say(f"{name}: all {len(wanted)} images are there")
            continue
        for key in missing:
            rows.pop((name, prompt_set.name, *key), None)
        write_rows(out, rows.values())
        started = time.perf_counter()
        _generate_model(name, source, prompt_set, sampling, missing, out, rows, batch_size)
        record["models"][name]["seconds"] = round(time.perf_counter() - started, 2)
        record["models"][name]["device"] = _device_name()
        write_record(out, record)
    write_rows(out, sorted(rows.values(), key=lambda row: (row.prompt_set, row.prompt_index, row.seed)))
    return out / LINES


def _check(sources: Mapping[str, Source], prompts: PromptSet, seeds: Sequence[int], batch_size: int) -> None:
    if not sources:
        raise InputError("no model", where="models", remedy="give at least one NAME=PATH")
    for name in (*sources, prompts.name):
        if not NAME.fullmatch(name):
            raise InputError(
                f"{name!r} cannot be a folder name", where="names", remedy="use letters, digits, dot, _, + and -"
            )
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds {list(seeds)}", where="seeds", remedy="give at least one, each once")
    if batch_size < 1:
        raise InputError(f"a batch of {batch_size}", where="batch size", remedy="use at least 1")


def _source(name: str, model: Source | Any) -> Source:
    if isinstance(model, Source):
        return model
    return Source(lambda: model, origin=type(model).__name__, fingerprint=pipeline_fingerprint(model))


def pipeline_fingerprint(pipeline: Any) -> str:
    """Hex SHA-256 over the weights of a loaded pipeline's modules, in name order."""
    import torch

    parts = []
    for name, component in sorted(pipeline.components.items()):
        if isinstance(component, torch.nn.Module):
            for key, tensor in sorted(component.state_dict().items()):
                plain = tensor.detach().cpu().contiguous()
                parts.append(f"{name}.{key} {sha256_bytes(plain.flatten().view(torch.uint8).numpy().tobytes())}")
    return sha256_bytes("\n".join(parts).encode())


def _merged_record(
    out: Path,
    sources: Mapping[str, Source],
    prompts: PromptSet,
    sampling: Sampling,
    rows: dict[Key, ImageRow],
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """The folder's record with these models; images made in another way are refused, or forgotten to be made again."""
    record = read_record(out)
    known = record.setdefault("models", {})
    settings = record.setdefault("sampling", {})
    sets = record.setdefault("prompt_sets", {})
    now = {**asdict(sampling), "size": list(sampling.size) if sampling.size else None}
    for name, source in sources.items():
        slot = f"{name}/{prompts.name}"
        old = (known.get(name, {}).get("fingerprint"), settings.get(slot), sets.get(prompts.name, {}).get("sha256"))
        have = [key for key in rows if key[:2] == (name, prompts.name)]
        if have and old != (source.fingerprint, now, prompts.sha256):
            if not overwrite:
                raise InputError(
                    f"it holds images of '{name}' on '{prompts.name}' made with other weights, settings or prompts",
                    where=out,
                    remedy="write to another folder, or start again with --overwrite",
                )
            for key in have:
                del rows[key]
        known[name] = {
            **(known.get(name, {}) if have else {}),
            "origin": source.origin,
            "fingerprint": source.fingerprint,
            "rewards": list(source.rewards),
        }
        settings[slot] = now
    sets[prompts.name] = {"sha256": prompts.sha256, "rows": len(prompts)}
    return {**record, "provenance": provenance(config={"sampling": now})}


def _finished(out: Path, row: ImageRow | None) -> bool:
    return row is not None and (out / row.path).is_file() and sha256_file(out / row.path) == row.image_sha256


def _device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _generate_model(
    name: str,
    source: Source,
    prompts: PromptSet,
    sampling: Sampling,
    missing: Sequence[tuple[int, int]],
    out: Path,
    rows: dict[Key, ImageRow],
    batch_size: int,
) -> None:
    pipeline = prepare(source.load(), sampling)
    batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
    for batch in progress(batches, f"images of {name}", unit="batch"):
        images = sample(pipeline, [prompts.prompts[row] for row, _ in batch], batch, sampling)
        done = []
        for (row, seed), image in zip(batch, images, strict=True):
            relative = f"images/{name}/{prompts.name}/{row:05d}_s{seed}.png"
            digest = save_png(image, out / relative)
            text = prompts.prompts[row]
            done.append(
                ImageRow(
                    name, prompts.name, row, text, prompt_sha256(text), seed, relative, digest,
                    type(pipeline.scheduler).__name__, sampling.steps, sampling.guidance, image.size,
                    prompts.tags_of(row),
                )
            )  # fmt: skip
        append_rows(out, done)
        rows.update({row.key: row for row in done})


def prepare(pipeline: Any, sampling: Sampling) -> Any:
    """Set a pipeline up for evaluation: the scheduler asked for, no safety checker (it blackens images), no bar."""
    if sampling.scheduler is not None:
        import diffusers

        name = SCHEDULERS.get(sampling.scheduler, sampling.scheduler)
        if not hasattr(diffusers, name) or not name.endswith("Scheduler"):
            raise InputError(
                f"unknown scheduler '{sampling.scheduler}'",
                where="scheduler",
                remedy=nearest(sampling.scheduler, SCHEDULERS),
            )
        pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline: Any, prompts: Sequence[str], keys: Sequence[tuple[int, int]], sampling: Sampling) -> list[Image]:
    """One pipeline call: prompts [B] and their (prompt row, seed) -> B images."""
    options: dict[str, Any] = {}
    if sampling.size is not None:
        options["width"], options["height"] = sampling.size
    if sampling.negative_prompt is not None:
        options["negative_prompt"] = [sampling.negative_prompt] * len(prompts)
    generators = [noise_generator(seed, row, sampling.noise) for row, seed in keys]
    result = pipeline(
        prompt=list(prompts),
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.guidance,
        generator=generators,
        output_type="pil",
        **options,
    )
    return list(result.images)


def save_png(image: Image, path: Path) -> str:
    """Write a PNG whole or not at all; returns the hex SHA-256 of the file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = buffer.getvalue()
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
    return sha256_bytes(data)
