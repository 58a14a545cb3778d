"""ONE decoder: encoded bytes to an upright sRGB image, whatever the file's mode, orientation, profile or condition.

Training, scorers, control maps and pages all see what `open_rgb` gives. Shapes: H W size of a bucket.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from finepref.core.buckets import Bucket
from finepref.core.colours import KEY, to_srgb
from finepref.core.encoded import PROFILE, broken, open_header, pillow_limit, quiet
from finepref.core.encoded import Unreadable as Unreadable
from finepref.core.errors import InputError
from finepref.core.regular import read_regular


@dataclass(frozen=True, slots=True)
class ImageSize:
    """The image's own size, the crop of its resized version, and the bucket it fills (pixels): what SDXL is told."""

    original_height: int
    original_width: int
    crop_top: int
    crop_left: int
    bucket: Bucket

    def mirrored(self) -> ImageSize:
        """Of the image flipped left to right: its crop starts where the original's ended."""
        width, _ = _covering(self.original_width, self.original_height, self.bucket)
        return replace(self, crop_left=width - self.bucket.width - self.crop_left)


MAX_ASPECT = 32
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # of a PNG, before or after its pixels

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright sRGB image, mode RGB, and the changes that made it one, in words such as `ICC profile to sRGB`."""

    image: Image.Image
    changes: tuple[str, ...]


def open_rgb(data: bytes) -> Image.Image:
    """Encoded bytes -> upright sRGB image of mode RGB; see `decode`, which also names the changes."""
    return decode(data).image


def decode(data: bytes) -> Decoded:
    """Encoded bytes -> upright sRGB image, mode RGB, and what was changed.

    EXIF orientation and ICC profile are applied; transparency (alpha, palette, colour key) is laid on white; CMYK,
    grey, palette, 16-bit and float modes are converted; of several frames the first is taken. A profile or EXIF block
    that cannot be used is left out, and named.

    Args:
        data: a file of at most 2^28 bytes and 2^28 pixels.

    Raises:
        Unreadable: not a picture, damaged, or too large; its text says which.
    """
    return _guarded(data, _decode)


def open_rgb_file(path: Path, *, root: Path | None = None) -> Image.Image:
    """A file as an upright sRGB image of mode RGB.

    Args:
        root: the folder that it must lie in, for files that a table or manifest names.

    Raises:
        InputError: it cannot be read (see `read_regular`), or is no picture that can be used.
    """
    try:
        return open_rgb(read_regular(path, root=root))
    except Unreadable as error:
        raise InputError(f"not a readable image ({error})", where=path, remedy="save it as PNG") from None


def encoded(image: Image.Image) -> bytes:
    """A Pillow image as a file that `open_rgb` reads as it would the one that the image was opened from.

    Raises:
        InputError: its mode cannot be written, or its file cannot be read.
    """
    try:
        image.load()  # a TIFF is turned by this
        turn, content, options = image.getexif().get(_ORIENTATION, 1), io.BytesIO(), {}
        if turn in _TURNS:
            options["exif"] = Image.Exif()
            options["exif"][_ORIENTATION] = turn
        image = image.convert(image.mode.upper()) if image.mode in ("La", "RGBa") else image
        image.save(content, "PNG" if image.mode in _PNG_MODES else "TIFF", **options)
    except (OSError, ValueError, KeyError, SyntaxError) as error:
        raise InputError(f"the image cannot be used ({error})", where=f"image of mode {image.mode}") from None
    return content.getvalue()


def plain_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a picture that needs no change, from its header alone; None where `decode` must be asked.

    Raises:
        Unreadable: as `decode`, as far as the header shows it.
    """
    return _guarded(data, _plain_size)


def _guarded(data: bytes, read: Callable[[bytes], Found]) -> Found:
    """What `read` finds; whatever a decoder of a broken file raises becomes a reason."""
    with quiet():
        try:
            try:
                return read(data)
            except Image.DecompressionBombError:
                with pillow_limit():
                    return read(data)
        except (Unreadable, MemoryError):
            raise
        except Exception as error:
            raise broken(data, error) from None


def _decode(data: bytes) -> Decoded:
    image = open_header(data)
    before: list[str] = []
    tiff = image.format == "TIFF"  # Pillow turns it when it loads it, and forgets how it stood
    turn = _turn(image, before) if tiff else None
    image.load()  # before a PNG is asked how it stands, which loads it and would hide that it is broken
    turn = turn if tiff else _turn(image, before)
    found, changes = to_srgb(image, _bits(data, image), lambda: _low_bytes(data))
    if turn is not None:
        before.append("rotated by EXIF")
        found = found if tiff else found.transpose(turn)
    if _has_more(image):
        before.append("first of several frames")
    found.info = {}
    return Decoded(found, (*before, *changes))


def _plain_size(data: bytes) -> tuple[int, int] | None:
    image = open_header(data)
    plain = image.mode == "RGB" and _bits(data, image) == 8 and not {PROFILE, KEY}.intersection(image.info)
    turned = any(word in data for word in _EXIF) if image.format == "PNG" else _turn(image, []) is not None
    return image.size if plain and not turned and not _has_more(image) else None


def _turn(image: ImageFile.ImageFile, changes: list[str]) -> Image.Transpose | None:
    """How an image must be turned to stand upright."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # readers of broken blocks raise whatever they like
        changes.append("EXIF ignored (not readable)")
        return None


def _has_more(image: ImageFile.ImageFile) -> bool:
    """Whether frames or pages follow the first."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the first one is whole
        return True


def _bits(data: bytes, image: ImageFile.ImageFile) -> int:
    """Of a channel in the file."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return int(bits[0] if isinstance(bits, tuple) else bits)
    return 16 if image.mode == "I" or image.mode.startswith("I;16") else 8


def _low_bytes(data: bytes) -> Image.Image:
    """The low bytes of a PNG of 16-bit RGB; Pillow's own reading keeps the high ones."""
    image = open_header(data)
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return image


def fitted(data: bytes, bucket: Bucket) -> tuple[NDArray[np.uint8], ImageSize]:
    """Decode, resize until the bucket H x W is covered (bilinear with antialias), and crop its centre.

    One side becomes the bucket's, the other int(its side * long / short); crop offset: round((side - bucket's) / 2).
    For a square bucket both are as the official scripts' image library computes them.

    Returns:
        uint8 [3,H,W], and the image's own height and width (upright) with the crop's top and left.

    Raises:
        Unreadable: see `decode`; also an image with a side of more than 32 times the other.

    References:
        SalesforceAIResearch/DiffusionDPO train.py: resize of the short side, then centre crop.
    """
    image = open_rgb(data)
    width, height = image.size
    check_aspect(width, height)
    size = _covering(width, height, bucket)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    top, left = round((size[1] - bucket.height) / 2.0), round((size[0] - bucket.width) / 2.0)
    image = image.crop((left, top, left + bucket.width, top + bucket.height))
    pixels = np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
    return pixels, ImageSize(height, width, crop_top=top, crop_left=left, bucket=bucket)


def check_aspect(width: int, height: int) -> None:
    """Refuse a picture that training cannot use for its shape.

    Raises:
        Unreadable: one side is more than 32 times the other.
    """
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise Unreadable(f"{width} x {height} is longer than {MAX_ASPECT}:1")


def _covering(width: int, height: int, bucket: Bucket) -> tuple[int, int]:
    """(width, height) of an image that is scaled until it covers a bucket."""
    if width * bucket.height <= height * bucket.width:
        return bucket.width, int(bucket.width * height / width)
    return int(bucket.height * width / height), bucket.height


def upright_size(data: bytes) -> tuple[int, int]:
    """(height, width) of the upright image.

    Raises:
        Unreadable: see `decode`.
    """
    width, height = plain_size(data) or open_rgb(data).size
    return height, width
