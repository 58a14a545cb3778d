"""What bytes are that should be a picture and cannot be decoded: the reason, in words a person can act on."""

from __future__ import annotations

from PIL import features

PNG = b"\x89PNG\r\n\x1a\n"
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_STARTS = (
    (b"version https://git-lfs", "a git-lfs pointer, the picture itself was never fetched: run git lfs pull"),
    (b"%PDF", "a PDF document, not a picture"),
    (b"%!PS", "a PostScript document, not a picture"),
    (b"PK\x03\x04", "a zip archive, not a picture"),
    (b"\x1f\x8b", "a gzip archive, not a picture"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM), not a picture"),
    (b"\xff\x0a", "JPEG XL, which Pillow does not read: save it as PNG"),
    (b"\0\0\0\x0cJXL ", "JPEG XL, which Pillow does not read: save it as PNG"),
)
_MAGIC = (
    ("PNG", PNG, b""), ("JPEG", b"\xff\xd8\xff", b""), ("GIF", b"GIF8", b""), ("TIFF", b"II*\0", b""),
    ("TIFF", b"MM\0*", b""), ("BMP", b"BM", b""), ("WebP", b"RIFF", b"WEBP"), ("JPEG 2000", b"\0\0\0\x0cjP  ", b""),
)  # fmt: skip
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "JPEG 2000": b"\xff\xd9", "GIF": b";"}  # every whole file has it last


def why_broken(data: bytes, said: str) -> str:
    """The reason for a picture of a known kind. said: what its decoder says."""
    kind = _kind(data)
    unended = kind in _ENDS and _ENDS[kind] not in data[-64:]
    if unended or "truncated" in said.lower() or _boxes_end(data, kind) > len(data):
        return "truncated: the file ends before the picture does"
    return f"a damaged {kind or 'picture'} ({said})"


def why_unknown(data: bytes, said: str) -> str:
    """The reason for bytes that no decoder takes. said: what one of them said, or nothing."""
    kind, brands = _kind(data), _brands(data)
    if kind == "AVIF" and not features.check("avif"):
        return "AVIF, which this Pillow cannot read: install Pillow 11.3 or newer with its AVIF decoder"
    if kind:
        return why_broken(data, said or "its header cannot be read")
    if brands:
        heic = "HEIC, which Pillow does not read without pillow-heif: save it as JPEG or PNG"
        return heic if brands.intersection(_HEIC) else "a video (MP4 or QuickTime), not a picture"
    return next((reason for start, reason in _STARTS if data.startswith(start)), None) or _text(data)


def _text(data: bytes) -> str:
    head = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith(b"<") and b"<svg" in head:
        return "an SVG drawing, not a picture of pixels"
    if head.startswith((b"<!doctype html", b"<html")) or (head.startswith(b"<") and b"<html" in head):
        return "a web page, not a picture"
    if head.startswith((b"{", b"[")):
        return "JSON text, not a picture"
    if not data.strip(b"\0"):
        return "nothing but zeros: the file was reserved and never written"
    plain = all(32 <= byte < 127 or byte in b"\t\n\r" for byte in head)
    return "text, not a picture" if plain else "not a picture of a known kind"


def _kind(data: bytes) -> str:
    """What the first bytes say that a picture is, or nothing."""
    if _brands(data) & {b"avif", b"avis"}:
        return "AVIF"
    return next((kind for kind, start, more in _MAGIC if data.startswith(start) and data[8:].startswith(more)), "")


def _brands(data: bytes) -> set[bytes]:
    """The kinds that an ISO media file (AVIF, HEIC, MP4) declares; empty for other files."""
    if data[4:8] != b"ftyp":
        return set()
    return {data[at : at + 4] for at in range(8, max(12, min(64, int.from_bytes(data[:4]))), 4)}


def _boxes_end(data: bytes, kind: str) -> int:
    """Where a file of boxes (AVIF, WebP) should end; 0 for other kinds."""
    if kind == "WebP":
        return int.from_bytes(data[4:8], "little") + 8
    at = 0
    while kind == "AVIF" and at + 8 <= len(data) and (length := int.from_bytes(data[at : at + 4])) >= 8:
        at += length
    return at
