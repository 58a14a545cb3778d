"""Reading a latent cache: images and prompts by content hash, pairs by pair_id.

Shapes: N images, C channels, h w latent size, L tokens, D width.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.files import read_json, read_parquet
from finepref.core.images import ImageSize
from finepref.core.provenance import hash_config, sha256_bytes
from finepref.data.shards import ShardSet

MASK = "prompt_mask"
_VARIABLE = frozenset({"prompt_embeds", MASK})
EMPTY_PROMPT = sha256_bytes(b"")

# What cache.json must agree on with the run that reads it, and how an error names it.
SHAPING = {
    "fingerprint": "model",
    "resolution": "resolution",
    "crop": "crop rule",
    "dtype": "storage type",
    "flips": "flips",
    "posterior": "posterior",
}


@dataclass(frozen=True, slots=True)
class CachedPair:
    """Content hashes of a pair's prompt and images."""

    prompt: str
    image_0: str
    image_1: str


class Pairs(Mapping[str, CachedPair]):
    """pair_id -> CachedPair, in file order."""

    def __init__(self, ids: Sequence[str], prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> None:
        self._columns = prompts, first, second
        self._row = {pair: row for row, pair in enumerate(ids)}

    def __getitem__(self, pair_id: str) -> CachedPair:
        row = self._row[pair_id]
        prompts, first, second = self._columns
        return CachedPair(prompt=prompts[row], image_0=first[row], image_1=second[row])

    def sha256(self) -> str:
        """Hash of ids and content hashes, in order."""
        return sha256_bytes("\n".join(itertools.chain(self._row, *self._columns)).encode())

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


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
        self.meta: Mapping[str, Any] = read_json(self.folder / "cache.json")
        if not self.meta.get("complete"):
            raise InputError("the cache is not finished", where=self.folder, remedy="run `finepref cache` again")
        images = read_parquet(self.folder / "images.parquet")
        prompts = read_parquet(self.folder / "prompts.parquet")
        pairs = read_parquet(self.folder / "pairs.parquet")
        names = ("pair_id", "prompt_sha256", "image_0", "image_1")
        self.pairs = Pairs(*(_shared(pairs[name]) for name in names))
        held = "label" in pairs.column_names
        self.labels = pairs["label"].to_numpy().astype(np.float64) if held else None
        keys = zip(_shared(images["image_sha256"]), images["flip"].to_pylist(), strict=True)
        self._image = {key: row for row, key in enumerate(keys)}
        sizes = [images[n].to_numpy() for n in ("original_height", "original_width", "crop_top", "crop_left")]
        self._sizes = np.stack(sizes, axis=1)
        self._prompt = {sha: row for row, sha in enumerate(prompts["prompt_sha256"].to_pylist())}
        self._images = ShardSet(self.folder / "images", images["shard"].to_pylist(), images["row"].to_pylist())
        self._prompts = ShardSet(self.folder / "prompts", prompts["shard"].to_pylist(), prompts["row"].to_pylist())

    def require(self, **expected: Any) -> None:
        """Refuse a cache that was made for something else than `expected`, by keys of cache.json (fingerprint, ...).

        Raises:
            InputError: names what differs.
        """
        check_same(self.meta, expected, where=self.folder)

    def identity(self) -> str:
        """Hash of what it holds: everything that shaped its numbers, and its pairs."""
        return identity_of(self.meta, self.pairs)

    def calls(self) -> dict[str, int | None]:
        """Images and prompts that the encoders were called for to make it."""
        return {"vae": len(self._image), "text": len(self._prompt)}

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
            rows = np.array([self._image[key] for key in zip(images, mirrored, strict=True)], dtype=np.int64)
        except KeyError as error:
            sha, flip = error.args[0]
            what = f"no {'mirrored ' if flip else ''}image {sha[:12]}"
            raise InputError(what, where=self.folder, remedy="make the cache again, with flips if wanted") from None
        tensors = self._images.gather(rows)
        std = tensors.get("std")
        sizes = [ImageSize(*values) for values in self._sizes[rows].tolist()]
        return tensors["mean"].float(), None if std is None else std.float(), sizes

    def latent(self, image: str, flip: bool = False) -> tuple[Tensor, Tensor | None, ImageSize]:
        """(mean [C,h,w], std or None, size) of one image."""
        mean, std, sizes = self.latents([image], [flip])
        return mean[0], None if std is None else std[0], sizes[0]

    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """name -> [N,...] by prompt hash; embeddings in float32, zeros (and mask 0) beyond a prompt's tokens.

        Raises:
            InputError: a prompt that the cache does not hold.
        """
        try:
            rows = np.array([self._prompt[sha] for sha in prompts], dtype=np.int64)
        except KeyError as error:
            what = f"no prompt {str(error.args[0])[:12]}"
            raise InputError(what, where=self.folder, remedy="make the cache again") from None
        tensors = self._prompts.gather(rows, pad=_VARIABLE)
        return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}

    def prompt(self, prompt: str) -> dict[str, Tensor]:
        """name -> [...] of one prompt; `EMPTY_PROMPT` is always there."""
        return {name: value[0] for name, value in self.prompts([prompt]).items()}


def _shared(column: pa.ChunkedArray) -> list[str]:
    """A column of strings, sys.intern-ed: a hash that many pairs name is one object."""
    return [sys.intern(text) for text in column.to_pylist()]


def identity_of(meta: Mapping[str, Any], pairs: Pairs) -> str:
    """Hash of what decides a latent or an embedding, and of the pairs."""
    return hash_config({**{key: meta.get(key) for key in SHAPING}, "pairs": pairs.sha256()})


def check_same(made: Mapping[str, Any], expected: Mapping[str, Any], *, where: object) -> None:
    """Compare what shaped a cache with what is wanted.

    Raises:
        InputError: names the first thing that differs.
    """
    for key, value in expected.items():
        held = made.get(key)
        if isinstance(value, Mapping) and isinstance(held, Mapping):
            parts = [part for part in sorted({*value, *held}) if value.get(part) != held.get(part)]
            what = f"{parts[0]}" if parts else ""
        else:
            what = f"{SHAPING.get(key, key)} ({held}, now {value})" if held != value else ""
        if what:
            remedy = "use another folder, or make it again with `finepref cache --overwrite`"
            raise InputError(f"the cache was made for another {what}", where=where, remedy=remedy)
