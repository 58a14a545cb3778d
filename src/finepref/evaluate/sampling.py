"""How images are sampled: one diffusers pipeline call per batch, plain, with a control map, or with a refiner.

B images of a batch. Every (prompt row, seed) has its own CPU generator, so neither the model nor the batch size nor
the order changes the noise an image starts from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finepref.core.device import Precision, work_device
from finepref.core.errors import InputError, nearest
from finepref.core.provenance import sha256_bytes, sha256_file
from finepref.core.rng import torch_generator

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from finepref.evaluate.named_models import NamedModel
    from finepref.models.quantized import Quantization

Noise = Literal["per-prompt", "shared"]
SCHEDULERS = {
    "ddim": "DDIMScheduler", "ddpm": "DDPMScheduler", "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler", "euler-a": "EulerAncestralDiscreteScheduler", "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler", "pndm": "PNDMScheduler", "unipc": "UniPCMultistepScheduler",
}  # fmt: skip
CONTROLLED = {
    "StableDiffusionPipeline": "StableDiffusionControlNetPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLControlNetPipeline",
}
IMAGES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Control:
    """Control maps, one file a prompt row (`00012.png` for row 12), and the network that reads them.

    network: folder or hub id of a ControlNet. maps: folder. scale: conditioning scale (SmPO: 0.3 canny, 0.5 depth).
    """

    network: str
    maps: Path
    scale: float = 1.0

    def file(self, row: int) -> Path:
        """The map of a prompt row."""
        for suffix in IMAGES:
            path = self.maps / f"{row:05d}{suffix}"
            if path.is_file():
                return path
        raise InputError(f"no control map of prompt row {row}", where=self.maps, remedy=f"name it {row:05d}.png")

    def record(self, rows: int) -> dict[str, Any]:
        """What of it changes the images: network, scale, and the hash of all maps."""
        maps = sha256_bytes("\n".join(sha256_file(self.file(row)) for row in range(rows)).encode())
        return {"network": self.network, "scale": self.scale, "maps_sha256": maps}


@dataclass(frozen=True, slots=True)
class Refiner:
    """A second denoiser for the last steps (SDXL). model: folder or hub id. start: share of steps before it, (0, 1)."""

    model: str
    start: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.start < 1:
            what = f"a refiner that starts at {self.start}"
            raise InputError(what, where="refiner", remedy="use a share such as 0.8")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an image is sampled; the pipeline's own default where None.

    guidance is diffusers' guidance_scale. size is (width, height) in pixels. scheduler is a short name (`ddim`,
    `euler`, ...) or a diffusers class name. noise "shared" starts every prompt from the same noise (SDPO's protocol).
    precision: of all networks; a VAE that asks for it (`force_upcast`) decodes in float32. quantize: the denoiser's
    linear weights in fewer bits (`finepref.models.quantized`). negative: the model whose denoiser stands for the
    negative half of guidance (`finepref.models.negative_network`).
    """

    steps: int
    guidance: float
    scheduler: str | None = None
    size: tuple[int, int] | None = None
    negative_prompt: str | None = None
    noise: Noise = "per-prompt"
    control: Control | None = None
    refiner: Refiner | None = None
    precision: Precision = "no"
    quantize: Quantization | None = None
    negative: NamedModel | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.steps} sampling steps", where="steps", remedy="use at least 1")
        if not self.guidance >= 0:
            raise InputError(f"a guidance of {self.guidance}", where="guidance", remedy="use 0 or more")
        if self.noise not in ("per-prompt", "shared"):
            raise InputError(f"noise '{self.noise}'", where="noise", remedy="use per-prompt or shared")
        if self.control is not None and self.refiner is not None:
            raise InputError("a control map and a refiner at once", where="refiner", remedy="use one of them")
        if self.negative is not None and (self.control is not None or self.refiner is not None):
            what = "a negative model beside a control map or a refiner"
            raise InputError(what, where="negative", remedy="use one of them")
        if self.negative is not None and self.guidance <= 1:
            what = f"it has no effect at a guidance of {self.guidance:g}"
            raise InputError(what, where="negative", remedy="use a guidance above 1")

    def load(self, model: NamedModel, device: str) -> Any:
        """The pipeline of a model, in this precision."""
        return model.load(device, self.precision, self.quantize)

    def record(self, rows: int) -> dict[str, Any]:
        """Everything that changes an image of a set of `rows` prompts, as JSON."""
        size, control = list(self.size) if self.size else None, self.control.record(rows) if self.control else None
        found = {**asdict(replace(self, negative=None)), "size": size, "control": control}
        found |= {"negative": None if self.negative is None else self.negative.fingerprint}
        for name, usual in (("precision", "no"), ("quantize", None), ("negative", None)):
            if found[name] == usual:
                del found[name]  # as in folders of earlier versions, which go on
        return found


def noise_generator(seed: int, row: int, noise: Noise = "per-prompt") -> torch.Generator:
    """The CPU generator of an image: a function of the seed and, unless noise is "shared", of the prompt row."""
    return torch_generator(seed, "image") if noise == "shared" else torch_generator(seed, "image", row)


@dataclass(frozen=True, slots=True)
class Sampler:
    """A pipeline made ready by `prepare`, its refiner if there is one, and the denoiser that it is led away from."""

    pipeline: Any
    sampling: Sampling
    refiner: Any = None
    away: Any = None

    @property
    def scheduler(self) -> str:
        """Class name of the scheduler in use."""
        return type(self.pipeline.scheduler).__name__

    def sample(self, prompts: Sequence[str], keys: Sequence[tuple[int, int]]) -> list[Image]:
        """One call: prompts [B] and their (prompt row, seed) -> B images.

        Raises:
            InputError: the model gives no numbers (nan), as with damaged weights.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "invalid value encountered in cast", RuntimeWarning)
                with led_away(self.pipeline, self.away):
                    return self._sample(prompts, keys)
        except RuntimeWarning:
            remedy = "fetch or train its weights again"
            raise InputError("the model's images are not numbers (nan)", where="sampling", remedy=remedy) from None

    def _sample(self, prompts: Sequence[str], keys: Sequence[tuple[int, int]]) -> list[Image]:
        options = self._shared(prompts, keys)
        if self.sampling.size is not None:
            options["width"], options["height"] = self.sampling.size
        if self.sampling.control is not None:
            maps = [read_map(self.sampling.control.file(row), self.sampling.size) for row, _ in keys]
            options.update(image=maps, controlnet_conditioning_scale=self.sampling.control.scale)
        if self.sampling.refiner is None:
            return list(self.pipeline(**options, output_type="pil").images)
        start = self.sampling.refiner.start
        latents = self.pipeline(**options, output_type="latent", denoising_end=start).images
        options = {**self._shared(prompts, keys), "image": latents, "denoising_start": start}
        return list(self.refiner(**options, output_type="pil").images)

    def _shared(self, prompts: Sequence[str], keys: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """What every call gets; generators are used up by a call."""
        options: dict[str, Any] = {
            "prompt": list(prompts),
            "num_inference_steps": self.sampling.steps,
            "guidance_scale": self.sampling.guidance,
            "generator": [noise_generator(seed, row, self.sampling.noise) for row, seed in keys],
        }
        if self.sampling.negative_prompt is not None:
            options["negative_prompt"] = [self.sampling.negative_prompt] * len(prompts)
        return options


def prepare(pipeline: Any, sampling: Sampling, *, offload: bool = False) -> Sampler:
    """Set a pipeline up: the scheduler asked for, no safety checker (it blackens images) and no watermark (it shifts
    scores), control or refiner, no bar. offload: only the network at work is on the accelerator.

    Raises:
        InputError: an unknown scheduler, or a pipeline that takes no control map, refiner or negative model.
    """
    if sampling.control is not None:
        pipeline = controlled(pipeline, sampling.control)
    away = None
    if sampling.negative is not None:
        from finepref.models.negative_network import negative_network

        away = negative_network(pipeline, sampling.load(sampling.negative, str(pipeline.device)))
    refiner = load_refiner(pipeline, sampling.refiner) if sampling.refiner is not None else None
    if sampling.scheduler is not None:
        pipeline.scheduler = scheduler_class(sampling.scheduler).from_config(pipeline.scheduler.config)
    if refiner is not None:
        refiner.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    for each in filter(None, (pipeline, refiner)):
        each.set_progress_bar_config(disable=True)
        if getattr(each, "watermark", None) is not None:
            each.watermark = None
        if offload:
            each.enable_model_cpu_offload(device=work_device())
    return Sampler(pipeline, sampling, refiner, away)


@contextmanager
def led_away(pipeline: Any, away: Any) -> Iterator[None]:
    """Lead the guidance of a pipeline away from another denoiser for a while; None changes nothing."""
    if away is None:
        yield
        return
    from finepref.models.guided_pipelines import guided
    from finepref.models.negative_network import PARTS

    with guided(pipeline, getattr(pipeline, PARTS[type(pipeline).__name__]), away):
        yield


def scheduler_class(name: str) -> Any:
    """The diffusers scheduler of a short name or class name."""
    import diffusers

    full = SCHEDULERS.get(name, name)
    if not full.endswith("Scheduler") or not hasattr(diffusers, full):
        raise InputError(f"unknown scheduler '{name}'", where="scheduler", remedy=nearest(name, SCHEDULERS))
    return getattr(diffusers, full)


def controlled(pipeline: Any, control: Control) -> Any:
    """The ControlNet pipeline around the same components."""
    import diffusers

    from finepref.models.source import load_module, locate_part

    kind = type(pipeline).__name__
    if kind not in CONTROLLED:
        raise InputError(f"{kind} takes no control map", where="controlnet", remedy="use " + " or ".join(CONTROLLED))
    folder = locate_part(control.network, patterns=("config.json", "*.safetensors"))
    network = load_module(diffusers.ControlNetModel, folder, dtype=pipeline.dtype).to(pipeline.device)
    return getattr(diffusers, CONTROLLED[kind]).from_pipe(pipeline, controlnet=network, torch_dtype=pipeline.dtype)


def load_refiner(pipeline: Any, refiner: Refiner) -> Any:
    """The image-to-image pipeline of a refiner, on the base pipeline's device and in its precision."""
    import diffusers

    from finepref.models.source import assemble, locate

    if type(pipeline).__name__ != "StableDiffusionXLPipeline":
        raise InputError(f"{type(pipeline).__name__} has no refiner", where="refiner", remedy="use it with SDXL")
    cls, options = diffusers.StableDiffusionXLImg2ImgPipeline, {"torch_dtype": pipeline.dtype}
    return assemble(locate(refiner.model), {}, cls=cls, **options).to(pipeline.device)


def read_map(path: Path, size: tuple[int, int] | None) -> Image:
    """A control map as RGB, at the size of the image to make."""
    from PIL.Image import Resampling

    from finepref.core.images import open_rgb_file

    found = open_rgb_file(path)
    return found if size is None or found.size == size else found.resize(size, Resampling.LANCZOS)
