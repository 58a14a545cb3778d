"""Reading a latent cache: images and prompts by content hash, pairs by pair_id.

Shapes: N images, C channels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.images import ImageSize
from finepref.core.provenance import sha256_bytes
from finepref.data.shards import ShardSet
from finepref.formats.cache import IMAGES, KINDS, Pairs, Shaping, read_cache, read_items, read_pairs

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
        self, images: Sequence[str], flips: Sequence[bool] | None = None
    ) -> tuple[Tensor, Tensor | None, list[ImageSize]]:
        """(mean [N,C,h,w], std [N,C,h,w] or None, sizes), float32, by content hash."""
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
        self.pairs, self.labels = read_pairs(self.folder)
        held = {kind.name: read_items(self.folder, kind) for kind in KINDS}
        self._image, self._prompt = held.values()
        latents = ["mean", *(["std"] if self.record.shaping.posterior == "mean_std" else [])]
        self._images, self._prompts = (
            ShardSet(self.folder / kind.name, items.shard, items.place, needs=latents if kind is IMAGES else [])
            for kind, items in zip(KINDS, held.values(), strict=True)
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
        return self.record.shaping.identity(self.pairs)

    def calls(self) -> dict[str, int | None]:
        """Images and prompts that the encoders were called for to make it."""
        return {"vae": len(self._image.row), "text": len(self._prompt.row)}

    def device_seconds(self) -> float | None:
        """What encoding its images and prompts took, on all processes; None where an older version made it."""
        return self.record.device_seconds

    def latents(
        self, images: Sequence[str], flips: Sequence[bool] | None = None
    ) -> tuple[Tensor, Tensor | None, list[ImageSize]]:
        """(mean [N,C,h,w], std [N,C,h,w] or None for a `mode` cache, sizes), float32, by content hash.

        Args:
            flips: [N], take the mirrored image; None for none. The mirror's crop is given in its own coordinates.

        Raises:
            InputError: an image (or its mirror) that the cache does not hold.
        """
        mirrored = [False] * len(images) if flips is None else [bool(f) for f in flips]
        try:
            rows = np.array([self._image.row[key] for key in zip(images, mirrored, strict=True)], dtype=np.int64)
        except KeyError as error:
            sha, flip = error.args[0]
            what = f"no {'mirrored ' if flip else ''}image {sha[:12]}"
            raise InputError(what, where=self.folder, remedy="make the cache again, with flips if wanted") from None
        tensors = self._images.gather(rows)
        std = tensors.get("std")
        sizes = [ImageSize(*values) for values in self._image.sizes[rows].tolist()]
        return tensors["mean"].float(), None if std is None else std.float(), sizes

    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """name -> [N,...] by prompt hash; embeddings in float32, zeros (and mask 0) beyond a prompt's tokens.

        Raises:
            InputError: a prompt that the cache does not hold.
        """
        try:
            rows = np.array([self._prompt.row[sha] for sha in prompts], dtype=np.int64)
        except KeyError as error:
            what = f"no prompt {str(error.args[0])[:12]}"
            raise InputError(what, where=self.folder, remedy="make the cache again") from None
        tensors = self._prompts.gather(rows, pad=_VARIABLE)
        return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
