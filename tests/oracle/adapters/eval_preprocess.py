"""Seven sizes of one synthetic image through the reference transforms of five packages."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from finepref.evaluate.scorers.preprocess import pixels
from tolerance import rounding

VARIANTS = {
    "openai_clip_pil": "pil_round",
    "open_clip_pil": "pil_round",
    "hf_pil": "pil_floor",
    "hpsv2_tensor_antialias": "tensor_aa",
    "hpsv2_tensor_no_antialias": "tensor_noaa",
}
# The file has five decimals; a float32 resize adds up 2 x 12 products, and a standard deviation of 0.26 divides them.
ROUNDING = 5e-6 + rounding(2 * 2 * 12, size=1 / 0.26)


def synthetic(width: int, height: int) -> Image.Image:
    """The recipe's image."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    red = 127.5 + 127.5 * np.sin(x / 3 + y / 11)
    green = 127.5 + 127.5 * np.cos(y / 2 - x / 17)
    blue = 255 * ((x // 5 + y // 7) % 2)
    return Image.fromarray(np.round(np.stack([red, green, blue], axis=-1)).astype(np.uint8))


def check(content: dict[str, Any], meta: dict[str, Any]) -> None:
    assert set(content["transforms"]) == set(VARIANTS)
    assert content["cases"]
    for size, case in content["cases"].items():
        width, height = map(int, size.split("x"))
        image = synthetic(width, height)
        for transform, wanted in case.items():
            found = pixels(image, VARIANTS[transform]).double().numpy()
            assert found.shape == (3, 224, 224)
            samples = [found[tuple(index)] for index in content["sample_index_chw"]]
            where = f"{size} {transform}"
            np.testing.assert_allclose(samples, wanted["samples"], rtol=0, atol=ROUNDING, err_msg=where)
            moments = [found.mean(), found.std(ddof=1), found.min(), found.max()]
            expected = [wanted[name] for name in ("mean", "std", "min", "max")]
            np.testing.assert_allclose(moments, expected, rtol=0, atol=ROUNDING, err_msg=where)
