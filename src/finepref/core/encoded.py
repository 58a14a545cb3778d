"""Encoded bytes as an opened picture whose pixels are not decoded yet, or the reason why they are none.

Pillow's own limits are replaced by ours: text of a PNG is left out instead of counted, a profile may have 16 MiB, and a
picture 2^28 pixels. Nothing of that is set for the rest of the program, except as `pillow_limit` says.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile

from finepref.core.foreign import PNG, why_broken, why_unknown
from finepref.core.regular import MAX_BYTES

MAX_PIXELS = 1 << 28
MAX_PROFILE = 1 << 24  # bytes of an ICC profile
TOO_LONG = f"more than {MAX_PROFILE >> 20} MiB"
PROFILE, FAULT = "icc_profile", "icc_fault"  # of `image.info`: a profile, or why it cannot be read
FORMATS = (
    "PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "HEIF", "JXL", "JPEG2000", "PPM", "ICO", "PSD", "QOI",
    "DDS", "SGI", "PCX", "TGA",
)  # fmt: skip
_MAX_TEXT = 1 << 20
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_TURNS = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # texts that may say how a picture stands
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it writes to the terminal what is raised as well


_EXIF, _USER_COMMENT = 0x8769, 0x9286


class Unreadable(Exception):
    """An image that cannot be used; its text is the reason."""


def open_header(data: bytes) -> ImageFile.ImageFile:
    """The picture with what its header says; its pixels are not decoded.

    `image.info` holds the whole ICC profile as PROFILE, or None with the reason as FAULT.

    Raises:
        Unreadable: no picture, or a kind that cannot be read, or beyond MAX_BYTES or MAX_PIXELS. Decoders may raise
            other exceptions where a file is broken: `broken` makes one of those a reason.
    """
    if not data:
        raise Unreadable("empty (zero bytes)")
    if len(data) > MAX_BYTES:
        raise Unreadable(f"{len(data)} bytes are too many ({MAX_BYTES} at most)")
    content, profile, fault = _without_text(data) if data.startswith(PNG) else (data, None, "")
    Image.init()
    said = ""
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        try:
            if factory is None or not (accept is None or accept(content[:16]) is True):
                continue
            image = factory(io.BytesIO(content), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # what `Image.open` takes as: not this kind
            said = said or (" ".join(str(error).split()) if accept is not None else "")
            continue
        if image.width * image.height > MAX_PIXELS:
            raise Unreadable(f"{image.width} x {image.height} pixels are too many (2^28 at most)")
        if min(image.size) < 1:
            raise Unreadable("it has no pixels")
        if profile is not None or fault:
            image.info |= {PROFILE: profile, FAULT: fault}
        return image
    raise Unreadable(why_unknown(data, said))


def texts_in(data: bytes) -> dict[str, str | bytes]:
    """What a picture says in words, by key: texts of a PNG; `UserComment` of EXIF, with its eight bytes of encoding.

    Empty where it says nothing, or is no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            found = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
            comment = image.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
    except Exception:  # a broken picture is told when it is decoded
        return {}
    return {**found, **({"UserComment": comment} if isinstance(comment, str | bytes) else {})}


def broken(data: bytes, error: Exception) -> Unreadable:
    """The reason why a picture cannot be decoded, from what a decoder raised."""
    if isinstance(error, Image.DecompressionBombError):
        return Unreadable("its pixels are too many (2^28 at most)")
    said = " ".join(str(error).split()) or type(error).__name__
    return Unreadable(why_broken(data, f"unknown value {said}" if isinstance(error, KeyError) else said))


def _without_text(data: bytes) -> tuple[bytes, bytes | None, str]:
    """A PNG without its texts and its profile, whose lengths Pillow limits; the profile, or why it cannot be read."""
    kept, start, at = [], 0, len(PNG)
    profile, fault = None, ""
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            break
        if kind == b"iCCP":
            profile, fault = _inflated(data[at + 8 : end - 4])
        if kind == b"iCCP" or (kind in _TEXT and not (length <= _MAX_TEXT and _turns(data[at + 8 : end - 4], kind))):
            kept.append(data[start:at])
            start = end
        at = end
    return (b"".join([*kept, data[start:]]) if kept else data), profile, fault


def _inflated(chunk: bytes) -> tuple[bytes | None, str]:
    """The ICC profile of an `iCCP` chunk: name, zero, method, zlib stream."""
    unpack = zlib.decompressobj()
    try:
        profile = unpack.decompress(chunk[chunk.index(b"\0") + 2 :], MAX_PROFILE + 1)
    except (zlib.error, ValueError):
        return None, "not readable"
    if len(profile) > MAX_PROFILE:
        return None, TOO_LONG
    return (profile, "") if unpack.eof else (None, "not readable")


def _turns(chunk: bytes, kind: bytes) -> bool:
    """Whether a text may say how the picture stands, and is not too long for Pillow once it is inflated."""
    if not chunk.startswith(_TURNS):
        return False
    if kind == b"tEXt":
        return True
    unpack = zlib.decompressobj()
    try:
        return len(unpack.decompress(chunk[chunk.index(b"\0") + 2 :], _MAX_TEXT)) < _MAX_TEXT
    except (zlib.error, ValueError):
        return kind == b"iTXt"  # which need not be compressed


_LOCK, _LIMIT = threading.Lock(), threading.Lock()
_muted: list[warnings.catch_warnings[None]] = []
_inside = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings are silent while any thread is inside; `catch_warnings` alone is not safe among threads."""
    global _inside
    with _LOCK:
        if not _inside:
            _muted.append(warnings.catch_warnings(action="ignore"))
            _muted[0].__enter__()
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if not _inside:
                _muted.pop().__exit__(None, None, None)


@contextmanager
def pillow_limit() -> Iterator[None]:
    """Pillow's limit of pixels is MAX_PIXELS, one thread at a time.

    A few decoders (WebP, tiles of TIFF) ask for Pillow's one limit themselves; they alone need this, for pictures above
    it. The program's own value is back afterwards.
    """
    with _LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2  # an error begins at twice the limit
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
