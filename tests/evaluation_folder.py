"""Evaluation folders for tests: small images, and scores that are given, not computed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from finepref.core.provenance import sha256_bytes
from finepref.formats.manifest import FolderRecord, ImageRow, ModelRecord, write_record, write_rows
from finepref.formats.prompts import prompt_sha256


def make_folder(
    folder: Path,
    prompts: Mapping[str, Sequence[str]],
    *,
    models: Sequence[str] = ("base", "new"),
    seeds: Sequence[int] = (0,),
    size: int = 8,
    tags: Mapping[str, str] | None = None,
    rewards: Mapping[str, Sequence[str]] | None = None,
) -> list[ImageRow]:
    """Images (all different) with a manifest: set -> prompts."""
    rows = []
    for prompt_set, texts in prompts.items():
        for index, text in enumerate(texts):
            for seed in seeds:
                for model in models:
                    path = f"images/{model}/{prompt_set}/{index:05d}_s{seed}.png"
                    number = len(rows)
                    pixels = np.full((size, size, 3), 40 + 60 * (models.index(model) % 3), dtype=np.uint8)
                    pixels[0, 0] = (number % 256, number // 256, 7)
                    digest = _save(pixels, folder / path)
                    rows.append(
                        ImageRow(
                            model, prompt_set, index, text, prompt_sha256(text), seed, path, digest,
                            "DDIMScheduler", 10, 3.0, (size, size), dict(tags or {}),
                        )
                    )  # fmt: skip
    write_rows(folder, rows)
    models_made = {
        name: ModelRecord(name, f"weights of {name}", tuple((rewards or {}).get(name, []))) for name in models
    }
    write_record(folder, FolderRecord(models_made))
    return rows


def _save(pixels: np.ndarray, path: Path) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return sha256_bytes(buffer.getvalue())


class Table:
    """A scorer that looks scores up by (model, row, seed); the pixel in the corner says which image it sees."""

    def __init__(
        self,
        rows: Sequence[ImageRow],
        value,
        *,
        name: str = "metric",
        fingerprint: str = "print-1",
        higher_is_better: bool = True,
    ) -> None:
        self.rows, self.value, self.name = rows, value, name
        self.fingerprint, self.higher_is_better = fingerprint, higher_is_better
        self.seen = 0

    def score(self, images, prompts):
        found = []
        for image, prompt in zip(images, prompts, strict=True):
            red, green, _ = image.convert("RGB").getpixel((0, 0))
            row = self.rows[red + 256 * green]
            assert row.prompt == prompt
            found.append(self.value(row))
        self.seen += len(images)
        return np.array(found, dtype=np.float64)
