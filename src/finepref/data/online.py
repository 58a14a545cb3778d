"""The cache's reading interface without a cache: images and prompts are encoded whenever a batch asks for them.

Shapes: N images, C channels, h w latent size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finepref.data.images import Unreadable, square
from finepref.data.latents import EMPTY_PROMPT, Pairs, check_same
from finepref.data.schema import ImageRef, Preference, Quarantined
from finepref.errors import InputError
from finepref.models.protocol import Encoder, ImageSize
from finepref.progress import progress
from finepref.provenance import sha256_bytes

IN_MEMORY = 4 << 30


class TooMuch(InputError):
    """More image bytes than may be held in memory."""


class OnlineLatents:
    """Preferences behind the methods of `LatentCache`: pairs, latents, prompts, require. Nothing is written.

    Every image is decoded once when this is made, so that bad ones drop their pair, and again whenever it is drawn.
    quarantined: the pairs that were dropped.
    """

    def __init__(
        self,
        preferences: Iterable[Preference],
        encoder: Encoder,
        *,
        rejected: Sequence[Quarantined] = (),
        in_memory: int = IN_MEMORY,
    ) -> None:
        """Read the preferences.

        Args:
            rejected: rows that the reader drops while it is read (the list given to `read_preferences`).
            in_memory: bytes of images that may be held because their table holds them and not a file.

        Raises:
            InputError: more image bytes than `in_memory`, or no usable pair.
        """
        self.encoder = encoder
        self.meta: Mapping[str, Any] = {
            "fingerprint": dict(encoder.fingerprint()),
            "resolution": encoder.resolution,
            "flips": True,
            "posterior": "mean_std",
        }
        self._images: dict[str, ImageRef] = {}
        self._bad: dict[str, str] = {}
        self._texts: dict[str, str] = {EMPTY_PROMPT: ""}
        self._held, self._limit = 0, in_memory
        rows: list[tuple[str, str, str, str]] = []
        dropped: list[Quarantined] = []
        for index, preference in enumerate(progress(preferences, "read", unit="pair")):
            try:
                first, second = self._add(preference.image_0, "image_0"), self._add(preference.image_1, "image_1")
            except TooMuch:
                raise
            except (InputError, Unreadable) as error:
                row = index + len(rejected)
                dropped.append(Quarantined(row=row, pair_id=preference.pair_id, reason=str(error)))
                continue
            prompt = sha256_bytes(preference.prompt.encode())
            self._texts[prompt] = preference.prompt
            rows.append((preference.pair_id, prompt, first, second))
        self.quarantined = sorted([*dropped, *rejected], key=lambda each: each.row)
        if not rows:
            raise InputError("no pair is usable", remedy="see `finepref data validate`")
        self.pairs = Pairs(*(list(column) for column in zip(*rows, strict=True)))

    def _add(self, image: ImageRef, name: str) -> str:
        """Content hash of a usable image; remembers where it is."""
        content = image.read()
        sha = sha256_bytes(content)
        if sha in self._bad:
            raise Unreadable(f"{name}: {self._bad[sha]}")
        if sha not in self._images:
            try:
                square(content, self.encoder.resolution)
            except Unreadable as error:
                self._bad[sha] = str(error)
                raise Unreadable(f"{name}: {error}") from None
            if image.path is None:
                self._held += len(content)
                if self._held > self._limit:
                    remedy = "make a cache, or keep the images as files"
                    raise TooMuch(f"the tables hold more than {self._limit} bytes of images", remedy=remedy)
            self._images[sha] = image
        return sha

    def require(self, **expected: Any) -> None:
        """Refuse another model or resolution than `expected` (see `LatentCache.require`)."""
        check_same(self.meta, expected, where="online encoding")

    def latents(
        self, images: Sequence[str], flips: Sequence[bool] | None = None
    ) -> tuple[Tensor, Tensor | None, list[ImageSize]]:
        """(mean [N,C,h,w], std [N,C,h,w], sizes), float32 on the CPU, encoded now; equal images once."""
        mirrored = [False] * len(images) if flips is None else [bool(f) for f in flips]
        keys = list(dict.fromkeys(zip(images, mirrored, strict=True)))
        squares: list[np.ndarray] = []
        sizes: list[ImageSize] = []
        for sha, flip in keys:
            if sha not in self._images:
                raise InputError(f"no image {sha[:12]}", where="online encoding", remedy="read the same data")
            pixels, size = square(self._images[sha].read(), self.encoder.resolution)
            squares.append(pixels[:, :, ::-1] if flip else pixels)
            sizes.append(size.mirrored(self.encoder.resolution) if flip else size)
        mean, std = self.encoder.encode_images(torch.from_numpy(np.stack(squares)))
        place = {key: row for row, key in enumerate(keys)}
        order = [place[key] for key in zip(images, mirrored, strict=True)]
        return mean.cpu()[order], std.cpu()[order], [sizes[row] for row in order]

    def latent(self, image: str, flip: bool = False) -> tuple[Tensor, Tensor | None, ImageSize]:
        """(mean [C,h,w], std, size) of one image."""
        mean, std, sizes = self.latents([image], [flip])
        return mean[0], None if std is None else std[0], sizes[0]

    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """name -> [N,...] by prompt hash, float32 on the CPU, encoded now; equal prompts once."""
        distinct = list(dict.fromkeys(prompts))
        unknown = [sha for sha in distinct if sha not in self._texts]
        if unknown:
            raise InputError(f"no prompt {unknown[0][:12]}", where="online encoding", remedy="read the same data")
        encoded = self.encoder.encode_prompts([self._texts[sha] for sha in distinct])
        order = [distinct.index(sha) for sha in prompts]
        return {name: value.cpu()[order] for name, value in encoded.items()}

    def prompt(self, prompt: str) -> dict[str, Tensor]:
        """name -> [...] of one prompt."""
        return {name: value[0] for name, value in self.prompts([prompt]).items()}
