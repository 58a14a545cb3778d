"""Small scorers for tests: the golden files' architectures with seeded weights, and vocabularies that fit them."""

from __future__ import annotations

import itertools
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from finepref.evaluate.scorers import blip, clip
from finepref.evaluate.scorers.clip import ClipShape, Tower
from finepref.evaluate.scorers.tokenizer import END, LETTERS, START

VOCAB, END_ID = 1000, 999
TINY_CLIP = ClipShape(48, Tower(2, 80, 4, 160), Tower(2, 64, 4, 128), "gelu", image=56, vocab=VOCAB, end=END_ID)
TINY_BLIP = blip.BlipShape(vision=Tower(2, 64, 4, 128), text=Tower(2, 48, 4, 96), image=64, vocab=VOCAB, positions=64)


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    """Seeded standard normal numbers, float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def open_clip_state(shape: ClipShape = TINY_CLIP, seed: int = 0) -> dict[str, Tensor]:
    """Seeded weights in open_clip's names and shapes."""
    text, vision = shape.text, shape.vision
    sizes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (shape.context, text.width),
        "text_projection": (text.width, shape.embed),
        "logit_scale": (),
        "token_embedding.weight": (shape.vocab, text.width),
        "ln_final.weight": (text.width,),
        "ln_final.bias": (text.width,),
        "visual.class_embedding": (vision.width,),
        "visual.positional_embedding": ((shape.image // shape.patch) ** 2 + 1, vision.width),
        "visual.proj": (vision.width, shape.embed),
        "visual.conv1.weight": (vision.width, 3, shape.patch, shape.patch),
        **{f"visual.{n}.{k}": (vision.width,) for n in ("ln_pre", "ln_post") for k in ("weight", "bias")},
    }
    for prefix, tower in (("", text), ("visual.", vision)):
        for layer in range(tower.layers):
            block = f"{prefix}transformer.resblocks.{layer}"
            sizes |= {f"{block}.{n}.{k}": (tower.width,) for n in ("ln_1", "ln_2") for k in ("weight", "bias")}
            sizes[f"{block}.attn.in_proj_weight"] = (3 * tower.width, tower.width)
            sizes[f"{block}.attn.in_proj_bias"] = (3 * tower.width,)
            linear = (("attn.out_proj", tower.width, tower.width), ("mlp.c_fc", tower.mlp, tower.width))
            for name, rows, columns in (*linear, ("mlp.c_proj", tower.width, tower.mlp)):
                sizes[f"{block}.{name}.weight"] = (rows, columns)
                sizes[f"{block}.{name}.bias"] = (rows,)
    state = {}
    for number, (name, size) in enumerate(sizes.items()):
        scale = 0.5 if len(size) < 2 or "embedding" in name else float(np.prod(size[1:])) ** -0.5
        state[name] = scale * draw(size, 1000 * seed + number)
    state["logit_scale"] = torch.tensor(4.6052)
    return state


def fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every published architecture the tiny one, so that commands and specs can load tiny weights."""
    for name in clip.SHAPES:
        monkeypatch.setitem(clip.SHAPES, name, TINY_CLIP)
    monkeypatch.setattr(blip, "IMAGEREWARD", TINY_BLIP)


def reward_state(seed: int = 0) -> dict[str, Tensor]:
    """Seeded weights of a tiny `RewardNetwork`, in its own names."""
    network = blip.RewardNetwork(TINY_BLIP)
    state = {}
    for number, (name, tensor) in enumerate(network.state_dict().items()):
        scale = float(np.prod(tensor.shape[1:])) ** -0.5 if tensor.ndim > 1 else 0.5
        state[name] = scale * draw(tuple(tensor.shape), 1000 * seed + number)
    return state


def clip_vocabulary(folder: Path) -> Path:
    """vocab.json and merges.txt of 1000 pieces: bytes, letter pairs, start and end."""
    letters = LETTERS.values()
    pairs = list(itertools.islice(itertools.product(string.ascii_lowercase, repeat=2), VOCAB - 514))
    words = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in pairs), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in pairs) + "\n")
    return folder


def bert_vocabulary(folder: Path, words: tuple[str, ...] = ()) -> Path:
    """vocab.txt with the special words, letters and letter continuations."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*special, *words, *letters, *(f"##{c}" for c in letters)]) + "\n")
    return folder


SPECS = {
    "hpsv2.0": "HPS_v2_compressed.pt",
    "hpsv2.1:tensor_noaa": "HPS_v2.1_compressed.pt",
    "clip-h": "HPS_v2_compressed.pt",
    "imagereward": "ImageReward.pt",
    "aesthetic": "head.pth",
}
HEAD_SIZES = (48, 1024, 128, 64, 16, 1)


def official_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny files in the official containers, and vocabularies beside them."""
    fitted(monkeypatch)
    monkeypatch.setattr("finepref.evaluate.scorers.families.WIDTH", 48)
    folder = clip_vocabulary(bert_vocabulary(place))
    half = {name: t.half() for name, t in open_clip_state().items()}
    torch.save({"state_dict": half, "epoch": 1}, folder / "HPS_v2_compressed.pt")
    torch.save({"state_dict": half}, folder / "HPS_v2.1_compressed.pt")
    torch.save(reward_state(), folder / "ImageReward.pt")
    state: dict[str, Tensor] = {}
    for index, a, b in zip((0, 2, 4, 6, 7), HEAD_SIZES[:-1], HEAD_SIZES[1:], strict=True):
        state |= {f"layers.{index}.weight": draw((b, a), index) / a**0.5, f"layers.{index}.bias": draw((b,), index)}
    torch.save(state, folder / "head.pth")
    (folder / "backbone").mkdir()
    save_file(open_clip_state(), folder / "backbone" / "model.safetensors")
    return folder


def picture(width: int = 70, height: int = 50, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A seeded noise image."""
    generator = np.random.Generator(np.random.Philox(seed))
    values = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def pictures(count: int) -> list[Image.Image]:
    """Noise images of different sizes."""
    return [picture(40 + 9 * number, 90 - 7 * number, number) for number in range(count)]


PROMPTS: tuple[str, ...] = (
    "a cat",
    "",
    "two dogs in the rain, oil painting",
    "a cat",
    " ".join(["word"] * 300),
    "“curly” &amp; caf\u00e9",
    "x",
    "a photograph of an astronaut riding a horse",
)


def meta(record: dict[str, Any]) -> dict[str, Tensor]:
    """Shapes as meta tensors."""
    return {name: torch.empty(tuple(shape), device="meta") for name, shape in record.items()}
