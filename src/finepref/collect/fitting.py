"""Pictures of one prompt at one size, so that the size tells nobody which model made them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from finepref.core.images import open_rgb_file
from finepref.core.locks import temporary
from finepref.core.progress import progress, say
from finepref.formats.answers import PictureRow
from finepref.formats.collection import PICTURES

SHOWN = "-shown.png"
ALIKE = 0.01
"""How far two ratios of width and height may be apart, of 1, to be one shape."""


def shown_file(folder: Path, picture: PictureRow) -> Path:
    """What voters see of a picture: itself, or its copy at the size of the largest picture of its prompt."""
    copy = folder / PICTURES / picture.name.replace(".png", SHOWN)
    return copy if copy.is_file() else folder / PICTURES / picture.name


def fit_pictures(folder: Path, pictures: Sequence[PictureRow], prompts: Sequence[str]) -> None:
    """Make the copies, where pictures of a prompt have several sizes and one shape; the pictures stay as they are.

    Those of several shapes are shown as they are, which is said.
    """
    held: dict[int, list[PictureRow]] = {}
    for picture in pictures:
        held.setdefault(picture.prompt, []).append(picture)
    several = {prompt: rows for prompt, rows in held.items() if len({(row.width, row.height) for row in rows}) > 1}
    shapes = {prompt: sorted(row.width / row.height for row in rows) for prompt, rows in several.items()}
    odd = [prompt for prompt, ratios in shapes.items() if ratios[-1] > ratios[0] * (1 + ALIKE)]
    if odd:
        first = prompts[odd[0]] or f"prompt {odd[0] + 1}"
        say(
            f"the pictures of {len(odd)} prompts have several shapes, by which a voter can tell models apart (the "
            f"first: {first[:80]}); crop them to one shape"
        )
    todo = [(row, _largest(rows)) for prompt, rows in several.items() if prompt not in odd for row in rows]
    todo = [(row, size) for row, size in todo if (row.width, row.height) != size]
    for row, size in progress(todo, "pictures at one size", unit="picture", hidden=not todo):
        place = folder / PICTURES
        out = place / row.name.replace(".png", SHOWN)
        if out.is_file() and out.stat().st_size:
            continue
        image = open_rgb_file(place / row.name).resize(size, Image.Resampling.LANCZOS)
        put_png(image, out)


def put_png(image: Image.Image, out: Path) -> None:
    """Write a picture, whole or not at all."""
    with temporary(out.parent) as made:
        image.save(made, "PNG", compress_level=4)
        os.replace(made, out)


def _largest(rows: Sequence[PictureRow]) -> tuple[int, int]:
    return max(((row.width, row.height) for row in rows), key=lambda size: (size[0] * size[1], size))
