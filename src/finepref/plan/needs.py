"""What a run will need, before it starts: work, memory, disk and time on named GPUs. Arithmetic on counts, no weights.

Everything about a GPU is an estimate from its data sheet; nothing here was measured on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finepref.diffusion.path import Path
from finepref.diffusion.programme import mean_calls
from finepref.models.quantized import BYTES as QUANTIZED
from finepref.plan.cards import Gpu
from finepref.plan.data_sizes import By, DataSizes
from finepref.train.config import RunConfig
from finepref.train.method import Method, images_of_draw, inverts, needs_reference

GB = 1e9
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


# Share of the peak that a run keeps busy. Published: 28 % (SD2 training, 8 A100, MosaicML), 9-31 % (the official loops
# by their own hours), 52-58 % (SDXL and FLUX forwards, compiled).
GOOD, POOR = 0.5, 0.25
MANY = 1000  # pictures, by which drawing and scoring are planned
RESERVED_GB, FRAGMENTS = 1.5, 0.05  # CUDA context and libraries; share of the memory lost between blocks
# What a process takes beside its networks, and on a CPU what the kernels work in: measured, benchmarks/plan_memory.py.
START_GB: Mapping[str, float] = {"train": 0.6, "cache": 0.59, "generate": 0.53, "score": 0.45}
SPACE, SPACE_GB = 0.26, 0.88  # share of the weights, at most; equal runs differ by 0.4 GB of 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the networks of a base cost; operations (FLOP) and bytes are of one image.

    parameters, trained: of the denoiser, LoRA included. castable: weights that autocast runs in half; linear: those
    of them that quantisation takes. factored: numbers
    of Adafactor's second moments. latent: (C, h, w). condition: numbers of an image's conditions.
    forward_flop, training_flop: a forward; a forward with its backward, recomputation included.
    training_bytes, forward_bytes: most bytes alive at once beyond weights and gradients, with and without gradient.
    vae_*, text_*: encoding one image and one prompt. largest_text: parameters of the largest text encoder.
    encoder_bytes: most bytes alive at once beyond weights while an image is encoded in float32. decoder_parameters,
    decoder_bytes, decoder_flop: what else a pipeline needs to draw one image: weights, most bytes alive at once, work.
    """

    parameters: int
    trained: int
    castable: int
    linear: int
    factored: int
    latent: tuple[int, ...]
    condition: int
    forward_flop: float
    training_flop: float
    training_bytes: float
    forward_bytes: float
    vae_parameters: int
    vae_flop: float
    decoder_parameters: int
    decoder_bytes: float
    text_parameters: int
    text_flop: float
    largest_text: int = 0
    encoder_bytes: float = 0.0
    decoder_flop: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Network calls of one draw in images, and operations of one draw and of the whole run (FLOP).

    cache_flop: encoding images and prompts once, at most; inversion: mean over the levels that are drawn.
    """

    policy: float
    reference: float
    inversion: float
    draw_flop: float
    draws: int
    run_flop: float
    cache_flop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Disk: bytes of an image and a prompt, rows at most, bytes in all; of the reference's errors and inversions.

    by: how many there are is known: by the cache, by the data, or guessed by the draws.
    several: images have several shapes, and the bytes are those of a square.
    """

    image_bytes: float
    prompt_bytes: float
    images: int
    prompts: int
    total_bytes: float
    reference_bytes: float
    trajectory_bytes: float
    by: By
    several: bool = False

    @property
    def guessed(self) -> bool:
        """Whether neither data nor cache is here, so that every draw was taken for another pair."""
        return self.by == "draws"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDisk:
    """Disk: bytes of the weights that a run leaves and of one checkpoint, and how many of those stay at its end."""

    left_bytes: float
    checkpoint_bytes: float
    kept: int

    @property
    def total_bytes(self) -> float:
        """What the folder takes at the end; while a checkpoint is written, that one more where older ones go."""
        return self.left_bytes + self.kept * self.checkpoint_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """GB of a stage that takes `batch` images at once: all its networks held together, and one at a time (offload)."""

    batch: int
    together_gb: float
    apart_gb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """GB of a stage's start on a GPU machine: of each process, and of the weight files that it reads; all, on a CPU."""

    own_gb: float
    files_gb: float
    cpu_gb: float

    def machine_gb(self, processes: int) -> float:
        """Of so many processes on one machine, which has the files once."""
        return processes * self.own_gb + self.files_gb


@dataclass(frozen=True, slots=True, kw_only=True)
class OnGpu:
    """Estimates for one GPU. hours: GPU hours at `GOOD` and `POOR` share of the peak; days: shared by all processes;
    None where only its size is known. stages: GPU hours of the others, in the same way.

    fits: as configured. remedies: what makes it fit, the mildest of each kind; empty where it fits or nothing does.
    """

    gpu: str
    memory_gb: float
    needed_gb: float
    fits: bool
    remedies: tuple[str, ...]
    hours: tuple[float, float] | None
    days: tuple[float, float] | None
    stages: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything `finepref plan` prints. caching, drawing, scoring: the stages before and after. host: by stage. files:
    whether the weight files of the base are here, else their types are guessed. cards: what is known of each of `gpus`,
    in their order.
    """

    family: str
    counts: Counts
    work: Work
    memory_gb: Mapping[str, float]
    cache: Cache
    folder: RunDisk
    caching: StageMemory
    drawing: StageMemory
    scoring: StageMemory
    host: Mapping[str, HostMemory]
    files: bool
    processes: int
    gpus: tuple[OnGpu, ...]
    cards: tuple[Gpu, ...]


def work_of(
    config: RunConfig, method: Method, counts: Counts, path: Path, *, images: int, prompts: int, processes: int = 1
) -> Work:
    """Count the work of a run.

    draw = n (training + reference forward) + 2 (inversion calls) forwards,  n = 2 images, 1 without loser or pair;
    K draws that share a trajectory share its calls; single images in several micro-batches are predicted once more
    without gradient, for KTO's anchor; with `cache.online` a draw's images and prompt are encoded too
    """
    needs, options = method.objective.needs, config.train
    count = images_of_draw(config, needs)
    uses = method.reference != "none" and options.reference_cache is None
    calls = 0.0
    if method.inversion is not None and inverts(config, method):
        calls = mean_calls(method.inversion, path) * method.inversion.passes / method.share
    again = 0 if needs.paired or needs.listed else int(-(-options.pairs_per_step // processes) > options.micro_batch)
    draw = count * counts.training_flop + (count * uses + 2 * calls + again) * counts.forward_flop
    encoding = images * counts.vae_flop * (2 if config.data.flip else 1) + prompts * counts.text_flop
    if config.cache.online:
        draw, encoding = draw + count * counts.vae_flop + counts.text_flop, 0.0
    draws = options.max_steps * options.pairs_per_step
    return Work(
        policy=count,
        reference=count * uses,
        inversion=2 * calls,
        draw_flop=draw,
        draws=draws,
        run_flop=draw * draws,
        cache_flop=encoding,
    )


def memory_of(config: RunConfig, method: Method, counts: Counts, *, processes: int = 1) -> dict[str, float]:
    """Bytes by part on one process. Sharded (fsdp2), weights, reference, gradients and optimiser are divided.

    validation: the text encoders and the VAE, which stay on the GPU in float32 once images have been drawn.
    """
    options, half = config.train, config.train.mixed_precision != "no"
    lora = config.lora is not None
    frozen = 4.0 * counts.parameters - (2.0 * counts.castable if half else 0.0)
    if config.model.quantize is not None:
        frozen -= counts.linear * ((2.0 if half else 4.0) - QUANTIZED[config.model.quantize])
    separate = needs_reference(config, method) and not lora
    reference = frozen if separate else 0.0
    if options.reference.moves:  # it has weights of its own, in full precision
        reference = 4.0 * (counts.trained if lora else counts.parameters)
    shards = processes if options.distributed == "fsdp2" else 1
    states = {
        "weights": frozen if lora else 4.0 * counts.parameters,
        "reference": reference,
        "gradients": 4.0 * counts.trained,
        "optimiser": _optimizer_bytes(config, counts),
        "moving average": 4.0 * counts.trained if options.ema_decay is not None else 0.0,
    }
    copies = 2.0 * counts.castable if half and not lora else 0.0  # autocast keeps half copies of trained weights
    needs = method.objective.needs
    images = options.micro_batch * images_of_draw(config, needs)
    step = copies + images * max(0.0, counts.training_bytes - copies)
    places = inverts(config, method)
    if places:
        step = max(step, copies + 2 * options.place_batch * max(0.0, counts.forward_bytes - copies))
    drawn = config.validation.every > 0 and bool(config.validation.prompts)
    if drawn:
        step = max(step, copies + counts.decoder_bytes)
    trained = config.lora is not None and config.lora.text_encoder  # then they are among the weights
    texts = 0 if trained else counts.text_parameters
    parts = texts + counts.vae_parameters + counts.decoder_parameters
    held = max(images, 2 * options.place_batch if places else 0) * method.share
    numbers = 4 * counts.latent[0] * counts.latent[1] * counts.latent[2] + counts.condition
    return {
        **{name: value / shards for name, value in states.items()},
        "activations": step,
        "validation": 4.0 * parts if drawn else 0.0,
        "encoders": 4.0 * (counts.vae_parameters + counts.text_parameters) if config.cache.online else 0.0,
        "batches": 2 * 4.0 * held * numbers,
    }


def _optimizer_bytes(config: RunConfig, counts: Counts) -> float:
    """Bytes of the optimiser's tensors."""
    each = {"adamw": 8.0 * counts.trained, "adafactor": 4.0 * counts.factored, "adamw8bit": 2.1 * counts.trained}
    return each[config.train.optimizer]


def folder_of(config: RunConfig, counts: Counts) -> RunDisk:
    """Disk that a run's folder takes: weights in float32, checkpoints as `train.checkpoint` writes them."""
    options, lora = config.train, config.lora is not None
    trained, average = 4.0 * counts.trained, options.ema_decay is not None
    left = trained if lora else 4.0 * counts.parameters
    beside = trained * (lora or average) + trained * (lora and average)  # trained and averaged, where `left` is not it
    moving = 4.0 * (counts.trained if lora else counts.parameters) if options.reference.moves else 0.0
    every = options.checkpoint_every or options.max_steps
    return RunDisk(
        left_bytes=left,
        checkpoint_bytes=left + beside + moving + _optimizer_bytes(config, counts),
        kept=min(options.checkpoints_keep, -(-options.max_steps // every)),
    )


def cache_of(config: RunConfig, counts: Counts, sizes: DataSizes) -> Cache:
    """Disk that the latent cache takes, and the reference's errors and inversions where they are wanted."""
    images, prompts = (0, 0) if config.cache.online else (sizes.images, sizes.prompts)
    size = BYTES[config.cache.dtype]
    channels, height, width = counts.latent
    latent = size * channels * height * width
    image = latent * (2 if config.cache.posterior == "mean_std" else 1)
    image *= 2 if config.data.flip else 1
    prompt = size * counts.condition
    draws = config.train.max_steps * config.train.pairs_per_step
    visits = -(-draws // max(1, sizes.pairs))
    return Cache(
        image_bytes=image,
        prompt_bytes=prompt,
        images=images,
        prompts=prompts,
        total_bytes=image * images + prompt * prompts,
        reference_bytes=8.0 * visits * sizes.pairs if config.train.reference_cache is not None else 0.0,
        trajectory_bytes=2.0 * latent * draws if config.train.trajectory_cache is not None else 0.0,
        by=sizes.by,
        several=config.data.buckets,
    )


def needed_gb(memory: Mapping[str, float], gpu: Gpu) -> float:
    """Memory that a GPU must have: the parts, what fragments and CUDA take; on a CPU what the process takes."""
    parts = sum(memory.values()) / GB
    if gpu.is_cpu:
        return START_GB["train"] + parts + space_gb(memory.get("weights", 0.0) / GB)
    return parts / (1 - FRAGMENTS) + RESERVED_GB


def space_gb(weights_gb: float) -> float:
    """What the kernels of a CPU work in, beside weights and activations."""
    return min(SPACE_GB, SPACE * weights_gb)
