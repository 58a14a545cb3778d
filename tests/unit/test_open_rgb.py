"""One decoder: every kind of picture to upright sRGB, each change named, every refusal with its real reason."""

from __future__ import annotations

import base64
import csv
import io
import re
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from evaluation_folder import make_folder
from finepref.core.buckets import Bucket
from finepref.core.errors import InputError
from finepref.core.images import Unreadable, decode, fitted, open_rgb, open_rgb_file, plain_size
from finepref.core.provenance import sha256_bytes
from finepref.data.building import CacheSettings
from finepref.data.cache import cache_from
from finepref.data.inspect import inspect
from finepref.evaluate.sampling import read_map
from finepref.evaluate.score import score
from finepref.evaluate.scored_pairs import score_preferences
from finepref.formats.manifest import read_rows, write_rows
from finepref.formats.preferences import read_preferences
from finepref.report.thumbnails import data_uri
from picture_files import (
    P3_XY,
    SIDE,
    SRGB_XY,
    display_p3,
    drawn,
    encode,
    encoded,
    grey_of,
    grey_profile,
    ink_profile,
    kinds,
    linear,
    png,
    png_chunk,
    to_xyz,
)  # fmt: skip

KINDS = kinds()
EXIF = 0x0112
TWO = bytes([18, 0, 18, 0, 18, 0, 18, 0, 18, 1, 18, 0])  # RGB16: equal high bytes, all sixteen bits tell them apart
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(open_rgb(data)).astype(np.int64)


class Seen:
    """An encoder that keeps hashes of the pixels that training's cache gives it."""

    resolution = SIDE
    buckets = (Bucket(SIDE, SIDE),)

    def __init__(self) -> None:
        self.trained: set[str] = set()

    def encode_images(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.trained |= {sha256_bytes(row.permute(1, 2, 0).contiguous().numpy().tobytes()) for row in batch}
        return batch[:, :, ::8, ::8].float(), batch[:, :, ::8, ::8].float()

    def encode_prompts(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        return {"prompt_embeds": torch.zeros(len(prompts), 1, 1)}

    def fingerprint(self) -> dict[str, str]:
        return {"vae": "seen"}


class Eye:
    """A scorer that keeps hashes of the pixels that it is given."""

    name, fingerprint, higher_is_better = "eye", "f", True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def score(self, images, prompts) -> np.ndarray:
        assert {image.mode for image in images} == {"RGB"}
        self.seen += [sha256_bytes(np.asarray(image).tobytes()) for image in images]
        return np.zeros(len(images))


def test_training_scoring_maps_and_pages_see_the_same_pixels(tmp_path: Path) -> None:
    """Every kind through the latent cache, both ways of scoring, a control map and a page: equal hashes."""
    names = list(KINDS)
    assert len(names) >= 30
    rows = make_folder(tmp_path / "eval", {"set": names}, models=("base",))
    with (tmp_path / "metadata.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(("chosen_file_name", "rejected_file_name", "prompt"))
        for number, row in enumerate(rows):
            (tmp_path / f"{number}.bin").write_bytes(KINDS[names[number]])
            (tmp_path / "eval" / row.path).write_bytes(KINDS[names[number]])
            table.writerow((f"{number}.bin", "0.bin", names[number]))
    write_rows(tmp_path / "eval", [_hashed(row, KINDS[row.prompt]) for row in rows])
    wanted = {name: sha256_bytes(np.asarray(open_rgb(data)).tobytes()) for name, data in KINDS.items()}
    encoder, pairs, folder = Seen(), Eye(), Eye()
    cache_from(tmp_path / "metadata.csv", encoder, tmp_path / "cache", settings=CacheSettings(dtype="float32"))
    score_preferences(read_preferences(tmp_path / "metadata.csv"), [pairs], tmp_path / "rewards.parquet")
    score(tmp_path / "eval", [folder])
    assert encoder.trained == set(wanted.values())
    assert set(pairs.seen) == set(wanted.values())
    assert folder.seen == [wanted[row.prompt] for row in read_rows(tmp_path / "eval")]
    for number, name in enumerate(names):
        path = tmp_path / f"{number}.bin"
        square_pixels, _ = fitted(KINDS[name], Bucket(SIDE, SIDE))
        shown = open_rgb(base64.b64decode(data_uri(path, root=tmp_path).partition(",")[2]))
        for found in (read_map(path, None), shown, square_pixels.transpose(1, 2, 0)):
            assert sha256_bytes(np.ascontiguousarray(np.asarray(found)).tobytes()) == wanted[name], name


def _hashed(row, data: bytes):
    return type(row)(**{name: getattr(row, name) for name in row.__slots__} | {"image_sha256": sha256_bytes(data)})


def test_pillow_images_in_memory_are_read_as_their_files(tmp_path: Path) -> None:
    """Orientation, profile, colour key and mode survive, also those that PNG does not hold (CMYK, floats)."""
    lost = {"broken profile", "long text", "rgb16 key"}  # Pillow itself drops, refuses or shortens what they hold
    for name in KINDS.keys() - lost:
        image = Image.open(io.BytesIO(KINDS[name]))
        (pair,) = read_preferences([{"prompt": "p", "chosen": image, "rejected": drawn()}])
        np.testing.assert_array_equal(pixels(pair.image_0.read()), pixels(KINDS[name]), name)
        assert pair.image_1.read() == encode(drawn())


CHANGES = {
    "png": (), "jpeg": (), "avif": (), "long text": (),
    "jpeg exif": ("rotated by EXIF",), "tiff exif": ("rotated by EXIF",),
    "png exif": ("rotated by EXIF",), "webp exif": ("rotated by EXIF",), "jpeg p3": ("ICC profile to sRGB",),
    "webp p3 alpha": ("ICC profile to sRGB", "transparency on white"),
    "grey profile": ("ICC profile to sRGB", "grey to RGB"), "cmyk profile": ("ICC profile to sRGB", "CMYK to RGB"),
    "broken profile": ("ICC profile ignored (not readable)",), "alpha": ("transparency on white",),
    "palette alpha": ("palette to RGB", "transparency on white"),
    "gif key": ("palette to RGB", "transparency on white"),
    "rgb16": ("16 bits to 8",), "rgb16 key": ("16 bits to 8", "transparency on white"),
    "grey16 key": ("16 bits to 8", "grey to RGB", "transparency on white"),
    "float 0..1": ("floats 0..1 to 8 bits", "grey to RGB"), "float 0..255": ("floats 0..255 to 8 bits", "grey to RGB"),
    "gif frames": ("first of several frames", "palette to RGB"), "png frames": ("first of several frames",),
    "webp frames": ("first of several frames",),
}  # fmt: skip


def test_changes_are_named_and_counted(tmp_path: Path) -> None:
    assert {name: decode(KINDS[name]).changes for name in CHANGES} == CHANGES
    for name, data in KINDS.items():  # what is not decoded by `data inspect` needs no change
        assert (plain_size(data) is not None) == (decode(data).changes == ()), name
    rows = [{"prompt": "p", "chosen": data, "rejected": KINDS["alpha"]} for data in KINDS.values()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    counted: dict[str, int] = {}
    for data in KINDS.values():
        for change in decode(data).changes:
            counted[change] = counted.get(change, 0) + 1
    for full in (False, True):
        report = inspect(tmp_path / "pairs.parquet", full=full)
        assert report.conversions == counted
        assert report.sizes == {f"{SIDE} x {SIDE}": len(KINDS)}


def test_display_p3_against_the_matrices() -> None:
    """LittleCMS against float64 algebra: chromaticities -> XYZ -> sRGB, no ICC library."""
    assert (
        np.abs(pixels(encode(Image.new("RGB", (1, 1), (230, 60, 40)), icc_profile=display_p3())) - (250, 31, 14)).max()
        <= 1
    )
    image = drawn(seed=3)
    light = linear(np.asarray(image) / 255) @ to_xyz(P3_XY).T @ np.linalg.inv(to_xyz(SRGB_XY)).T
    for kind in ("PNG", "TIFF", "BMP"):
        options = {} if kind == "BMP" else {"icc_profile": display_p3()}
        expected = encoded(light) * 255 if options else np.asarray(image)
        assert np.abs(pixels(encode(image, kind, **options)) - expected).max() <= 1.5


def test_grey_and_ink_profiles_against_their_formulas() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    found = pixels(encode(Image.fromarray(ramp), icc_profile=grey_profile(1.8)))
    assert np.abs(found[0] - 255 * encoded((ramp[0, :, None] / 255) ** 1.8)).max() <= 1.5
    lightness = (100 * (1 - ramp[0] / 255) + 16) / 116  # CIE L* of the ink profile -> Y -> sRGB
    light = np.where(lightness > 6 / 29, lightness**3, 3 * (6 / 29) ** 2 * (lightness - 4 / 29))
    ink = np.zeros((1, 256, 4), np.uint8)
    ink[..., 3] = ramp
    found = pixels(encode(Image.frombytes("CMYK", (256, 1), ink.tobytes()), "TIFF", icc_profile=ink_profile()))
    assert np.abs(found[0] - 255 * encoded(light)[:, None]).max() <= 2.5


@pytest.mark.parametrize(
    ("data", "change"),
    [
        (encode(drawn(), icc_profile=SRGB), None),  # moves no colour: nothing is done
        (encode(drawn(), icc_profile=SRGB + b"\0" * (3 << 20)), None),  # Pillow's own limit is 1 MiB
        (encode(drawn(), icc_profile=SRGB + b"\0" * (17 << 20)), "ICC profile ignored (more than 16 MiB)"),
        (encode(drawn(), icc_profile=grey_profile(2.2)), "ICC profile ignored (for GRAY pictures, this one is RGB)"),
        (encode(drawn(), "JPEG", icc_profile=display_p3()[:90]), "ICC profile ignored (not readable)"),
        (encode(drawn(), "JPEG", icc_profile=display_p3() * 40).replace(b"ICC_PROFILE\0\1\x10", b"ICC_PROFILE\0\1\x11"),
         "ICC profile ignored (not readable)"),  # a piece is missing
        (png(2, 8, 2, [b"abcdef"], png_chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB)[:-9])),
         "ICC profile ignored (not readable)"),
    ],
)  # fmt: skip
def test_a_profile_that_cannot_be_used_is_counted_not_applied(data: bytes, change: str | None) -> None:
    found = decode(data)
    assert found.changes == (() if change is None else (change,))
    with Image.open(encode_stream(data)) as image:
        np.testing.assert_array_equal(np.asarray(found.image), np.asarray(image.convert("RGB")))


def encode_stream(data: bytes) -> io.BytesIO:
    """The bytes without a profile that Pillow would stop at."""
    at = data.find(b"iCCP")
    if at < 0:
        return io.BytesIO(data)
    end = at + 8 + int.from_bytes(data[at - 4 : at])
    return io.BytesIO(data[: at - 4] + data[end:])


def test_a_grey_picture_with_an_rgb_profile() -> None:
    grey = drawn("L")
    np.testing.assert_array_equal(
        pixels(encode(grey, icc_profile=display_p3())), pixels(encode(grey.convert("RGB"), icc_profile=display_p3()))
    )


def test_alpha_on_white_is_the_formula() -> None:
    alpha, value = (each.astype(np.uint8) for each in np.meshgrid(np.arange(256), np.arange(256)))
    expected = (value.astype(float) * alpha + 255.0 * (255 - alpha)) / 255
    colours = np.stack([value, value, value, alpha], -1)
    assert np.abs(pixels(encode(Image.fromarray(colours)))[..., 0] - expected).max() <= 0.51
    assert np.abs(pixels(encode(Image.fromarray(colours[..., 2:])))[..., 0] - expected).max() <= 0.51
    opaque = drawn("RGBA")
    opaque.putalpha(255)
    found = decode(encode(opaque))
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(opaque)[..., :3])
    assert found.changes == ("opaque alpha left out",)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(2, 8, 2, [bytes([1, 2, 3, 4, 5, 6])], png_chunk(b"tRNS", bytes([0, 4, 0, 5, 0, 6]))), [(1, 2, 3), None]),
        (png(2, 8, 0, [bytes([7, 9])], png_chunk(b"tRNS", bytes([0, 9]))), [(7, 7, 7), None]),
        (png(2, 4, 0, [bytes([0x5A])], png_chunk(b"tRNS", bytes([0, 10]))), [(85, 85, 85), None]),
        (png(2, 2, 0, [bytes([0b01100000])], png_chunk(b"tRNS", bytes([0, 2]))), [(85, 85, 85), None]),
        (png(2, 1, 0, [bytes([0b01000000])], png_chunk(b"tRNS", bytes([0, 1]))), [(0, 0, 0), None]),
        (png(2, 16, 0, [bytes([18, 52, 18, 53])], png_chunk(b"tRNS", bytes([18, 53]))), [(18, 18, 18), None]),
        (png(2, 16, 2, [TWO], png_chunk(b"tRNS", TWO[6:])), [(18, 18, 18), None]),
        (png(2, 16, 2, [TWO]), [(18, 18, 18), (18, 18, 18)]),
    ],
)  # fmt: skip
def test_colour_keys(data: bytes, expected: list[tuple[int, int, int] | None]) -> None:
    found = open_rgb(data)
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255) if c is None else c for c in expected]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation(kind: str) -> None:
    """Corners end where the EXIF standard says: rows and columns of the stored picture, then the picture upright."""
    blocks = np.repeat(np.repeat(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]), 16, 0), 24, 1)
    image = Image.fromarray(blocks.astype(np.uint8))
    upright = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90,
    }  # fmt: skip
    for value, turn in upright.items():
        exif = Image.Exif()
        exif[EXIF] = value
        options = {} if kind in ("PNG", "TIFF") else {"quality": 95}
        found = decode(encode(image, kind, exif=exif, **options))
        expected = turn(blocks)
        assert found.image.size == expected.shape[1::-1]
        corners = np.ix_([4, -5], [4, -5])
        assert np.abs(np.asarray(found.image).astype(int)[corners] - expected[corners]).max() < 60, value
        assert found.changes == (("rotated by EXIF",) if value > 1 else ())


def test_exif_after_the_pixels() -> None:
    """A PNG may say at its end how it stands; the header alone does not show it."""
    exif = Image.Exif()
    exif[EXIF] = 3
    data = encode(drawn())
    late = data[:-12] + png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[-12:]
    assert plain_size(late) is None
    np.testing.assert_array_equal(pixels(late), pixels(data)[::-1, ::-1])


def test_nothing_else_decodes() -> None:
    """Pillow opens files in `core` alone."""
    package = Path(__file__).resolve().parents[2] / "src" / "finepref"
    others = [path for path in package.rglob("*.py") if re.search(r"Image\.open\(", path.read_text(encoding="utf-8"))]
    assert [path.relative_to(package).as_posix() for path in others] == ["core/encoded.py"]


def test_broken_exif_is_counted() -> None:
    data = encode(drawn(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f broken")
    found = decode(data)
    assert set(found.changes) <= {"EXIF ignored (not readable)"}
    assert found.image.size == (SIDE, SIDE)


def test_depths_and_ranges() -> None:
    wide = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
    for data in (encode(grey_of(wide), "TIFF"), encode(grey_of(wide)), encode(grey_of(wide.astype(np.int32)), "TIFF")):
        assert pixels(data)[0, :, 0].tolist() == [0, 0, 1, 0x12, 0xFF]
    assert pixels(encode(grey_of(np.array([[0, 77, 255]], np.int32)), "TIFF"))[0, :, 0].tolist() == [0, 77, 255]
    for values, expected in (
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-0.01, 0.2, 1.02], [0, 51, 255]),
        ([0.0, 128.4, 255.0], [0, 128, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ):
        assert pixels(encode(grey_of(np.array([values], np.float32)), "TIFF"))[0, :, 0].tolist() == expected
    for values, reason in (
        ([-1.0, 1.0], "its numbers run from -1 to 1, neither 0..1 nor 0..255"),
        ([0.0, 5.0], "from 0 to 5, neither"),
        ([0.0, 4096.0], "from 0 to 4096, neither"),
        ([0.0, np.nan], "not finite"),
    ):
        with pytest.raises(Unreadable, match=reason):
            open_rgb(encode(grey_of(np.array([values], np.float32)), "TIFF"))
    with pytest.raises(Unreadable, match=r"from -1 to 70000, neither 0\.\.255 nor 0\.\.65535"):
        open_rgb(encode(grey_of(np.array([[-1, 70000]], np.int32)), "TIFF"))


def test_cmyk_both_ways_round() -> None:
    """Adobe writes JPEG inks inverted, TIFF does not: red ink is red in both."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    jpeg = encode(red, "JPEG", quality=95)
    assert b"Adobe" in jpeg
    for data in (jpeg, encode(red, "TIFF")):
        assert np.abs(pixels(data) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"^empty \(zero bytes\)$"),
        (b"\n<!DOCTYPE html><html><body>404", "^a web page, not a picture$"),
        (b"\xef\xbb\xbf<HTML>", "^a web page, not a picture$"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "^a git-lfs pointer, the picture"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "^an SVG drawing"),
        (b'{"error": "not found"}', "^JSON text, not a picture$"),
        (b"hello world", "^text, not a picture$"),
        (b"\0" * 4096, "^nothing but zeros"),
        (b"%PDF-1.7", "^a PDF document"),
        (b"PK\x03\x04", "^a zip archive"),
        (b"\x1f\x8b\x08", "^a gzip archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "^HEIC, which Pillow does not read without pillow-heif"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "^a video"),
        (b"\xff\x0a\0\0", "^JPEG XL"),
        (bytes(range(128, 256)), "^not a picture of a known kind$"),
        *((encode(drawn(), kind)[:-300], "^truncated: the file ends before the picture does$")
          for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000")),
        (encode(drawn())[:60] + b"xxxx" + encode(drawn())[64:], r"^a damaged PNG \(.+\)$"),
        (encode(drawn(), "TIFF")[:8] + b"\xff" * 200, r"^(a damaged TIFF \(.+\)|truncated.*)$"),
    ],
)  # fmt: skip
def test_the_real_reason(data: bytes, reason: str) -> None:
    for read in (decode, lambda content: fitted(content, Bucket(8, 8))):
        with pytest.raises(Unreadable, match=reason) as caught:
            read(data)
        assert "\n" not in str(caught.value)


def test_avif_without_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(drawn(), "AVIF")
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF")
    monkeypatch.setattr("finepref.core.foreign.features.check", lambda name: False)
    with pytest.raises(Unreadable, match=r"AVIF, which this Pillow cannot read: install Pillow 11\.3 or newer"):
        open_rgb(data)


def test_the_pixel_limit_is_ours_and_pillows_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above Pillow's limit, below ours: opened, also by decoders that ask it themselves; above ours: refused."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, data in KINDS.items():
            assert open_rgb(data).size == (SIDE, SIDE), name
    assert Image.MAX_IMAGE_PIXELS == 100
    for module in ("encoded", "images"):
        monkeypatch.setattr(f"finepref.core.{module}.MAX_PIXELS", SIDE * SIDE - 1, raising=False)
    for name, data in KINDS.items():
        with pytest.raises(Unreadable, match="too many"):
            open_rgb(data)
        assert name
    header = b"IHDR" + (1 << 16).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    huge = encode(drawn())[:8] + png_chunk(header[:4], header[4:]) + encode(drawn())[33:]
    with pytest.raises(Unreadable, match="65536 x 65536 pixels are too many"):
        open_rgb(huge)


def test_bytes_and_bombs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A text that inflates to 64 MiB is never inflated; a file above the limit is not decoded."""
    bomb = zlib.compress(b"\0" * (64 << 20))
    for chunk in (b"zTXt" + b"x\0\0", b"iCCP" + b"x\0\0", b"zTXt" + b"XML:com.adobe.xmp\0\0"):
        data = encode(drawn())
        loaded = data[:33] + png_chunk(chunk[:4], chunk[4:] + bomb) + data[33:]
        np.testing.assert_array_equal(pixels(loaded), pixels(data))
    monkeypatch.setattr("finepref.core.encoded.MAX_BYTES", 100)
    with pytest.raises(Unreadable, match=r"bytes are too many \(100 at most\)"):
        open_rgb(encode(drawn()))
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"page\.jpg: not a readable image \(a web page, not a picture\)"):
        open_rgb_file(tmp_path / "page.jpg")


def test_threads_agree_and_leave_the_filters_of_warnings_alone() -> None:
    """A cache decodes in threads, which share the transforms of profiles."""
    before, alone = list(warnings.filters), [open_rgb(data).tobytes() for data in KINDS.values()]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda data: open_rgb(data).tobytes(), [*KINDS.values()] * 6))
    assert found == alone * 6
    assert warnings.filters == before
    assert PngImagePlugin.MAX_TEXT_CHUNK == ImageFile.SAFEBLOCK
