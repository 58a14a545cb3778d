"""The section `model` of a run's config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finepref.core.options import Options, told
from finepref.models.quantized import Quantization
from finepref.models.source import BaseOptions


class ModelSection(Options):
    """Which model is trained."""

    base: str = Field(
        description="diffusers folder, single-file checkpoint (.safetensors) or hub name; `lab` is the embedded world"
    )
    revision: str | None = told(None, "hub revision")
    variant: str | None = told(None, "of the base's weight files, such as fp16 for model.fp16.safetensors")
    config: str | None = told(
        None,
        "of a single file: diffusers folder or hub name whose configs and tokenizers are used, and whose weights for "
        "parts that the file lacks; null = the published repository of its family",
        min_length=1,
    )
    prediction_type: Literal["epsilon", "v_prediction"] | None = told(
        None, "of a single file that does not say it; null = what its marks or its config say"
    )
    quantize: Quantization | None = told(
        None, "int8 | nf4: the frozen base of a LoRA in 8 or 4 bits, which need finepref[quant] or finepref[bnb]"
    )
    family: str = told("auto", "auto | sd15 | sdxl | sd3 | flux | ...; auto reads model_index.json")
    vae: str | None = told(
        None, "another VAE (folder, .safetensors or hub name), e.g. the fp16-safe SDXL VAE", min_length=1
    )
    init_from: str | None = told(
        None,
        "run, unet/transformer folder or LoRA file that policy AND reference start from (docs/backbones)",
        min_length=1,
    )
    micro_conditioning: Literal["true", "official"] | None = told(
        None, "SDXL: true sizes and crops of each image, or the official [R,R,0,0,R,R]; null = true"
    )

    def said(self) -> BaseOptions:
        """How the base is read."""
        return BaseOptions(
            revision=self.revision, variant=self.variant, config=self.config, prediction_type=self.prediction_type
        )
