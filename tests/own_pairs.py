"""A user's own pairs: an image folder with a table of chosen and rejected files, JPEG, PNG and WebP of real sizes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((48, 40), (64, 64), (33, 57), (90, 41), (40, 100), (36, 36))
FORMATS = ("jpg", "png", "webp")
PROMPTS = ("a red circle", "a small blue square", "a photo of a dog", "the large green circle on a square")


def make_folder(folder: Path, *, pairs: int = 12, seed: int = 0) -> Path:
    """Write `pairs` pairs and metadata.csv (chosen_file_name, rejected_file_name, prompt); returns the folder."""
    draws = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(pairs):
        names = []
        for side in ("chosen", "rejected"):
            number = 2 * i + (side == "rejected")
            width, height = SIZES[number % len(SIZES)]
            name = f"{side}-{i:03d}.{FORMATS[number % len(FORMATS)]}"
            colour = draws.integers(0, 255, 3)
            pixels = np.clip(colour + draws.normal(0, 40, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name)
            names.append(name)
        rows.append((*names, PROMPTS[i % len(PROMPTS)]))
    with (folder / "metadata.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("chosen_file_name", "rejected_file_name", "prompt"))
        writer.writerows(rows)
    return folder
