"""Pixels of any kind as 8-bit sRGB: depth, ICC profile, transparency on white. Each change is named.

Floats: a picture whose values lie in 0..1 (up to 1.1) is scaled by 255; one whose greatest value is above 16 and at
most 255.5 is taken as 0..255; anything else is refused, since black, white or noise would be a guess.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from finepref.core.encoded import FAULT, MAX_PROFILE, PROFILE, TOO_LONG, Unreadable

SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
SAME = 1  # levels of 255: a profile that moves no colour further is sRGB, and is not applied
NAMES = {"L": "grey", "1": "grey", "P": "palette", "PA": "palette"}  # of modes, in a change
KEY = "transparency"


def to_srgb(image: Image.Image, bits: int, low_bytes: Callable[[], Image.Image]) -> tuple[Image.Image, list[str]]:
    """A decoded picture as 8-bit sRGB on white, and the changes that this took.

    Args:
        image: of any mode, with `icc_profile` and `transparency` in its `info`.
        bits: of a channel in the file.
        low_bytes: the low bytes of a picture with 16 bits a channel, of which Pillow gives the high ones.

    Raises:
        Unreadable: numbers in no known range.
    """
    done = [f"{bits} bits to 8"] if bits in (12, 16) else []
    colours, alpha = _parts(image, bits, low_bytes, done)
    mode = image.mode if image.mode in NAMES else colours.mode
    if PROFILE in image.info:
        colours = _apply_profile(colours, image.info, done)
    if mode not in ("RGB", "RGBX"):
        done.append(f"{NAMES.get(mode, mode)} to RGB")
    colours = colours.convert("RGB")
    if alpha is None:
        return colours, done
    if alpha.getextrema() == (255, 255):
        return colours, [*done, "opaque alpha left out"]
    colours.putalpha(alpha)
    white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, colours).convert("RGB"), [*done, "transparency on white"]


def _parts(
    image: Image.Image, bits: int, low_bytes: Callable[[], Image.Image], done: list[str]
) -> tuple[Image.Image, Image.Image | None]:
    """Colours (L, RGB, CMYK or another mode without alpha) and alpha (L, None where there is none)."""
    mode, key = image.mode, image.info.get(KEY)
    if mode in ("La", "RGBa"):
        image = image.convert("LA" if mode == "La" else "RGBA")
    elif mode == "PA" or (mode == "P" and image.has_transparency_data):
        image = image.convert("RGBA")
    elif mode == "P":
        return image.convert("RGB"), None
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if mode.startswith("I;16") or mode in ("I", "F"):
        values = np.asarray(image)
        shown = None if key is None else _alpha(values != key)
        return Image.fromarray(_eight_bits(values, mode, bits, done)), shown
    if key is None or mode not in ("1", "L", "RGB"):
        return image, None
    image = image.copy()
    image.info.pop(KEY)
    if bits == 16:
        values = (np.asarray(image).astype(np.uint16) << 8) | np.asarray(low_bytes())
        return image, _alpha((values != np.array(key)).any(-1))
    scaled = np.array(key) * (255 // (2**bits - 1) if mode == "L" else 1)
    different = np.asarray(image.convert("L") if mode == "1" else image) != scaled
    return image, _alpha(different.any(-1) if mode == "RGB" else different)


def _alpha(shown: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(shown.astype(np.uint8) * 255)


def _eight_bits(values: NDArray[np.generic], mode: str, bits: int, done: list[str]) -> NDArray[np.uint8]:
    """Grey of more than 8 bits: 12 and 16 bits keep their high byte, floats are told apart by their range."""
    if mode.startswith("I;16"):
        return (values.astype(np.uint16) >> (bits - 8 if bits == 12 else 8)).astype(np.uint8)
    least, most = float(values.min()), float(values.max())
    if not np.isfinite([least, most]).all():
        raise Unreadable("it holds numbers that are not finite")
    if mode == "I":
        if least < 0 or most > 65535:
            raise Unreadable(f"its numbers run from {least:g} to {most:g}, neither 0..255 nor 0..65535")
        if bits != 16:
            done.append("32 bits to 8")
        return (values.astype(np.int64) >> (8 if bits == 16 or most > 255 else 0)).astype(np.uint8)
    if least >= -0.1 and most <= 1.1:
        name, scale = "0..1", 255.0
    elif least >= -0.5 and 16 < most <= 255.5:
        name, scale = "0..255", 1.0
    else:
        raise Unreadable(f"its numbers run from {least:g} to {most:g}, neither 0..1 nor 0..255")
    done.append(f"floats {name} to 8 bits")
    return (values.astype(np.float64) * scale).clip(0, 255).round().astype(np.uint8)


def _apply_profile(colours: Image.Image, info: Mapping[Any, Any], done: list[str]) -> Image.Image:
    """The colours in sRGB; a profile that cannot be used is named, and the numbers are taken as sRGB."""
    profile = info[PROFILE]
    if colours.mode not in SPACES:
        colours = colours.convert("L" if colours.mode == "1" else "RGB")
    try:
        if not isinstance(profile, bytes):
            raise Unreadable(info.get(FAULT) or "not readable")
        if len(profile) > MAX_PROFILE:
            raise Unreadable(TOO_LONG)
        if colours.mode == "L" and _space(profile) == "RGB":
            colours = colours.convert("RGB")
        transform = _transform(profile, colours.mode)
    except Unreadable as error:
        done.append(f"ICC profile ignored ({error})")
        return colours
    if transform is None:
        return colours
    done.append("ICC profile to sRGB")
    return transform.apply(colours)


def _profile(content: bytes) -> ImageCms.ImageCmsProfile:
    try:
        return ImageCms.getOpenProfile(io.BytesIO(content))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        raise Unreadable("not readable") from None


def _space(profile: bytes) -> str:
    """RGB, GRAY, CMYK, ... of an ICC profile."""
    return str(_profile(profile).profile.xcolor_space).strip()


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB, relative colorimetric with black point compensation; None where it changes nothing.

    Raises:
        Unreadable: the profile is not for pictures of this mode, or cannot be used.
    """
    source, space = _profile(profile), _space(profile)
    if space != SPACES[mode]:
        raise Unreadable(f"for {space} pictures, this one is {SPACES[mode]}")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    try:
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        raise Unreadable("not readable") from None
    if mode == "CMYK":
        return transform
    steps = np.arange(256, dtype=np.uint8)
    some = steps[::15]
    probe = steps[None] if mode == "L" else np.stack(np.meshgrid(some, some, some), -1).reshape(1, -1, 3)
    wanted = np.asarray(Image.fromarray(probe).convert("RGB"), dtype=np.int16)
    moved = np.abs(np.asarray(transform.apply(Image.fromarray(probe)), dtype=np.int16) - wanted)
    return None if moved.max() <= SAME else transform
