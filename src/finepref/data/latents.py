"""Reading a latent cache: images and prompts by content hash, pairs by pair_id.

Shapes: N images, C channels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from finepref.core.buckets import bucket_of
from finepref.core.errors import InputError
from finepref.core.files import reading
from finepref.core.images import ImageSize
from finepref.core.provenance import sha256_bytes
from finepref.data.shards import ShardSet
from finepref.formats.cache import IMAGES, KINDS, Shaping, read_cache
from finepref.formats.cachetables import Items, Pairs, read_items, read_pairs

MASK = "prompt_mask"
_VARIABLE = frozenset({"prompt_embeds", MASK})
EMPTY_PROMPT = sha256_bytes(b"")


class Latents(Protocol):
    """What training reads: a cache, or images and prompts that are encoded when they are drawn (`data.online`)."""

    @property
    def pairs(self) -> Pairs:
        """The pairs by id."""
        ...

    @property
    def labels(self) -> NDArray[np.float64] | None:
        """[P] P(image_0 preferred) in {1, 0.5, 0}, nan where nobody voted, in the order of `pairs`; None if unknown."""
        ...

    def identity(self) -> str:
        """Hash of everything that shapes the numbers, and of the pairs."""
        ...

    def calls(self) -> dict[str, int | None]:
        """Images (`vae`) and prompts (`text`) that the encoders were called for; None if not counted."""
        ...

    def device_seconds(self) -> float | None:
        """What encoding took before the training; None where it was not measured."""
        ...

    def latents(
        self, images: Sequence[str], flips: Sequence[bool] | None = None, *, bucket: str | None = None
    ) -> tuple[Tensor, Tensor | None, list[ImageSize]]:
        """(mean [N,C,h,w], std [N,C,h,w] or None, sizes), float32, by content hash; bucket: None is the square one."""
        ...

    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """name -> [N,...] by prompt hash, float32."""
        ...


class LatentCache:
    """A finished cache folder, opened for reading; tensors stay on the disk until they are asked for.

    labels: as in `Latents`; None in a cache that an older version made.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open it.

        Raises:
            InputError: it is not finished, or a shard is missing or damaged.
        """
        self.folder = Path(folder)
        self.record = read_cache(self.folder)
        if not self.record.complete:
            raise InputError("the cache is not finished", where=self.folder, remedy="run `finepref cache` again")
        square = self.record.shaping.square
        self._only = str(square)
        self._image, self._prompt = held = [read_items(self.folder, kind, square=square) for kind in KINDS]
        self.pairs, self.labels = read_pairs(
            self.folder, square=square, images=self._image.hashes, prompts=self._prompt.hashes
        )
        assert self._image.crops is not None
        self._crops = self._image.crops
        remedy = "make it again with `finepref cache --overwrite`"
        with reading(self.folder / f"{IMAGES.name}.parquet", "a table with buckets such as 640x512", remedy=remedy):
            self._buckets = {name: bucket_of(name) for name in self._crops.buckets}
        latents = ["mean", *(["std"] if self.record.shaping.posterior == "mean_std" else [])]
        self._images, self._prompts = (
            ShardSet(
                self.folder / kind.name, items.shards, items.shard, items.place, needs=latents if kind is IMAGES else []
            )
            for kind, items in zip(KINDS, held, strict=True)
        )

    def check(self) -> int:
        """Look now whether every shard has the content that it was written with; how many there are.

        Raises:
            InputError: one has not.
        """
        return sum(shards.check() for shards in (self._images, self._prompts))

    def require(self, wanted: Shaping) -> None:
        """Refuse a cache that was made for something else.

        Raises:
            InputError: names what differs.
        """
        self.record.shaping.require(wanted, where=self.folder)

    def identity(self) -> str:
        """Hash of what it holds: everything that shaped its numbers, and its pairs."""
        return self.record.shaping.identity(self.pairs.sha256())

    def calls(self) -> dict[str, int | None]:
        """Images and prompts that the encoders were called for to make it."""
        return {"vae": len(self._image.hashes), "text": len(self._prompt.hashes)}

    def device_seconds(self) -> float | None:
        """What encoding its images and prompts took, on all processes; None where an older version made it."""
        return self.record.device_seconds

    def latents(
        self, images: Sequence[str], flips: Sequence[bool] | None = None, *, bucket: str | None = None
    ) -> tuple[Tensor, Tensor | None, list[ImageSize]]:
        """(mean [N,C,h,w], std [N,C,h,w] or None for a `mode` cache, sizes), float32, by content hash.

        Args:
            flips: [N], take the mirrored image; None for none. The mirror's crop is given in its own coordinates.
            bucket: that all images are cropped to; None is the square one.

        Raises:
            InputError: an image (or its mirror) that the cache does not hold.
        """
        mirrored, shape = [False] * len(images) if flips is None else [bool(f) for f in flips], bucket or self._only
        rows = _lines(self._image, images, shape, mirrored)
        if (rows < 0).any():
            at = int(np.argmin(rows))
            what = f"no {'mirrored ' if mirrored[at] else ''}image {images[at][:12]}"
            raise InputError(what, where=self.folder, remedy="make the cache again, with flips if wanted")
        tensors = self._images.gather(rows)
        std = tensors.get("std")
        crops, shown = self._crops.sizes[self._crops.size[rows]].tolist(), self._buckets[shape]
        sizes = [ImageSize(height, width, top, left, shown) for height, width, top, left in crops]
        return tensors["mean"].float(), None if std is None else std.float(), sizes

    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """name -> [N,...] by prompt hash; embeddings in float32, zeros (and mask 0) beyond a prompt's tokens.

        Raises:
            InputError: a prompt that the cache does not hold.
        """
        rows = _lines(self._prompt, prompts)
        if (rows < 0).any():
            what = f"no prompt {prompts[int(np.argmin(rows))][:12]}"
            raise InputError(what, where=self.folder, remedy="make the cache again")
        tensors = self._prompts.gather(rows, pad=_VARIABLE)
        return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _lines(
    items: Items, shas: Sequence[str], bucket: str = "", flips: Sequence[bool] | None = None
) -> NDArray[np.int64]:
    """[n] the lines of images (content hash, their bucket, whether mirrored) or of prompts; -1: it is not there."""
    found, data, crops = np.full(len(shas), -1, np.int64), items.hashes.data, items.crops
    for place, sha in enumerate(shas):
        wanted = bytes.fromhex(sha) if re.fullmatch("([0-9a-f]{2})*", sha) else b""
        row = bisect.bisect_left(range(len(data)), wanted, key=lambda line: data[line].tobytes())
        while row < len(data) and data[row].tobytes() == wanted:
            flip = flips is not None and flips[place]
            if crops is None or (crops.buckets[crops.bucket[row]] == bucket and crops.flip[row] == flip):
                found[place] = row
                break
            row += 1
    return found
