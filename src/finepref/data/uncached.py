"""The cache's reading interface without a cache: images and prompts are encoded whenever a batch asks for them.

Shapes: N images, C channels, h w latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from finepref.core.buckets import bucket_of
from finepref.core.errors import InputError
from finepref.core.images import ImageSize, Unreadable, fitted
from finepref.core.progress import progress, say
from finepref.core.provenance import sha256_bytes
from finepref.data.hashed import HashedStretch
from finepref.data.latents import EMPTY_PROMPT
from finepref.formats.cache import Shaping
from finepref.formats.cachetables import pairs_of
from finepref.formats.joinedparts import joined
from finepref.formats.preferences import ImageRef
from finepref.formats.prompts import prompt_sha256
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.stretches import named, open_stretches, total_rows
from finepref.models.encoder import LatentEncoder

Item = TypeVar("Item")
IN_MEMORY = 4 << 30  # bytes of images that may be held because their table holds them and not a file


class OnlineLatents:
    """Preferences behind the methods of `LatentCache` (`data.latents.Latents`). Nothing is written.

    Every image is decoded once when this is made, so that bad ones drop their pair, and again whenever it is drawn.
    quarantined: the pairs that were dropped.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        encoder: LatentEncoder,
        *,
        reading: Reading = AS_IT_IS,
        posterior: Literal["mean_std", "mode"] = "mean_std",
        batch_size: int = 32,
    ) -> None:
        """Read the preferences; the dropped pairs are named.

        Args:
            paths, reading: what is read, and how. posterior, batch_size: see `building.CacheSettings`.

        Raises:
            InputError: the data cannot be read, its tables hold too many bytes of images, or no pair is usable.
        """
        self.encoder, self.batch_size = encoder, batch_size
        self.shaping = Shaping(
            fingerprint=dict(encoder.fingerprint()), resolution=encoder.resolution, crop=None, dtype=None, flips=True,
            posterior=posterior, buckets=len(encoder.buckets) > 1,
        )  # fmt: skip
        self._images: dict[str, ImageRef] = {}
        self._texts: dict[str, str] = {EMPTY_PROMPT: ""}
        bad: set[str] = set()
        held, opened = 0, open_stretches(paths, reading)
        stretches = opened.stretches()
        parts = [HashedStretch(opened, stretch, buckets=encoder.buckets) for stretch in stretches]
        pairs = ((part, *found) for part in parts for found in part.read())
        for part, prompt, bucket, images in progress(pairs, "read", total=total_rows(stretches), unit="pair"):
            self._texts[prompt_sha256(prompt)] = prompt
            for sha in images.keys() - self._images.keys() - bad:
                image, content = images[sha]
                try:
                    fitted(content, bucket_of(bucket))
                except Unreadable as error:
                    bad.add(sha)
                    part.images[sha] = (str(error), "", "")
                    continue
                self._images[sha] = image
                held += 0 if image.path is not None else len(content)
                if held > IN_MEMORY:
                    remedy = "make a cache, or keep the images as files"
                    raise InputError(f"the tables hold more than {IN_MEMORY} bytes of images", remedy=remedy)
        whole = joined([part.part() for part in parts], where=named(opened), question=reading.question)
        self.quarantined = whole.left_out
        if not len(whole.pairs):
            raise InputError("no pair is usable", remedy="see `finepref data validate`")
        self.pairs, self.labels = pairs_of(whole.pairs)
        for each in self.quarantined[:3]:
            say(f"row {each.row} (pair {each.pair_id}) dropped: {each.reason}")
        if self.quarantined:
            say(f"{len(self.quarantined)} pairs dropped; `finepref data validate` lists them")

    def identity(self) -> str:
        """Hash of what shapes the numbers, and of the pairs; not that of any cache, whose numbers are rounded."""
        return self.shaping.identity(self.pairs.sha256())

    def calls(self) -> dict[str, int | None]:
        """Not counted: it depends on which batches share an image."""
        return {"vae": None, "text": None}

    def device_seconds(self) -> float | None:
        """None of it before the training: a step's seconds contain what it encodes."""
        return 0.0

    def latents(
        self, images: Sequence[str], flips: Sequence[bool] | None = None, *, bucket: str | None = None
    ) -> tuple[Tensor, Tensor | None, list[ImageSize]]:
        """(mean [N,C,h,w], std or None for `mode`, sizes), float32 on the CPU, encoded now; equal images once."""
        mirrored = [False] * len(images) if flips is None else [bool(f) for f in flips]
        shape = self.encoder.buckets[0] if bucket is None else bucket_of(bucket)
        keys = list(dict.fromkeys(zip(images, mirrored, strict=True)))
        cropped: list[np.ndarray] = []
        sizes: list[ImageSize] = []
        for sha, flip in keys:
            pixels, size = fitted(self._read(sha), shape)
            cropped.append(pixels[:, :, ::-1] if flip else pixels)
            sizes.append(size.mirrored() if flip else size)
        encoded = [self.encoder.encode_images(torch.from_numpy(np.stack(some))) for some in self._batches(cropped)]
        mean, std = (torch.cat([each.cpu() for each in part]) for part in zip(*encoded, strict=True))
        place = {key: row for row, key in enumerate(keys)}
        order = [place[key] for key in zip(images, mirrored, strict=True)]
        kept = None if self.shaping.posterior == "mode" else std[order]
        return mean[order], kept, [sizes[row] for row in order]

    def _read(self, sha: str) -> bytes:
        """The bytes of an image, which are still those that were decoded when this was made."""
        image = self._images[sha]
        content = image.read()
        if sha256_bytes(content) != sha:
            remedy = "put the old file back, or start the run again"
            raise InputError("the image was changed since the run read the data", where=image.path, remedy=remedy)
        return content

    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """name -> [N,...] by prompt hash, float32 on the CPU, encoded now; equal prompts once."""
        distinct = list(dict.fromkeys(prompts))
        encoded = [self.encoder.encode_prompts([self._texts[sha] for sha in some]) for some in self._batches(distinct)]
        place = {sha: row for row, sha in enumerate(distinct)}
        order = [place[sha] for sha in prompts]
        return {name: torch.cat([each[name].cpu() for each in encoded])[order] for name in encoded[0]}

    def _batches(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        return [items[start : start + self.batch_size] for start in range(0, len(items), self.batch_size)]
