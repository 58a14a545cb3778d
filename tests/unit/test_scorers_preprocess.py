"""Any image mode and size; the four variants differ where they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from finepref.core.errors import InputError
from finepref.evaluate.scorers.preprocess import MEAN, STD, VARIANTS, pixel_batch, pixels, to_rgb
from tiny_scorers import picture

MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I",
    "F",
    "I;16",
)


def _any(mode: str) -> Image.Image:
    if mode in ("La", "RGBa"):
        return picture(mode="LA" if mode == "La" else "RGBA").convert(mode)
    if mode == "LAB":
        return Image.new("LAB", (70, 50), (120, 3, 9))
    if mode == "I;16":
        return Image.fromarray(np.arange(3500, dtype=np.uint16).reshape(50, 70))
    return picture(mode="L").convert(mode) if mode in ("I", "F", "PA") else picture(mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_mode(mode: str, variant: str) -> None:
    found = pixels(_any(mode), variant, size=28)
    assert found.shape == (3, 28, 28)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (223, 225), (5000, 30)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_size(size: tuple[int, int], variant: str) -> None:
    found = pixels(picture(*size), variant, size=28)
    assert found.shape == (3, 28, 28)
    assert bool(found.isfinite().all())


def test_alpha_is_dropped_not_blended() -> None:
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    assert to_rgb(image).getpixel((0, 0)) == (200, 100, 50)


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    values = np.array([[0, 255, 256, 0x1234, 0xFFFF]], dtype=np.uint16)
    for array in (values, values.astype(np.int32)):
        found = np.asarray(to_rgb(Image.fromarray(array)))[0, :, 0]
        assert found.tolist() == [0, 0, 1, 0x12, 0xFF]


@pytest.mark.parametrize("variant", ["pil_round", "pil_floor"])
def test_a_very_long_image_equals_its_ordinary_path(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(900, 20)
    short = pixels(image, variant, size=28)
    monkeypatch.setattr("finepref.evaluate.scorers.preprocess.LONGEST_RESIZED", 10**6)
    assert torch.equal(pixels(image, variant, size=28), short)


def test_round_and_floor_differ_by_one_column_where_the_rest_is_odd() -> None:
    wide = picture(231, 224)  # 7 columns too many: round(3.5) = 4, floor 3
    left, right = pixels(wide, "pil_floor"), pixels(wide, "pil_round")
    assert torch.equal(left[:, :, 1:], right[:, :, :-1])
    square = picture(300, 300)
    assert torch.equal(pixels(square, "pil_floor"), pixels(square, "pil_round"))


def test_python_rounds_half_to_even_like_the_original() -> None:
    wide = picture(229, 224)  # 5 too many: round(2.5) = 2
    assert torch.equal(pixels(wide, "pil_floor"), pixels(wide, "pil_round"))


def test_padding_is_black_before_normalisation() -> None:
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    found = pixels(picture(100, 50), "tensor_aa", size=28)
    torch.testing.assert_close(found[:, 0, 0], black)
    torch.testing.assert_close(found[:, -1, -1], black)
    assert not torch.allclose(found[:, 14, 14], black)


def test_same_size_is_only_normalised() -> None:
    image = picture(28, 28)
    plain = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    for variant in VARIANTS:
        found = pixels(image, variant, size=28) * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)


def test_antialiasing_matters_and_overshoot_is_not_clamped() -> None:
    board = Image.fromarray(np.kron(np.indices((16, 16)).sum(0) % 2 * 255, np.ones((3, 3))).astype(np.uint8))
    smooth, rough = pixels(board, "tensor_aa", size=28), pixels(board, "tensor_noaa", size=28)
    assert (smooth - rough).abs().max() > 0.1
    white = (1 - MEAN[0]) / STD[0]
    assert rough[0].max() > white


def test_batch_is_each_image_alone() -> None:
    images = [picture(30, 60), picture(61, 33)]
    batch = pixel_batch(images, "pil_round", size=28)
    assert all(torch.equal(batch[i], pixels(image, "pil_round", size=28)) for i, image in enumerate(images))


def test_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'tensor_aa'"):
        pixels(picture(), "tensor_a")


def test_empty_image() -> None:
    with pytest.raises(InputError, match="no pixels"):
        pixels(Image.new("RGB", (0, 5)), "pil_round")


def test_truncated_file(tmp_path: object) -> None:
    import io

    buffer = io.BytesIO()
    picture(200, 200).save(buffer, format="PNG")
    broken = Image.open(io.BytesIO(buffer.getvalue()[:2000]))
    with pytest.raises(InputError, match="cannot be decoded"):
        pixels(broken, "pil_round")
