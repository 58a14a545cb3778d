"""Tiny pipelines of every family, built by code: real classes, random weights, no download."""

from __future__ import annotations

import json
from pathlib import Path

import torch

WORDS = ("a", "red", "blue", "green", "circle", "square", "dog", "on", "photo", "of", "small", "large", "the", "and")


def clip_tokenizer(length: int = 77):
    """A CLIP tokenizer whose vocabulary is WORDS and single letters."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *[f"{c}</w>" for c in letters]]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = f"{parts[-2]} {parts[-1]}"
            if pair not in merges:
                merges.append(pair)
                tokens.append(parts[-2] + parts[-1])
            parts[-2:] = [parts[-2] + parts[-1]]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(
        vocab=vocab,
        merges=[tuple(m.split()) for m in merges],
        model_max_length=length,
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


def seeded(seed: int, make):
    """A network with weights from a seed, without touching the global stream."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return make().eval()


def clip_text(tokenizer, *, width: int = 32, projection: bool = False, seed: int = 0):
    """A two-layer CLIP text encoder that fits the tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    cls = CLIPTextModelWithProjection if projection else CLIPTextModel
    return seeded(seed, lambda: cls(config))


def kl_vae(*, channels: int = 4, seed: int = 1, shift: float | None = None, scale: float = 0.18215):
    """An f4 AutoencoderKL with 32 channels (f4 keeps tests fast; nothing depends on f8)."""
    from diffusers import AutoencoderKL

    return seeded(
        seed,
        lambda: AutoencoderKL(
            block_out_channels=(16, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=channels,
            layers_per_block=1,
            norm_num_groups=8,
            sample_size=32,
            shift_factor=shift,
            scaling_factor=scale,
            use_quant_conv=shift is None,
            use_post_quant_conv=shift is None,
        ),
    )


def sd15(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """A StableDiffusionPipeline folder: 32 x 32 images, 8 x 8 x 4 latents, scaled_linear schedule."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    tokenizer = clip_tokenizer()
    unet = seeded(
        seed + 10,
        lambda: UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=8,
        ),
    )
    pipe = StableDiffusionPipeline(
        vae=kl_vae(seed=seed + 1),
        text_encoder=clip_text(tokenizer, seed=seed),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return save(pipe, folder)


def save(pipe, folder: Path) -> Path:
    """Save a pipeline and hand back its folder."""
    pipe.save_pretrained(str(folder), safe_serialization=True)
    json.loads((folder / "model_index.json").read_text())
    return folder
