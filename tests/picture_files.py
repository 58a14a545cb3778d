"""Pictures of every kind, as bytes, and ICC profiles written by hand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, PngImagePlugin

SIDE = 32
P3_XY = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
SRGB_XY = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50, D65 = np.array([0.9642, 1.0, 0.8249]), np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawn(mode: str = "RGB", seed: int = 0) -> Image.Image:
    """SIDE x SIDE noise in any mode that holds bytes."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, bands)).astype(np.uint8)
    return Image.frombytes(mode, (SIDE, SIDE), pixels.tobytes())


def grey_of(array: np.ndarray) -> Image.Image:
    """An image of mode I;16, I or F."""
    return Image.fromarray(array)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, depth: int, colour: int, rows: Sequence[bytes], *extra: bytes) -> bytes:
    """A PNG that Pillow cannot write: packed rows, chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = (png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def to_xyz(xy: Sequence[tuple[float, float]], white: np.ndarray = D65) -> np.ndarray:
    """[3,3] linear RGB -> XYZ from chromaticities, float64."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in xy]).T
    return columns * np.linalg.solve(columns, white)


def adapted(matrix: np.ndarray) -> np.ndarray:
    """From D65 to D50, by Bradford."""
    gain = (BRADFORD @ D50) / (BRADFORD @ D65)
    return np.linalg.inv(BRADFORD) @ np.diag(gain) @ BRADFORD @ matrix


def linear(encoded: np.ndarray) -> np.ndarray:
    """The sRGB curve, 0..1."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    """The inverse of `linear`."""
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def profile(space: bytes, tags: dict[bytes, bytes], *, pcs: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """An ICC profile of version 2.4 with these tags."""
    tags = {b"desc": b"desc" + b"\0" * 4 + struct.pack(">I", 2) + b"t\0" + b"\0" * 78} | tags
    tags |= {b"cprt": b"text" + b"\0" * 5, b"wtpt": _xyz(D50)}
    at = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"\0" * 4, 0x02400000, kind, space, pcs)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28 + _fixed(D50) + b"\0" * 48
    assert len(head) == 128
    return head + table + body


def _fixed(values: np.ndarray) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + b"\0" * 4 + _fixed(values)


def curve(values: np.ndarray) -> bytes:
    """A tone curve of 16-bit samples."""
    samples = (np.asarray(values) * 65535).round().astype(">u2")
    return b"curv" + b"\0" * 4 + struct.pack(">I", samples.size) + samples.tobytes()


def display_p3() -> bytes:
    """Display-P3: its primaries, white D65, the sRGB curve."""
    matrix, tone = adapted(to_xyz(P3_XY)), curve(linear(np.linspace(0, 1, 4096)))
    colours = {name + b"XYZ": _xyz(column) for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True)}
    return profile(b"RGB ", colours | {name + b"TRC": tone for name in (b"r", b"g", b"b")})


def grey_profile(gamma: float) -> bytes:
    """A grey of a plain gamma."""
    return profile(b"GRAY", {b"kTRC": curve(np.linspace(0, 1, 4096) ** gamma)})


def ink_profile() -> bytes:
    """CMYK whose lightness is 100 (1 - k) without colour, white paper, black where any ink is full."""
    corners = np.zeros((2, 2, 2, 2, 3), np.uint8)
    corners[..., 1:] = 128
    corners[0, 0, 0, 0, 0] = 255
    ramp = np.arange(256, dtype=np.uint8).tobytes()
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + b"\0" * 4 + bytes([4, 3, 2, 0]) + identity + ramp * 4 + corners.tobytes() + ramp * 3
    return profile(b"CMYK", {b"A2B0": table}, pcs=b"Lab ", kind=b"prtr")


def kinds() -> dict[str, bytes]:
    """Name -> SIDE x SIDE picture of a kind that is met in data sets."""
    rgb, grey = drawn(), drawn("L")
    frames = [drawn(seed=seed) for seed in (1, 2, 3)]
    turned, mirrored = Image.Exif(), Image.Exif()
    turned[0x0112], mirrored[0x0112] = 6, 5
    wide = np.random.default_rng(5).integers(0, 65536, (SIDE, SIDE, 4)).astype(">u2")
    rows = lambda bands: [wide[y, :, :bands].tobytes() for y in range(SIDE)]  # noqa: E731
    key = png_chunk(b"tRNS", wide[3, 4, :3].tobytes())
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * (2 << 20))
    text.add_text("parameters", "y" * (3 << 20), zip=True)
    palette = rgb.quantize(16)
    units = grey_of((np.asarray(grey) / 255).astype(np.float32))
    return {
        "png": encode(rgb), "jpeg": encode(rgb, "JPEG"), "webp": encode(rgb, "WEBP"), "bmp": encode(rgb, "BMP"),
        "avif": encode(rgb, "AVIF"), "jpeg 2000": encode(rgb, "JPEG2000"), "tiff": encode(rgb, "TIFF"),
        "jpeg exif": encode(rgb, "JPEG", exif=turned), "png exif": encode(rgb, exif=mirrored),
        "webp exif": encode(rgb, "WEBP", exif=turned), "tiff exif": encode(rgb, "TIFF", exif=turned),
        "png p3": encode(rgb, icc_profile=display_p3()), "jpeg p3": encode(rgb, "JPEG", icc_profile=display_p3()),
        "webp p3 alpha": encode(drawn("RGBA"), "WEBP", lossless=True, exact=True, icc_profile=display_p3()),
        "grey profile": encode(grey, icc_profile=grey_profile(1.8)),
        "cmyk profile": encode(drawn("CMYK"), "TIFF", icc_profile=ink_profile()),
        "broken profile": encode(rgb, icc_profile=b"no profile" * 20),
        "alpha": encode(drawn("RGBA")), "grey alpha": encode(drawn("LA")), "palette": encode(palette),
        "palette alpha": encode(palette, transparency=bytes(range(0, 256, 16))),
        "gif key": encode(palette, "GIF", transparency=3),
        "rgb16": png(SIDE, 16, 2, rows(3)), "rgb16 key": png(SIDE, 16, 2, rows(3), key),
        "grey16": png(SIDE, 16, 0, rows(1)),
        "grey16 key": png(SIDE, 16, 0, rows(1), png_chunk(b"tRNS", wide[3, 4, :1].tobytes())),
        "rgba16": png(SIDE, 16, 6, rows(4)), "grey": encode(grey), "bilevel": encode(grey.convert("1")),
        "cmyk jpeg": encode(drawn("CMYK"), "JPEG"), "cmyk tiff": encode(drawn("CMYK"), "TIFF"),
        "float 0..1": encode(units, "TIFF"), "float 0..255": encode(grey.convert("F"), "TIFF"),
        "gif frames": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "webp frames": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "png frames": encode(frames[0], save_all=True, append_images=frames[1:]),
        "long text": encode(rgb, pnginfo=text),
    }  # fmt: skip
