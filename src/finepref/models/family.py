"""What distinguishes one model family from another, as a record of functions; one module per family holds one record.

Shapes: N images, C channels, h w latent size, L tokens, D width, H W pixels.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from finepref.core.errors import ConfigError, InputError, nearest
from finepref.core.images import ImageSize
from finepref.diffusion.path import FLOW, Path
from finepref.models.source import Source

Cond = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def flow_path(config: Mapping[str, Any]) -> Path:
    """x_s = (1 - s) x0 + s eps, velocity eps - x0, whatever solver the pipeline samples with."""
    return FLOW


def kl_moments(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a diagonal Gaussian VAE posterior, unscaled; zero for one without a posterior."""
    encoded = vae.encode(pixels)
    if not hasattr(encoded, "latent_dist"):  # AutoencoderTiny's
        return encoded.latents, torch.zeros_like(encoded.latents)
    return encoded.latent_dist.mean, encoded.latent_dist.std


def hidden(config: Any) -> int:
    """Width of a text encoder's states."""
    return int(config.get_text_config().hidden_size)


def joined(encoders: Mapping[str, Any]) -> dict[str, int]:
    """The states of all text encoders side by side."""
    return {"prompt_embeds": sum(map(hidden, encoders.values()))}


@dataclass(frozen=True, slots=True)
class Family:
    """A transformer with one text encoder that predicts velocity on a flow, where nothing else is said.

    name: of the family. pipelines: diffusers classes it serves. part: `unet` or `transformer`, the denoiser.

    path: scheduler config -> noise path. call: (network, x [N,C,h,w], t [N], cond) -> native prediction [N,C,h,w].
    condition: (cached prompt tensors, sizes, micro_conditioning) -> what `call` reads; None: it sees nothing but the
    prompt.
    encode: (pipeline without denoiser, prompts) -> named prompt tensors.
    embed: (text encoders by part, token ids [N,L] by part) -> the same tensors, with gradients; None: not trained here.
    unread: text encoder -> how many of its last layers nobody reads the states of.
    texts: (tokenizer part, text encoder part) pairs. reduction: pixels of its VAEs for one of the latent.
    patch: of the latent for one token.
    moments: (vae, pixels [N,3,H,W] in [-1,1]) -> posterior (mean, std) before the config's shift and scale.
    lora_targets: module name endings.
    settings: numbers that shape the prompt tensors, for the cache fingerprint.
    shapes: the denoiser's config -> shapes of one image's conditions by name, without N. widths: configs of the text
    encoders that are there -> width of the prompt tensors they make. packed: channels of the denoiser for one of the
    latent. scale: what the VAE's config must say, lest latents be scaled by another model's default. undone: all of its
    scale that the pipeline undoes when it decodes. fixed: what the denoiser's config must say.
    decodable: a latent in the shape that the VAE decodes.
    """

    name: str
    pipelines: tuple[str, ...]
    call: Callable[[nn.Module, Tensor, Tensor, Cond], Tensor]
    encode: Callable[[Any, Sequence[str]], dict[str, Tensor]]
    shapes: Callable[[Any], Shapes]
    part: str = "transformer"
    path: Callable[[Mapping[str, Any]], Path] = flow_path
    texts: tuple[tuple[str, str], ...] = (("tokenizer", "text_encoder"),)
    lora_targets: tuple[str, ...] = ATTENTION
    condition: Callable[[Cond, Sequence[ImageSize], str | None], dict[str, Tensor]] | None = None
    embed: Callable[[Mapping[str, Any], Cond], dict[str, Tensor]] | None = None
    unread: Mapping[str, int] = field(default_factory=dict)
    reduction: int = 8
    patch: int = 1
    moments: Callable[[Any, Tensor], tuple[Tensor, Tensor]] = kl_moments
    micro_conditioning: tuple[str, ...] = ()
    widths: Callable[[Mapping[str, Any]], Mapping[str, int]] = joined
    packed: int = 1
    scale: tuple[str, ...] = ("scaling_factor",)
    undone: tuple[str, ...] = ("scaling_factor",)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    decodable: Callable[[Tensor], Tensor] = lambda latent: latent

    @property
    def multiple(self) -> int:
        """What the side of an image in pixels must be divisible by."""
        return self.reduction * self.patch


FAMILIES = ("sd15", "sdxl", "sd3", "flux", "sana", "qwen_image", "z_image", "flux2_klein")


def family(name: str) -> Family:
    """A family by name."""
    if name not in FAMILIES:
        raise ConfigError(f"unknown family {name!r}", where="model.family", remedy=nearest(name, ("auto", *FAMILIES)))
    return importlib.import_module(f"finepref.models.{name}").FAMILY


def family_of(source: Source, name: str = "auto") -> Family:
    """The family of a pipeline folder by its model_index.json; a named family must serve that pipeline class.

    Raises:
        InputError: a pipeline class that no family (or not the named one) serves.
    """
    written = str(source.index.get("_class_name", ""))
    if isinstance(source.index.get("_class_name"), list):
        what = f"its pipeline is {written}, code that the folder brings, which finepref does not run"
        raise InputError(what, where=source.name, remedy="give a plain pipeline, such as the base of its runs")
    candidates = [family(name)] if name != "auto" else [family(each) for each in FAMILIES]
    for found in candidates:
        if written in found.pipelines:
            return found
    served = ", ".join(p for each in candidates for p in each.pipelines)
    remedy = f"served: {served}"
    raise InputError(f"pipeline class {written!r} is not served", where=source.name, remedy=remedy)


def text_parts(found: Family, source: Source) -> list[str]:
    """The text encoders of a family that a pipeline has, by part."""
    return [encoder for _, encoder in found.texts if source.has(encoder)]


def check_micro_conditioning(found: Family, value: str | None) -> str | None:
    """The micro-conditioning rule in force; an option without effect is refused."""
    if value is None:
        return found.micro_conditioning[0] if found.micro_conditioning else None
    if value not in found.micro_conditioning:
        remedy = nearest(value, found.micro_conditioning) if found.micro_conditioning else "drop the option"
        raise ConfigError(f"{found.name} has no {value!r}", where="model.micro_conditioning", remedy=remedy)
    return value


def image_labels(t: Tensor, x: Tensor) -> Tensor:
    """Flow level s [N] on x's device, in float32: what transformers take as a time label before their own scale."""
    return t.to(x.device, torch.float32)
