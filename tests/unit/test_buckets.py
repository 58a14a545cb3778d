"""Aspect-ratio buckets: which shapes there are, what a picture loses, what a pair shares."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from finepref.core.buckets import Bucket, best_bucket, bucket_of, buckets_of
from finepref.core.images import fitted, upright_size


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    """A picture whose red says the column and whose green the row, from 0 to 255."""
    columns, rows = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([columns, rows, np.zeros_like(rows)], axis=-1).round().astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(("resolution", "multiple"), [(32, 4), (64, 8), (512, 8), (512, 16), (1024, 8), (1024, 32)])
def test_shapes(resolution: int, multiple: int) -> None:
    """The square first; each a multiple of what the model takes, no larger than the square, and not much smaller."""
    found = buckets_of(resolution, multiple=multiple)
    assert found[0] == (resolution, resolution)
    assert len({*found}) == len(found)
    for bucket in found:
        assert bucket.height % multiple == bucket.width % multiple == 0
        assert 0.8 <= bucket.height * bucket.width / resolution**2 <= 1
        assert bucket_of(str(bucket)) == bucket
    assert {Bucket(width, height) for height, width in found} == {*found}


def test_a_side_that_no_step_divides() -> None:
    """The square is there whatever the resolution."""
    assert buckets_of(1032, multiple=8)[0] == (1032, 1032)


@pytest.mark.parametrize(("resolution", "multiple"), [(32, 4), (256, 8), (512, 8), (768, 16), (1024, 16)])
def test_three_to_two_loses_nothing(resolution: int, multiple: int) -> None:
    """The usual photograph, lying or standing."""
    for size in ((400, 600), (600, 400), (1000, 1500)):
        bucket = best_bucket(buckets_of(resolution, multiple=multiple), [size])
        assert bucket.lost(*size) == 0


@given(st.integers(100, 2000), st.integers(100, 2000))
def test_what_a_picture_loses(height: int, width: int) -> None:
    """Up to 3 : 1, at most 3 % of it; by its best bucket never more than by the square."""
    buckets = buckets_of(512, multiple=8)
    lost = best_bucket(buckets, [(height, width)]).lost(height, width)
    assert lost <= buckets[0].lost(height, width)
    if max(height, width) <= 3 * min(height, width):
        assert lost <= 0.03


def test_a_pair_shares_one() -> None:
    """The one in which neither loses much: of a square and a 3 : 2, a shape between them."""
    buckets = buckets_of(512, multiple=8)
    assert best_bucket(buckets, [(500, 500), (500, 500)]) == (512, 512)
    found = best_bucket(buckets, [(500, 500), (400, 600)])
    assert found.width / found.height == pytest.approx(1.5**0.5, rel=0.02)
    assert max(found.lost(500, 500), found.lost(400, 600)) == pytest.approx(1 - 1.5**-0.5, abs=0.02)


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (100, 60), (60, 60), (31, 97)])
@pytest.mark.parametrize("bucket", [Bucket(24, 36), Bucket(36, 24), Bucket(32, 32)])
def test_the_crop(size: tuple[int, int], bucket: Bucket) -> None:
    """What is shown is the middle of the picture, as much of it as the bucket holds; its crop says where it starts."""
    width, height = size
    pixels, told = fitted(png(width, height), bucket)
    assert pixels.shape == (3, *bucket)
    assert (told.original_height, told.original_width, told.bucket) == (height, width, bucket)
    share = 1 - bucket.lost(height, width)
    across, down = (1.0, share) if width * bucket.height <= height * bucket.width else (share, 1.0)
    for channel, axis, part in ((0, 1, across), (1, 0, down)):
        line = pixels[channel].mean(axis=1 - axis)
        pixel = 255 / bucket[axis]  # a pixel of the result, as far as colours change over it
        assert line[0] == pytest.approx(255 * (1 - part) / 2, abs=1.2 * pixel)
        assert line[-1] == pytest.approx(255 * (1 + part) / 2, abs=1.2 * pixel)
    mirror = told.mirrored()
    assert mirror.mirrored() == told
    assert min(told.crop_top, told.crop_left, mirror.crop_left) >= 0
    assert 0 in (told.crop_top, told.crop_left)


def test_the_size_of_an_upright_picture() -> None:
    """As it stands after EXIF, with and without a header that says all."""
    image = Image.open(io.BytesIO(png(30, 20)))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    image.save(turned, "JPEG", exif=exif)
    assert upright_size(turned.getvalue()) == (30, 20)
    assert upright_size(png(30, 20)) == upright_size(png(30, 20, "P")) == (20, 30)
