"""Stable Diffusion pipelines whose guidance leads away from a second network (Diffusion-NPO, ICLR 2025).

    v = v_neg(x, negative prompt) + scale (v(x, prompt) - v_neg(x, negative prompt))

The second network, trained on losers, is one more part of the pipeline: `negative_unet` or `negative_transformer`.
This file needs torch and diffusers alone; it lies as pipeline.py in a folder that `finepref export --negative` wrote.

    pipe = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)

Shapes: N images, 2N rows of cat(negative, prompt).
"""

# mypy: disable-error-code="no-untyped-def, attr-defined, misc"

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline, StableDiffusionXLPipeline


def guided_forward(pipeline: Any, network: Any, negative: Any) -> Callable[..., Any]:
    """What stands for `network.forward` in a pipeline: the first half of its rows goes to the negative network."""
    plain = network.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not pipeline.do_classifier_free_guidance:
            return plain(*args, **kwargs)
        rows = len(args[0] if args else kwargs["hidden_states"])
        (first, named), (second, also) = (_half((args, kwargs), rows, start) for start in (0, rows // 2))
        return (torch.cat([negative(*first, **named)[0], plain(*second, **also)[0]]),)

    return forward


def _half(value: Any, rows: int, start: int) -> Any:
    """The first or second half of every tensor that has a row an image."""
    if isinstance(value, torch.Tensor):
        return value[start : start + rows // 2] if value.ndim and len(value) == rows else value
    if isinstance(value, dict):
        return {key: _half(each, rows, start) for key, each in value.items()}
    return tuple(_half(each, rows, start) for each in value) if isinstance(value, tuple) else value


@contextmanager
def guided(pipeline: Any, network: Any, negative: Any) -> Iterator[None]:
    """Put `guided_forward` into a network for a while."""
    plain = network.forward
    network.forward = guided_forward(pipeline, network, negative)
    try:
        yield
    finally:
        network.forward = plain


class NegativeStableDiffusionPipeline(StableDiffusionPipeline):
    """Stable Diffusion with a `negative_unet`."""

    model_cpu_offload_seq = "text_encoder->image_encoder->unet->negative_unet->vae"

    def __init__(
        self, *, vae, text_encoder, tokenizer, unet, scheduler, safety_checker, feature_extractor, negative_unet,
        image_encoder=None, requires_safety_checker=True,
    ):  # fmt: skip
        super().__init__(
            vae, text_encoder, tokenizer, unet, scheduler, safety_checker, feature_extractor,
            image_encoder, requires_safety_checker,
        )  # fmt: skip
        self.register_modules(negative_unet=negative_unet)

    def __call__(self, *args, **kwargs):
        """As its parent's."""
        with guided(self, self.unet, self.negative_unet):
            return super().__call__(*args, **kwargs)


class NegativeStableDiffusionXLPipeline(StableDiffusionXLPipeline):
    """Stable Diffusion XL with a `negative_unet`."""

    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->unet->negative_unet->vae"

    def __init__(
        self, *, vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, scheduler, negative_unet,
        image_encoder=None, feature_extractor=None, force_zeros_for_empty_prompt=True, add_watermarker=None,
    ):  # fmt: skip
        super().__init__(
            vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, scheduler,
            image_encoder, feature_extractor, force_zeros_for_empty_prompt, add_watermarker,
        )  # fmt: skip
        self.register_modules(negative_unet=negative_unet)

    def __call__(self, *args, **kwargs):
        """As its parent's."""
        with guided(self, self.unet, self.negative_unet):
            return super().__call__(*args, **kwargs)


class NegativeStableDiffusion3Pipeline(StableDiffusion3Pipeline):
    """Stable Diffusion 3 with a `negative_transformer`."""

    model_cpu_offload_seq = (
        "text_encoder->text_encoder_2->text_encoder_3->image_encoder->transformer->negative_transformer->vae"
    )

    def __init__(
        self, *, transformer, scheduler, vae, text_encoder, tokenizer, text_encoder_2, tokenizer_2, text_encoder_3,
        tokenizer_3, negative_transformer, image_encoder=None, feature_extractor=None,
    ):  # fmt: skip
        super().__init__(
            transformer, scheduler, vae, text_encoder, tokenizer, text_encoder_2, tokenizer_2, text_encoder_3,
            tokenizer_3, image_encoder, feature_extractor,
        )  # fmt: skip
        self.register_modules(negative_transformer=negative_transformer)

    def __call__(self, *args, **kwargs):
        """As its parent's."""
        with guided(self, self.transformer, self.negative_transformer):
            return super().__call__(*args, **kwargs)
