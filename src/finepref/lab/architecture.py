"""The parts of the lab's Stable-Diffusion pipeline, untrained: tokenizer, text encoder, autoencoder, UNet, scheduler.

Sizes: pictures 32x32, latents [4,8,8] (an f4 autoencoder), prompts of at most 16 tokens, width 64.
"""

from __future__ import annotations

import functools
from typing import Any, cast

from finepref.lab import world

TOKENS = 16
WIDTH = 64
START, END = "<|startoftext|>", "<|endoftext|>"


def _bytes_as_letters() -> list[str]:
    """The 256 printable stand-ins for bytes of byte-level BPE, as in GPT-2 and CLIP."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


@functools.cache
def vocabulary() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """CLIP's byte-level vocabulary and merges, with merges for the words of the world alone.

    Any text has tokens (its letters); a word of the world is one token.
    """
    words = ["a", "an", "on", "background", *world.COLOURS, *world.SHAPES, *world.BACKGROUNDS]
    letters = _bytes_as_letters()
    names = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        right = word[-1] + "</w>"
        for letter in reversed(word[:-1]):
            if (letter, right) not in merges:
                merges.append((letter, right))
                names.append(letter + right)
            right = letter + right
    names = [*dict.fromkeys(names), START, END]
    return {name: i for i, name in enumerate(names)}, tuple(merges)


def tokenizer() -> Any:
    """The lab's CLIPTokenizer (transformers 5: `vocab=`, `merges=`; other spellings are swallowed silently)."""
    from transformers import CLIPTokenizer

    vocab, merges = vocabulary()
    made = CLIPTokenizer(
        vocab=dict(vocab),
        merges=cast(Any, list(merges)),
        model_max_length=TOKENS,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
    )
    if len(made) != len(vocab):
        raise RuntimeError(f"the tokenizer holds {len(made)} tokens instead of {len(vocab)}")
    return made


def text_encoder() -> Any:
    """An untrained CLIPTextModel of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    vocab, _ = vocabulary()
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=vocab[START],
        eos_token_id=vocab[END],
        pad_token_id=vocab[END],
    )
    return CLIPTextModel(config)


def autoencoder(scaling_factor: float = 1.0) -> Any:
    """An untrained AutoencoderKL: 32x32x3 -> 8x8x4. `scaling_factor` is one over the latents' standard deviation."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=world.SIZE,
        block_out_channels=(16, 32, 48),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=scaling_factor,
    )


def unet() -> Any:
    """An untrained UNet2DConditionModel on [4,8,8] latents: 2.2 million parameters, text attention at 4x4."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def scheduler() -> Any:
    """Stable Diffusion's DDIM scheduler: scaled_linear betas, epsilon prediction, 1000 steps."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
