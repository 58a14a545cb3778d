"""Broken files: whatever the bytes, decoding gives a square or one reason, never another exception."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from drawn import examples
from finepref.core.images import Unreadable, square

RNG = np.random.default_rng(0)


def sample(kind: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    pixels = RNG.integers(0, 255, (24, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


FILES = [
    sample(k, m)
    for k, m in (("PNG", "RGBA"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "P"), ("TIFF", "LA"), ("BMP", "RGB"))
]


@examples(150)
@given(
    data=st.sampled_from(FILES),
    cut=st.integers(0, 4000),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=12),
    resolution=st.sampled_from([1, 8, 33]),
)
def test_any_bytes(data: bytes, cut: int, edits: list[tuple[int, int]], resolution: int) -> None:
    broken = bytearray(data)
    for at, value in edits:
        broken[at % len(broken)] = value
    if cut < len(broken):
        broken = broken[: len(broken) - cut]
    try:
        pixels, size = square(bytes(broken), resolution)
    except Unreadable as error:
        reason = str(error)
    else:
        reason = "it is readable"
        assert pixels.shape == (3, resolution, resolution)
        assert size.original_height > 0
        assert min(size.crop_top, size.crop_left) >= 0
    assert reason
