"""What a single-file checkpoint of each pipeline holds: its parts, where they begin, and what of it may be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finepref.core.errors import InputError
from finepref.models import original, original_flow
from finepref.models.original import Translate


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of a pipeline in a single file.

    name: of the diffusers part. prefixes: what its tensors' names may begin with; the first is written.
    layout: (config of the part, names of its tensors in diffusers) -> map of the names.
    identity: tensors that are the identity where a file has none. tied: tensors that are another one again.
    when: whether a part with this config is written so.
    """

    name: str
    prefixes: tuple[str, ...]
    layout: Callable[[Mapping[str, Any], Iterable[str]], Translate]
    identity: tuple[str, ...] = ()
    tied: tuple[tuple[str, str], ...] = ()
    when: Callable[[Mapping[str, Any]], bool] = lambda _: True


def _is_open_clip(config: Mapping[str, Any]) -> bool:
    """OpenCLIP's networks have GELU, those of OpenAI its quick approximation."""
    return config.get("hidden_act") == "gelu"


_VAE = FilePart("vae", ("first_stage_model.", "vae."), original.vae)
_UNET = FilePart("unet", ("model.diffusion_model.",), original.unet)
_TRANSFORMER = ("model.diffusion_model.", "")
_CLIP_L, _CLIP_G, _T5 = (f"text_encoders.{name}.transformer." for name in ("clip_l", "clip_g", "t5xxl"))
_TIED = (("encoder.embed_tokens.weight", "shared.weight"),)

LAYOUTS: Mapping[str, tuple[FilePart, ...]] = {
    "StableDiffusionPipeline": (
        _UNET,
        _VAE,
        FilePart(
            "text_encoder", ("cond_stage_model.transformer.",), original.clip, when=lambda each: not _is_open_clip(each)
        ),
        FilePart("text_encoder", ("cond_stage_model.model.",), original.open_clip, when=_is_open_clip),
    ),
    "StableDiffusionXLPipeline": (
        _UNET,
        _VAE,
        FilePart("text_encoder", ("conditioner.embedders.0.transformer.",), original.clip),
        FilePart("text_encoder_2", ("conditioner.embedders.1.model.",), original.open_clip),
    ),
    "StableDiffusion3Pipeline": (
        FilePart("transformer", _TRANSFORMER, original_flow.sd3),
        _VAE,
        FilePart("text_encoder", (_CLIP_L,), original.clip, identity=("text_projection.weight",)),
        FilePart("text_encoder_2", (_CLIP_G,), original.clip),
        FilePart("text_encoder_3", (_T5,), original.same, tied=_TIED),
    ),
    "FluxPipeline": (
        FilePart("transformer", _TRANSFORMER, original_flow.flux),
        FilePart("vae", ("vae.", "first_stage_model."), original.vae),
        FilePart("text_encoder", (_CLIP_L,), original.clip),
        FilePart("text_encoder_2", (_T5,), original.same, tied=_TIED),
    ),
}
"""Pipeline class -> its parts. Sources: diffusers 0.42 loaders/single_file_utils.py; sd3-ref (the identity)."""

VAE_FILE = FilePart("vae", ("", "first_stage_model.", "vae."), original.vae)
"""A VAE alone in a file."""

LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "positions 0, 1, 2, ..., which the text encoder counts itself": ("*.embeddings.position_ids",),
    "the noise schedule, which the scheduler's config holds": (
        *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
        *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
        *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
        *("logvar", "lvlb_weights", "denoiser.sigmas", "model_sampling.sigmas"),
    ),
    "the trainer's running average; the weights themselves are taken, as diffusers takes them": ("model_ema.*",),
    "the temperature of CLIP's contrastive loss": ("*.logit_scale",),
    "what only the training of the VAE needs": ("loss.*", "first_stage_model.loss.*"),
    "the projection of CLIP's contrastive loss, which no prompt passes": (
        "cond_stage_model.model.text_projection",
        "cond_stage_model.transformer.text_projection.weight",
        "conditioner.embedders.0.transformer.text_projection.weight",
        f"{_CLIP_L}text_projection.weight",
    ),
    "what says that the network predicts velocity (and has a schedule down to zero), as the scheduler's config does": (
        "v_pred",
        "ztsnr",
    ),
}
"""Why tensors of a checkpoint that are no weights of a part are not used, and their names; all others are refused."""


def layout_of(pipeline: str, *, where: object) -> tuple[FilePart, ...]:
    """The parts of a pipeline class.

    Raises:
        InputError: it has no single-file layout.
    """
    if pipeline not in LAYOUTS:
        what = f"a {pipeline} has no single-file layout"
        raise InputError(what, where=where, remedy=f"those that have one: {', '.join(LAYOUTS)}")
    return LAYOUTS[pipeline]
