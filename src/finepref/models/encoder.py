"""Images and prompts to latents and embeddings: a diffusers pipeline without its denoiser.

Shapes: N images, H W size of a bucket, C channels, h w latent, L tokens, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from finepref.core.buckets import Bucket, buckets_of
from finepref.core.device import free_memory
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import read_object
from finepref.core.provenance import hash_config, sha256_folder
from finepref.formats.cache import LATER
from finepref.models.family import family_of
from finepref.models.pipeline_parts import check_parts, check_tokenizers, check_weights
from finepref.models.precision import compute_dtype
from finepref.models.source import BaseOptions, assemble, empty_part, load_part, load_vae, locate, quiet, vae_folder
from finepref.models.variant import TEXTS

FP16_VAE = "madebyollin/sdxl-vae-fp16-fix"
"""SDXL's VAE with smaller activations, by its card: the original's overflow in float16."""


class LatentEncoder:
    """The VAE and text encoders of `base` (folder or hub name), each read when it is first used, all checked at once.

    Args:
        vae: another VAE (folder or hub name), None for the base's own.
        resolution: side of the square images in pixels. buckets: whether images have other shapes too.
        mixed_precision: the VAE (full-precision weights) runs under that autocast; text encoders are loaded in that
            type.
        offload: one network at a time is on the device: the VAE is forgotten when text encoders are read, and the
            reverse; of several text encoders those that do not work wait on the CPU.
        said: of the base, see `models.source.locate`.

    Raises:
        InputError: no such model, weights missing, parts that do not fit each other (see `models.pipeline_parts`), or
            numbers beyond float16.
        ConfigError: a resolution the VAE cannot take.
    """

    def __init__(
        self,
        base: str | Path,
        *,
        resolution: int,
        buckets: bool = False,
        family: str = "auto",
        vae: str | None = None,
        device: str | torch.device = "cpu",
        mixed_precision: str = "no",
        offload: bool = False,
        **said: Unpack[BaseOptions],
    ) -> None:
        self.source = locate(base, **said)
        self.family = family_of(self.source, family)
        multiple = self.family.multiple
        if resolution <= 0 or resolution % multiple:
            remedy = f"use {max(1, round(resolution / multiple)) * multiple}"
            what = f"resolution {resolution} is not a multiple of {multiple}"
            raise ConfigError(what, where="data.resolution", remedy=remedy)
        self.resolution, self.device = resolution, torch.device(device)
        self._vae_override = vae
        check_parts(self.source, self.family, vae)
        check_weights(self.source, self.family, vae)
        self.buckets: tuple[Bucket, ...] = (Bucket(resolution, resolution),)
        if buckets:
            unit = self.family.patch * reduction(vae_folder(self.source, vae))
            self.buckets = buckets_of(resolution, multiple=unit)
        self.tokenizers = check_tokenizers(self.source, self.family)
        self._dtype = compute_dtype(mixed_precision)
        self._apart, self._hooks = offload, list[Any]()

    @functools.cached_property
    def vae(self) -> Any:
        """The VAE on the device."""
        self._make_room("pipe")
        return load_vae(self.source, self._vae_override).to(self.device)

    @functools.cached_property
    def pipe(self) -> Any:
        """The pipeline with its text encoders alone."""
        self._make_room("vae")
        source, part = self.source, self.family.part
        held = [pair for pair in self.family.texts if source.has(pair[1])]
        dtype = self._dtype or torch.float32
        encoders = {name: load_part(source, name, dtype=dtype) for _, name in held}
        if self._apart and len(encoders) > 1:
            self._hooks = _taking_turns([*encoders.values()], self.device)
        else:
            encoders = {name: encoder.to(self.device) for name, encoder in encoders.items()}
        without: dict[str, Any] = {part: None, "vae": None, "scheduler": None}
        if len(held) < len(self.family.texts):
            without[part] = empty_part(source, part)  # asked how wide the states of an absent encoder are
        return assemble(source, without | encoders | self.tokenizers)

    def _make_room(self, other: str) -> None:
        if self._apart and self.__dict__.pop(other, None) is not None:
            self._hooks = []
            free_memory()

    def fingerprint(self) -> Mapping[str, str]:
        """Hashes of everything that shapes a latent or an embedding; nothing is loaded for it."""
        folder = self.source.folder
        names = [name for pair in self.family.texts for name in pair if self.source.has(name)]
        return {
            "family": self.family.name,
            "vae": sha256_folder(vae_folder(self.source, self._vae_override)),
            "precision": "full" if self._dtype is None else str(self._dtype).removeprefix("torch."),
            "text_settings": hash_config(self.family.settings)[:16],
            **{name: sha256_folder(folder / name) for name in names},
            **{f"{name}{LATER}": sha256_folder(folder / name, TEXTS) for name in names},
        }

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N,3,H,W] -> (mean, std) of the latent posterior, float32 [N,C,h,w], shifted and scaled as trained."""
        x = pixels.to(self.device).float().div(255.0).sub(0.5).div(0.5)
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            mean, std = self.family.moments(self.vae, x)
        self._check_range("latents", (mean, std), remedy=f"use no or bf16, or a model.vae for it, such as {FP16_VAE}")
        shift, scale = latent_scale(self.vae.config, mean.float())
        return (mean.float() - shift) * scale, std.float() * scale

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Prompts -> name -> float32 [N,...], exactly what the pipeline feeds its denoiser; "" like any other."""
        with quiet():
            encoded = self.family.encode(self.pipe, prompts)
        for hook in self._hooks:
            hook.offload()
        self._check_range("embeddings", encoded.values(), remedy="use no or bf16")
        return {name: value.float() if value.is_floating_point() else value for name, value in encoded.items()}

    def _check_range(self, what: str, values: Iterable[Tensor], *, remedy: str) -> None:
        """Refuse what float16, which ends at 65504, has made infinite or nan on the way."""
        if self._dtype is torch.float16 and not all(bool(value.isfinite().all()) for value in values):
            raise InputError(f"the {what} of this model overflow in fp16", where="cache.mixed_precision", remedy=remedy)


def _taking_turns(networks: Sequence[Any], device: torch.device) -> list[Any]:
    """Hooks by which each network is on the device while it works, and the one before it no longer."""
    from accelerate import cpu_offload_with_hook

    hooks: list[Any] = []
    for network in networks:
        hooks.append(cpu_offload_with_hook(network, device, prev_module_hook=hooks[-1] if hooks else None)[1])
    return hooks


def reduction(vae: Path) -> int:
    """Pixels of a VAE for one of its latent, by its config.json: the folder's, with a level for every halving."""
    config = read_object(vae / "config.json")
    names = ("block_out_channels", "encoder_block_out_channels", "dim_mult")
    levels = next((config[name] for name in names if isinstance(config.get(name), list)), [0])
    return int(2 ** (len(levels) - 1))


def latent_scale(config: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """(shift, scale) with latent = (z - shift) * scale, broadcastable to [N,C,h,w].

    scaling_factor and shift_factor; where the config holds latents_mean and latents_std (per channel), the shift is
    the mean and the scale is scaling_factor / std, as the pipelines undo it when they decode. What the family's
    pipeline does not undo is refused before (`models.pipeline_parts`).
    """
    factor = getattr(config, "scaling_factor", None)
    scale = like.new_tensor(1.0 if factor is None else factor)
    shift = like.new_tensor(getattr(config, "shift_factor", None) or 0.0)
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        shift = like.new_tensor(mean).view(1, -1, 1, 1)
        scale = scale / like.new_tensor(std).view(1, -1, 1, 1)
    return shift, scale
