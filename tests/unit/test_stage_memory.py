"""The memory of caching and drawing: sums by hand, against tensors that live, and what makes a stage fit a card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import tiny
from finepref.models.family import family_of
from finepref.models.source import load_vae, locate
from finepref.plan.cards import Gpu
from finepref.plan.needs import Counts, StageMemory
from finepref.plan.skeleton import Peak, count
from finepref.plan.stage_memory import PICTURES, caching, drawing, fitting, stage_words
from finepref.train.config import RunConfig, parse_config

G = 10**9
COUNTS = Counts(
    parameters=4 * G, trained=0, castable=4 * G, linear=2 * G, factored=0, latent=(4, 8, 8), condition=0,
    forward_flop=0, training_flop=0, training_bytes=0, forward_bytes=1.0 * G, vae_parameters=G // 4, vae_flop=0,
    decoder_parameters=G // 4, decoder_bytes=3.0 * G, text_parameters=5 * G, text_flop=0, largest_text=4 * G,
    encoder_bytes=2.0 * G,
)  # fmt: skip


def config(**sections: object) -> RunConfig:
    return parse_config({"model": {"base": "x"}, **sections})


def test_caching_by_hand() -> None:
    """float32: texts 20 GB, VAE 2 GB with 2 GB an image; bf16 halves all but the VAE's weights."""
    plain = caching(config(cache={"batch_size": 3}), COUNTS)
    assert plain == StageMemory(batch=3, together_gb=28.0, apart_gb=16.0)
    assert caching(config(), COUNTS, batch=9) == StageMemory(batch=9, together_gb=40.0, apart_gb=20.0)
    half = caching(config(cache={"batch_size": 3, "mixed_precision": "bf16"}), COUNTS)
    assert half == StageMemory(batch=3, together_gb=15.0, apart_gb=8.0)


def test_drawing_by_hand() -> None:
    """Denoiser 16 GB, VAE 2, texts 20; of a picture 2 calls of 1 GB, then 3 GB to decode it."""
    assert drawing(config(), COUNTS, batch=1) == StageMemory(batch=1, together_gb=41.0, apart_gb=18.0)
    half = {"train": {"mixed_precision": "bf16"}, "lora": {"rank": 4}}
    assert drawing(config(**half), COUNTS, batch=2) == StageMemory(batch=2, together_gb=23.0, apart_gb=12.0)
    less = {**half, "model": {"base": "x", "quantize": "int8"}}  # of 2e9 weights a byte each
    assert drawing(config(**less), COUNTS, batch=2) == StageMemory(batch=2, together_gb=21.0, apart_gb=10.0)
    full = {"train": {"mixed_precision": "bf16"}}  # forward_bytes are the half copies that a half network has not
    assert drawing(config(**full), COUNTS, batch=2).apart_gb == 8.0


@pytest.mark.parametrize("family", ["sd15", "flux", "qwen_image"])
def test_encoding_is_what_lives(family: str, tmp_path: Path) -> None:
    """The most bytes alive while three images are encoded, three times those counted for one."""
    base = tiny.BUILDERS[family](tmp_path)
    source = locate(base)
    kind, vae = family_of(source, "auto"), load_vae(source, None)
    pixels = torch.zeros(3, 3, 32, 32)
    with torch.no_grad(), Peak([*vae.parameters(), *vae.buffers(), pixels]) as peak:
        kind.moments(vae, pixels)
    assert 3 * count(base, resolution=32)[0].encoder_bytes == pytest.approx(peak.highest, rel=0.02)


@pytest.mark.parametrize(
    ("memory", "found"),
    [(100, (8, False)), (31, (4, False)), (26, (1, False)), (24, (8, True)), (17, (2, True)), (9, (1, True))],
)
def test_smaller_batches_are_tried_before_offload(memory: float, found: tuple[int, bool]) -> None:
    """Parts / 0.95 + 1.5 GB must fit; where nothing does, the least is tried."""

    def stage(batch: int) -> StageMemory:
        return StageMemory(batch=batch, together_gb=22.0 + batch, apart_gb=12.0 + batch)

    assert fitting(stage, 8, Gpu("own", memory, None, None, "")) == found


def test_words_of_the_commands() -> None:
    half = config(cache={"mixed_precision": "bf16"}, train={"mixed_precision": "fp16"}, lora={"rank": 4})
    big = Gpu("own", 1000.0, None, None, "")
    assert stage_words(half, COUNTS, big) == ([], ["--precision", "fp16"])
    small = dataclasses.replace(big, memory_gb=13.0)
    caches, drawn = stage_words(half, COUNTS, small)
    assert caches == ["cache.batch_size=8", "cache.offload=true"]
    assert drawn == ["--precision", "fp16", "--batch-size", "1", "--offload"]
    assert PICTURES == 8
