"""Any file to upright RGB squares, or one reason why not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from finepref.core.buckets import Bucket
from finepref.core.images import Unreadable, fitted, open_rgb, plain_size


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 5 % 256, y * 7 % 256, (x + y) % 256], -1).astype(np.uint8))


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),  # transparent is white, not the colour hidden under it
        ("LA", (40, 0), (255, 255, 255)),
        ("I;16", 0x4D00, (77, 77, 77)),
    ],
)
def test_modes(mode: str, value, expected: tuple[int, int, int]) -> None:
    image = Image.new(mode, (4, 4), value)
    assert open_rgb(encode(image)).getpixel((1, 1)) == expected


def test_palette_with_transparency_and_cmyk() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    assert open_rgb(encode(image)).getpixel((0, 0)) == (200, 100, 50)
    assert open_rgb(encode(image, transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = open_rgb(encode(cmyk, "JPEG", quality=95)).getpixel((5, 5))
    assert red[0] > 240
    assert max(red[1:]) < 20


def test_exif_orientation_is_applied() -> None:
    image = gradient(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 270 to stand upright
    upright = open_rgb(encode(image, "PNG", exif=exif))
    assert upright.size == (4, 6)
    np.testing.assert_array_equal(np.asarray(upright), np.rot90(np.asarray(image), -1))
    _, size = fitted(encode(image, "PNG", exif=exif), Bucket(4, 4))
    assert (size.original_height, size.original_width) == (6, 4)


@pytest.mark.parametrize(
    ("width", "height", "resolution", "resized", "top", "left"),
    [
        (40, 36, 32, (35, 32), 0, 2),  # int(32*40/36) = 35; (35-32)/2 = 1.5 rounds to 2
        (36, 40, 32, (32, 35), 2, 0),
        (64, 32, 32, (64, 32), 0, 16),
        (32, 32, 32, (32, 32), 0, 0),
        (10, 30, 20, (20, 60), 20, 0),  # upscaled
        (33, 57, 32, (32, 55), 12, 0),  # (55-32)/2 = 11.5 rounds to 12
    ],
)
def test_resize_of_the_short_side_and_centre_crop(
    width: int, height: int, resolution: int, resized: tuple[int, int], top: int, left: int
) -> None:
    image = gradient(width, height)
    pixels, size = fitted(encode(image), Bucket(resolution, resolution))
    assert pixels.shape == (3, resolution, resolution)
    assert pixels.dtype == np.uint8
    assert (size.original_height, size.original_width, size.crop_top, size.crop_left) == (height, width, top, left)
    whole = np.asarray(image.resize(resized, Image.Resampling.BILINEAR) if resized != image.size else image)
    expected = whole[top : top + resolution, left : left + resolution].transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels, expected)


def test_too_long() -> None:
    with pytest.raises(Unreadable, match="longer than 32:1"):
        fitted(encode(gradient(200, 4)), Bucket(8, 8))
    assert plain_size(encode(gradient(64, 48), "JPEG")) == (64, 48)
