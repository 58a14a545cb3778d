"""Encoded bytes to square uint8 pixels, whatever the file's mode, orientation or condition.

Shapes: H W size after EXIF rotation, R resolution.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


@dataclass(frozen=True, slots=True)
class ImageSize:
    """The image's own size and the crop of its resized version, for SDXL micro-conditioning (pixels)."""

    original_height: int
    original_width: int
    crop_top: int
    crop_left: int

    def mirrored(self, resolution: int) -> ImageSize:
        """Of the image flipped left to right: its crop starts where the original's ended."""
        width = int(resolution * self.original_width / min(self.original_height, self.original_width))
        left = width - resolution - self.crop_left
        return ImageSize(self.original_height, self.original_width, self.crop_top, left)


MAX_ASPECT = 32
MAX_PIXELS = 1 << 28


class Unreadable(Exception):
    """An image that cannot be used; its text is the reason."""


def decode(data: bytes) -> Image.Image:
    """Encoded bytes -> RGB image, upright.

    EXIF orientation is applied; CMYK, palette, grey and 16-bit modes are converted; transparency is laid on white.

    Raises:
        Unreadable: not an image, truncated, or beyond 2^28 pixels.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Unreadable(f"{image.width} x {image.height} pixels are too many")
                image.load()
                upright = ImageOps.exif_transpose(image)
            return _rgb(upright)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # decoders of broken files raise whatever they like
        reason = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify image file" in reason:
            reason = "not an image of a known kind"
        raise Unreadable(reason) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        if values.max(initial=0.0) > 255.0:
            values = values / 257.0
        return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer).convert("RGB")
    return image.convert("RGB")


def square(data: bytes, resolution: int) -> tuple[NDArray[np.uint8], ImageSize]:
    """Decode, resize the short side to R (bilinear with antialias), centre crop R x R.

    Long side after the resize: int(R * long / short); crop offset: round((side - R) / 2); both as the official scripts'
    image library computes them.

    Args:
        resolution: R, pixels, 1 or more.

    Returns:
        uint8 [3,R,R], and the image's own height and width (upright) with the crop's top and left.

    Raises:
        Unreadable: see `decode`; also an image with a side of more than 32 times the other.

    References:
        SalesforceAIResearch/DiffusionDPO train.py: resize of the short side, then centre crop.
    """
    image = decode(data)
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if long > MAX_ASPECT * short:
        raise Unreadable(f"{width} x {height} is longer than {MAX_ASPECT}:1")
    stretched = int(resolution * long / short)
    size = (resolution, stretched) if width <= height else (stretched, resolution)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    top, left = round((size[1] - resolution) / 2.0), round((size[0] - resolution) / 2.0)
    image = image.crop((left, top, left + resolution, top + resolution))
    pixels = np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
    return pixels, ImageSize(original_height=height, original_width=width, crop_top=top, crop_left=left)


def dimensions(data: bytes) -> tuple[int, int]:
    """(width, height) from the header alone, before EXIF rotation.

    Raises:
        Unreadable: not an image.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            return image.size
    except Exception:
        raise Unreadable("not an image of a known kind") from None
