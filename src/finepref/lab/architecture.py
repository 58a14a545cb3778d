"""The parts of the lab's Stable-Diffusion pipeline, untrained: tokenizer, text encoder, autoencoder, UNet, scheduler.

Their numbers are in architecture.json: pictures 32x32, latents [4,8,8] (an f4 autoencoder), width 64; prompts have at
most 16 tokens.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

from finepref.core.files import read_json
from finepref.lab import world

TOKENS = 16
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
    special: dict[str, Any] = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    made = CLIPTokenizer(vocab=dict(vocab), merges=cast(Any, list(merges)), model_max_length=TOKENS, **special)
    if len(made) != len(vocab):
        raise RuntimeError(f"the tokenizer holds {len(made)} tokens instead of {len(vocab)}")
    return made


def _config(part: str) -> dict[str, Any]:
    """The numbers of a part, as the config.json of its diffusers folder has them."""
    return read_json(Path(__file__).with_name("architecture.json"))[part]


def text_encoder() -> Any:
    """An untrained CLIPTextModel of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    vocab, _ = vocabulary()
    tokens: dict[str, Any] = {"bos_token_id": vocab[START], "eos_token_id": vocab[END], "pad_token_id": vocab[END]}
    sizes = {"vocab_size": len(vocab), "max_position_embeddings": TOKENS, **_config("text_encoder")}
    return CLIPTextModel(CLIPTextConfig(**tokens, **sizes))


def autoencoder(scaling_factor: float = 1.0) -> Any:
    """An untrained AutoencoderKL: 32x32x3 -> 8x8x4. `scaling_factor` is one over the latents' standard deviation."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**_config("vae"), scaling_factor=scaling_factor)


def unet() -> Any:
    """An untrained UNet2DConditionModel on [4,8,8] latents: 2.2 million parameters, text attention at 4x4."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**_config("unet"))


def scheduler() -> Any:
    """Stable Diffusion's DDIM scheduler: scaled_linear betas, epsilon prediction, 1000 steps."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(**_config("scheduler"))
