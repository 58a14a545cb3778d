"""The cache's reading interface without a cache: images and prompts are encoded whenever a batch asks for them.

Shapes: N images, C channels, h w latent size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.images import ImageSize, Unreadable, square
from finepref.core.progress import progress, say
from finepref.core.provenance import sha256_bytes
from finepref.data.latents import EMPTY_PROMPT, Pairs, check_same, identity_of
from finepref.formats.preferences import ImageRef, Preference, Quarantined, read_preferences
from finepref.models.protocol import Encoder

Item = TypeVar("Item")
IN_MEMORY = 4 << 30


class TooMuch(InputError):
    """More image bytes than may be held in memory."""


class OnlineLatents:
    """Preferences behind the methods of `LatentCache` (`data.latents.Latents`). Nothing is written.

    Every image is decoded once when this is made, so that bad ones drop their pair, and again whenever it is drawn.
    quarantined: the pairs that were dropped.
    """

    def __init__(
        self,
        preferences: Iterable[Preference],
        encoder: Encoder,
        *,
        rejected: Sequence[Quarantined] = (),
        posterior: Literal["mean_std", "mode"] = "mean_std",
        batch_size: int = 32,
        in_memory: int = IN_MEMORY,
    ) -> None:
        """Read the preferences.

        Args:
            posterior, batch_size: see `building.CacheSettings`.
            rejected: rows that the reader drops while it is read (the list given to `read_preferences`).
            in_memory: bytes of images that may be held because their table holds them and not a file.

        Raises:
            InputError: more image bytes than `in_memory`, or no usable pair.
        """
        self.encoder, self.batch_size = encoder, batch_size
        self.meta: Mapping[str, Any] = {
            "fingerprint": dict(encoder.fingerprint()),
            "resolution": encoder.resolution,
            "flips": True,
            "posterior": posterior,
        }
        self._images: dict[str, ImageRef] = {}
        self._bad: dict[str, str] = {}
        self._texts: dict[str, str] = {EMPTY_PROMPT: ""}
        self._held, self._limit = 0, in_memory
        rows: list[tuple[str, str, str, str]] = []
        labels: list[float] = []
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
            labels.append(preference.label)
        self.quarantined = sorted([*dropped, *rejected], key=lambda each: each.row)
        if not rows:
            raise InputError("no pair is usable", remedy="see `finepref data validate`")
        self.pairs = Pairs(*(list(column) for column in zip(*rows, strict=True)))
        self.labels: NDArray[np.float64] | None = np.asarray(labels, dtype=np.float64)

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

    def identity(self) -> str:
        """Hash of what shapes the numbers, and of the pairs; not that of any cache, whose numbers are rounded."""
        return identity_of(self.meta, self.pairs)

    def calls(self) -> dict[str, int | None]:
        """Not counted: it depends on which batches share an image."""
        return {"vae": None, "text": None}

    def latents(
        self, images: Sequence[str], flips: Sequence[bool] | None = None
    ) -> tuple[Tensor, Tensor | None, list[ImageSize]]:
        """(mean [N,C,h,w], std or None for `mode`, sizes), float32 on the CPU, encoded now; equal images once."""
        mirrored = [False] * len(images) if flips is None else [bool(f) for f in flips]
        keys = list(dict.fromkeys(zip(images, mirrored, strict=True)))
        squares: list[np.ndarray] = []
        sizes: list[ImageSize] = []
        for sha, flip in keys:
            if sha not in self._images:
                raise InputError(f"no image {sha[:12]}", where="online encoding", remedy="read the same data")
            pixels, size = square(self._read(sha), self.encoder.resolution)
            squares.append(pixels[:, :, ::-1] if flip else pixels)
            sizes.append(size.mirrored(self.encoder.resolution) if flip else size)
        encoded = [self.encoder.encode_images(torch.from_numpy(np.stack(some))) for some in self._batches(squares)]
        mean, std = (torch.cat([each.cpu() for each in part]) for part in zip(*encoded, strict=True))
        place = {key: row for row, key in enumerate(keys)}
        order = [place[key] for key in zip(images, mirrored, strict=True)]
        kept = None if self.meta["posterior"] == "mode" else std[order]
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
        unknown = [sha for sha in distinct if sha not in self._texts]
        if unknown:
            raise InputError(f"no prompt {unknown[0][:12]}", where="online encoding", remedy="read the same data")
        encoded = [self.encoder.encode_prompts([self._texts[sha] for sha in some]) for some in self._batches(distinct)]
        place = {sha: row for row, sha in enumerate(distinct)}
        order = [place[sha] for sha in prompts]
        return {name: torch.cat([each[name].cpu() for each in encoded])[order] for name in encoded[0]}

    def _batches(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        return [items[start : start + self.batch_size] for start in range(0, len(items), self.batch_size)]


def online_from(
    paths: str | Path | Sequence[str | Path],
    encoder: Encoder,
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    posterior: Literal["mean_std", "mode"] = "mean_std",
    batch_size: int = 32,
) -> OnlineLatents:
    """Read preferences for online encoding (as `formats.preferences` does); the dropped pairs are named.

    Raises:
        InputError: the data cannot be read, holds too many images in its tables, or no pair is usable.
    """
    rejected: list[Quarantined] = []
    preferences = read_preferences(paths, format=format, columns=columns, quarantine=rejected)
    online = OnlineLatents(preferences, encoder, rejected=rejected, posterior=posterior, batch_size=batch_size)
    for each in online.quarantined[:3]:
        say(f"row {each.row} (pair {each.pair_id}) dropped: {each.reason}")
    if online.quarantined:
        say(f"{len(online.quarantined)} pairs dropped; `finepref data validate` lists them")
    return online
