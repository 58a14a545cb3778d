"""Images to network input, the four ways the published evaluators do it, with Pillow and torch alone.

S output side (224), H W image size. Every variant ends with (x - MEAN) / STD per channel.

    pil_round     short side to S by Pillow's bicubic on uint8, centre crop at round(diff / 2)
                  (OpenAI CLIP, open_clip, ImageReward)
    pil_floor     the same, crop at floor(diff / 2) (transformers, PickScore)
    tensor_aa     to float first, long side to S by torch's bicubic with antialiasing, no clamp, zeros around it,
                  then normalise (HPSv2 on torchvision >= 0.17)
    tensor_noaa   the same without antialiasing (HPSv2 on torchvision < 0.17: its README's leaderboard)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from finepref.core.errors import InputError, nearest

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
VARIANTS = ("pil_round", "pil_floor", "tensor_aa", "tensor_noaa")
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
LONGEST_RESIZED = 16  # a resized long side of more than this many S is never made whole


def check_variant(variant: str) -> str:
    """`variant` where it is known.

    Raises:
        InputError: it is not one of `VARIANTS`.
    """
    if variant not in VARIANTS:
        raise InputError(f"unknown preprocess {variant!r}", remedy=nearest(variant, VARIANTS))
    return variant


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB.

    Alpha is dropped, as in the official code of every evaluator here; 16-bit grey (I;16, I) keeps its high byte;
    F is clipped to 0..255 by Pillow.

    Raises:
        InputError: the image has no pixels or cannot be decoded.
    """
    if image.width == 0 or image.height == 0:
        raise InputError("the image has no pixels", where=getattr(image, "filename", None) or None)
    try:
        if image.mode in SIXTEEN_BIT:
            values = np.asarray(image).astype(np.int64)
            image = Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8), mode="L")
        elif image.mode == "La":
            image = image.convert("LA")
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        where = getattr(image, "filename", None) or None
        raise InputError(f"the image cannot be decoded ({error})", where=where) from None


def _crop(diff: int, variant: str) -> int:
    return round(diff / 2.0) if variant == "pil_round" else diff // 2


def _pil(image: Image.Image, variant: str, size: int) -> Tensor:
    width, height = image.size
    if width <= height:
        new_width, new_height = size, int(size * height / width)
    else:
        new_width, new_height = int(size * width / height), size
    left, top = _crop(new_width - size, variant), _crop(new_height - size, variant)
    if max(new_width, new_height) > LONGEST_RESIZED * size:  # the same pixels without the rest of a very long image
        x, y = width / new_width, height / new_height
        box = (left * x, top * y, (left + size) * x, (top + size) * y)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    else:
        image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + size, top + size))
    return _tensor(image)


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).float() / 255


def _padded(image: Image.Image, variant: str, size: int) -> Tensor:
    x = _tensor(image)
    height, width = x.shape[-2:]
    scale = size / float(max(height, width))
    if scale != 1.0:
        new = (max(1, round(height * scale)), max(1, round(width * scale)))
        x = torch.nn.functional.interpolate(
            x[None], size=new, mode="bicubic", align_corners=False, antialias=variant == "tensor_aa"
        )[0]
    right, bottom = size - x.shape[-1], size - x.shape[-2]
    return torch.nn.functional.pad(x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))


def pixels(image: Image.Image, variant: str, *, size: int = 224) -> Tensor:
    """One image as network input.

    Args:
        image: any mode, any size of at least 1 x 1.
        variant: one of `VARIANTS`.
        size: S, the side of the output in pixels.

    Returns:
        float32 [3, S, S], normalised.

    Raises:
        InputError: unknown variant, or an image that cannot be decoded.

    References:
        OpenAI CLIP clip.py `_transform`; open_clip `image_transform`; transformers `CLIPImageProcessorPil`;
        HPSv2 open_clip/transform.py `ResizeMaxSize` and `image_transform`.
    """
    check_variant(variant)
    rgb = to_rgb(image)
    x = _padded(rgb, variant, size) if variant.startswith("tensor") else _pil(rgb, variant, size)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (x - mean) / std


def pixel_batch(images: Sequence[Image.Image], variant: str, *, size: int = 224) -> Tensor:
    """Images as one float32 batch [N, 3, S, S]; each image is prepared alone (see `pixels`)."""
    return torch.stack([pixels(image, variant, size=size) for image in images])
