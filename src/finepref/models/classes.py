"""Which classes a model folder may name, part by part; no folder brings code of its own."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import read_object

_CLIP = ("CLIPTokenizer", "CLIPTokenizerFast")
_TOKENIZERS = (
    *_CLIP,
    *("T5Tokenizer", "T5TokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast"),
    *("Qwen2Tokenizer", "Qwen2TokenizerFast"),
)
_ENCODERS = (
    *("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel", "Gemma2Model"),
    *("Qwen2_5_VLForConditionalGeneration", "Qwen3Model", "Qwen3ForCausalLM"),
)
_SCHEDULERS = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler", "TCDScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "UniPCMultistepScheduler", "SASolverScheduler"),
    *("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
)
CLASSES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "pipeline": {
        "diffusers": (
            *("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline"),
            *("FluxPipeline", "SanaPipeline", "QwenImagePipeline", "ZImagePipeline", "Flux2KleinPipeline"),
        )
    },
    "unet": {"diffusers": ("UNet2DConditionModel",)},
    "transformer": {
        "diffusers": (
            *("SD3Transformer2DModel", "FluxTransformer2DModel", "SanaTransformer2DModel"),
            *("QwenImageTransformer2DModel", "ZImageTransformer2DModel", "Flux2Transformer2DModel"),
        )
    },
    "vae": {
        "diffusers": (
            *("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC", "AutoencoderKLQwenImage", "AutoencoderKLFlux2"),
        )
    },
    "text_encoder": {"transformers": _ENCODERS},
    "tokenizer": {"transformers": _TOKENIZERS},
    "scheduler": {"diffusers": _SCHEDULERS},
    "depth": {"transformers": ("DPTForDepthEstimation", "DepthAnythingForDepthEstimation")},  # of control maps
}
"""Kind of part -> library -> its classes. A kind is a part's name without its number (`text_encoder_2`)."""

CONFIGS = ("config.json", "tokenizer_config.json", "scheduler_config.json")
_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")


def load_class(library: object, name: object, *, part: str, where: object) -> Any:
    """The class of a part, if it is one that a family needs; nothing else is ever imported on a model file's word.

    Raises:
        InputError: a class of no family, or one that the installed library has not.
    """
    kind = part.rstrip("_0123456789")
    known = CLASSES.get(kind, {})
    if not isinstance(library, str) or not isinstance(name, str) or name not in known.get(library, ()):
        names = [each for names in known.values() for each in names]
        what = f"its {part} is {name!r} of {library!r}, which no family has"
        remedy = f"use a plain diffusers pipeline; known: {', '.join(names)}" if names else f"remove {part}"
        raise InputError(what, where=where, remedy=remedy)
    found = getattr(importlib.import_module(library), name, None)
    if not isinstance(found, type):
        raise InputError(f"{library} has no class {name!r}", where=where, remedy=f"install a {library} that has it")
    return found


def check_folder(folder: Path, cls: Any = None) -> None:
    """Refuse a part whose config files name code, or another class than the one that reads it.

    cls: the class of its weights; None for tokenizers and schedulers.

    Raises:
        InputError: `auto_map`, a kernel of the hub, a module that shadows a library's, or another class or model type
            than `cls`.
    """
    for file in (folder / f"{library}.py" for library in ("diffusers", "transformers")):
        if file.is_file():  # diffusers takes the part's class from it
            raise InputError("code beside a part, which is not ours to run", where=file, remedy="remove it")
    for file in (folder / name for name in CONFIGS):
        if not file.is_file():
            continue
        config = read_object(file)
        for key, value in _entries(config):
            if key == "auto_map" or (key in _KERNELS and "/" in str(value)):
                remedy = f"remove {key} if the plain class reads it, else use another model"
                raise InputError(f"it names code that is not ours to run ({key})", where=file, remedy=remedy)
        if cls is not None and file.name == "config.json":
            _check_names(config, cls, file)


def _check_names(config: Mapping[str, Any], cls: Any, file: Path) -> None:
    of_diffusers = cls.__module__.startswith("diffusers.")
    key = "_class_name" if of_diffusers else "model_type"
    wanted, found = cls.__name__ if of_diffusers else cls.config_class.model_type, config.get(key)
    inside = [part.get(key) for part in config.values() if isinstance(part, Mapping)]  # as in a whole CLIP's config
    if found is not None and found != wanted and wanted not in inside:
        remedy = "take part and index from one model"
        raise InputError(f"{key} is {found!r}, the pipeline needs {wanted!r}", where=file, remedy=remedy)


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """Every key and value at any depth."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield str(key), held
            yield from _entries(held)
    elif isinstance(value, list):
        for held in value:
            yield from _entries(held)
