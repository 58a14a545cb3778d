"""What the stages hold in the memory of the host, beside a GPU or in its place: by the weight files that are here.

A weight file is mapped, so that the processes of a machine share what the system has read of it; only what is stored in
another type than the file's is a process's own. On the way to a GPU no network has a second copy on the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finepref.models.family import family_of, text_parts
from finepref.models.header import part_header
from finepref.models.quantized import BYTES as QUANTIZED
from finepref.models.source import Source, part_class, vae_class
from finepref.plan.needs import GB, START_GB, Counts, HostMemory, StageMemory, space_gb
from finepref.plan.skeleton import vae_place
from finepref.train.config import RunConfig
from finepref.train.method import Method, needs_reference

PAIR_BYTES = 150  # of a run's tables, measured (docs/scale.md)
WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
HALF = {"bf16": "BF16", "fp16": "F16"}


@dataclass(frozen=True, slots=True)
class PartFile:
    """The weight files of a network, or of several. types: that they are saved in; here: else they are a guess."""

    size: float
    types: frozenset[str]
    here: bool = True

    def own(self, wanted: str, parameters: float) -> float:
        """Bytes that are not the files', where weights are wanted in that type."""
        return 0.0 if self.types <= {wanted} else WIDTH[wanted] * parameters

    def __add__(self, other: PartFile) -> PartFile:
        return PartFile(self.size + other.size, self.types | other.types, self.here and other.here)


NOTHING = PartFile(0.0, frozenset())


def part_file(folder: Path, cls: Any, parameters: int, variant: str | None = None) -> PartFile:
    """The weight files of a part; guessed to be float32 where the folder has none.

    Raises:
        InputError: files that are damaged.
    """
    if not any(folder.glob("*.safetensors")):
        return PartFile(4.0 * parameters, frozenset({"F32"}), here=False)
    header = part_header(folder, cls, variant)
    numbers = {name: math.prod(shape) for name, shape in header.shapes.items() if header.types[name] in WIDTH}
    size = sum(WIDTH[header.types[name]] * number for name, number in numbers.items())
    return PartFile(float(size), frozenset(header.types[name] for name in numbers))


def base_files(source: Source, counts: Counts, *, family: str, vae: str | None) -> dict[str, PartFile]:
    """The weight files of a base: denoiser, vae, texts.

    Raises:
        InputError: files that are damaged.
    """
    kind = family_of(source, family)
    trunk = part_file(source.folder / kind.part, part_class(source, kind.part), counts.parameters, source.variant)
    place, whole = vae_place(source, vae), counts.vae_parameters + counts.decoder_parameters
    decoder = part_file(place, vae_class(source, place), whole, source.variant if vae is None else None)
    names = text_parts(kind, source)
    texts = [part_file(source.folder / name, part_class(source, name), 0, source.variant) for name in names]
    found = sum(texts, NOTHING)
    if not found.here:
        found = PartFile(4.0 * counts.text_parameters, frozenset({"F32"}), here=False)
    return {"denoiser": trunk, "vae": decoder, "texts": found}


def training_host(
    config: RunConfig, method: Method, counts: Counts, files: Mapping[str, PartFile], *, pairs: int, cpu_gb: float
) -> HostMemory:
    """The start of a run, its cache being there. cpu_gb: what it needs on a CPU.

    A frozen base under autocast stays as it is saved; other weights are float32. Sharded (fsdp2), networks and
    reference are whole on the host first.
    """
    options, lora, denoiser = config.train, config.lora, files["denoiser"]
    half = HALF.get(options.mixed_precision)
    wide = 4.0 * (counts.parameters - (0 if lora is None else counts.trained))
    own = denoiser.own("F32", counts.parameters)
    if config.model.quantize is not None:
        own = wide - counts.linear * (4.0 - QUANTIZED[config.model.quantize])
    elif half is not None and lora is not None and denoiser.types < set(HALF.values()):
        own = wide - 4.0 * counts.castable
    if options.distributed == "fsdp2" and needs_reference(config, method) and lora is None:
        own += wide
    read = denoiser
    if config.validation.every > 0 and config.validation.prompts:
        read += files["vae"] + files["texts"]
        own += files["vae"].own("F32", counts.vae_parameters + counts.decoder_parameters)
        own += files["texts"].own("F32", counts.text_parameters)
    own += PAIR_BYTES * pairs + (4.0 * counts.trained if lora is not None else 0.0)
    return HostMemory(own_gb=START_GB["train"] + own / GB, files_gb=read.size / GB, cpu_gb=cpu_gb)


def caching_host(config: RunConfig, counts: Counts, files: Mapping[str, PartFile], stage: StageMemory) -> HostMemory:
    """Encoding: the VAE in float32, text encoders in the cache's precision, the larger of the two at a time."""
    texts, vae = files["texts"], files["vae"]
    wanted = HALF.get(config.cache.mixed_precision, "F32")
    steps = (
        (vae.own("F32", counts.vae_parameters + counts.decoder_parameters), vae.size),
        (texts.own(wanted, counts.text_parameters), texts.size),
    )
    own, size = max(steps, key=sum)
    held = (2.0 if wanted != "F32" else 4.0) * counts.text_parameters / GB
    weights = 4.0 * (counts.vae_parameters + counts.decoder_parameters) / GB
    apart = max(held, stage.together_gb - held - weights)  # prompts come after the pictures
    return _host("cache", own, size, weights + apart + space_gb(weights + apart))


def drawing_host(config: RunConfig, counts: Counts, files: Mapping[str, PartFile], stage: StageMemory) -> HostMemory:
    """Drawing, in the precision of training: all networks are on the host before they go to the GPU."""
    wanted = HALF.get(config.train.mixed_precision, "F32")
    vae = counts.vae_parameters + counts.decoder_parameters
    own = files["vae"].own("F32", vae) + (WIDTH[wanted] * vae if wanted != "F32" else 0.0)  # read in float32
    own += files["texts"].own(wanted, counts.text_parameters)
    if config.model.quantize is None:
        own += files["denoiser"].own(wanted, counts.parameters)
    else:
        own += WIDTH[wanted] * (counts.parameters - counts.linear) + QUANTIZED[config.model.quantize] * counts.linear
    space = space_gb(WIDTH[wanted] * counts.parameters / GB) / 2  # no gradients
    return _host("generate", own, sum(each.size for each in files.values()), stage.together_gb + space)


def scoring_host(parameters: int, stage: StageMemory) -> HostMemory:
    """Scoring: the published files are float32, and so are the weights."""
    return _host("score", 0.0, 4.0 * parameters, stage.together_gb)


def _host(stage: str, own: float, size: float, parts_gb: float) -> HostMemory:
    start = START_GB[stage]
    return HostMemory(own_gb=start + own / GB, files_gb=size / GB, cpu_gb=start + parts_gb)
