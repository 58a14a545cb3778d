"""One process at work on a latent cache: what is encoded, what waits for the networks, what goes into the next shard.

Shapes: N images, C channels, h w latent size, L tokens.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from finepref.core.buckets import Bucket, bucket_of
from finepref.core.errors import InputError
from finepref.core.images import ImageSize, Unreadable, fitted
from finepref.data.hashed import HashedStretch
from finepref.data.latents import MASK
from finepref.data.shards import STORAGE, read_index, shard_names, write_shard
from finepref.formats.cache import IMAGES, KINDS, PROMPTS, SHARD, Kind, image_row, prompt_row
from finepref.models.encoder import LatentEncoder

HELD = 4  # batches of decoded images of all buckets that may wait for others of theirs


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """flips: mirror images too. posterior: `mode` (mean alone) or `mean_std`. dtype: of the shards.

    shard_size: images that wait for a shard, and at most those of one. batch_size: images (or prompts) encoded at once.
    """

    flips: bool = False
    posterior: Literal["mean_std", "mode"] = "mean_std"
    dtype: str = "float16"
    shard_size: int = 4096
    batch_size: int = 32


def shard_index(folder: Path, kind: Kind, *, square: Bucket) -> pa.Table:
    """The indexes of all shards of a kind that are whole. square: the bucket of images that older versions cached."""
    return read_index(folder / kind.name, kind.schema, before=kind.before(square))


@dataclass(slots=True)
class Builder:
    """One process that makes a cache in a folder. held: by kind, what is in its shards as far as they were read."""

    folder: Path
    encoder: LatentEncoder
    settings: CacheSettings
    held: dict[str, set[tuple[str, ...]]] = field(default_factory=lambda: {kind.name: set() for kind in KINDS})
    _read: dict[str, set[str]] = field(default_factory=lambda: {kind.name: set() for kind in KINDS})

    def news(self) -> None:
        """Read the shards that were written since, by this process or another."""
        square = self.encoder.buckets[0]
        for kind in KINDS:
            known = self._read[kind.name]
            found = read_index(self.folder / kind.name, kind.schema, before=kind.before(square), known=known)
            self.held[kind.name] |= kind.held(found)
            known |= {*found[SHARD].unique().to_pylist()}

    def add_images(self, name: str, read: HashedStretch) -> int:
        """Encode the images of a stretch that are in no shard yet, into shards of this name; how many they were."""
        images = ImageBatches(self, name, read)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for _, bucket, found in read.read():
                for sha, (_, content) in found.items():
                    if (sha, bucket) not in self.held[IMAGES.name]:
                        self.held[IMAGES.name].add((sha, bucket))
                        images.add(sha, pool.submit(fitted, content, bucket_of(bucket)))
        images.finish()
        return images.encoded

    def add_prompts(self, name: str, prompts: Sequence[tuple[str, str]]) -> int:
        """Encode prompts (content hash, text) that are in no shard yet, into shards of this name; how many."""
        shard = Gathering(self.folder, PROMPTS, name)
        new = [(sha, text) for sha, text in prompts if (sha,) not in self.held[PROMPTS.name]]
        for start in range(0, len(new), self.settings.batch_size):
            self._encode_prompts(new[start : start + self.settings.batch_size], shard)
        shard.write()
        return len(new)

    def _encode_prompts(self, batch: Sequence[tuple[str, str]], shard: Gathering) -> None:
        dtype = STORAGE[self.settings.dtype]
        began = time.perf_counter()
        encoded = self.encoder.encode_prompts([prompt for _, prompt in batch])
        tensors = {k: v.to(dtype).cpu() if v.is_floating_point() else v.cpu() for k, v in encoded.items()}
        shard.seconds += time.perf_counter() - began
        for name, value in tensors.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                remedy = "use cache.dtype float32 or bfloat16"
                raise InputError(f"{name} is not finite in {self.settings.dtype}", where="cache", remedy=remedy)
        tokens = _tokens(tensors)
        if MASK in tensors:
            longest = int(tokens.max())
            tensors = {k: v[:, :longest] if k in (MASK, "prompt_embeds") else v for k, v in tensors.items()}
        rows = [prompt_row(sha, int(n)) for (sha, _), n in zip(batch, tokens, strict=True)]
        shard.add(tensors, rows, items=len(rows))
        if MASK in tensors or shard.items >= self.settings.shard_size:
            shard.write()


class ImageBatches:
    """The images of a stretch on their way to the VAE, in batches of one bucket, and into shards."""

    def __init__(self, builder: Builder, name: str, read: HashedStretch) -> None:
        self.encoder, self.settings, self.read = builder.encoder, builder.settings, read
        self.dtype = STORAGE[self.settings.dtype]
        self.decoding: deque[tuple[str, Future[Any]]] = deque()
        self.waiting: dict[str, list[tuple[str, NDArray[np.uint8], ImageSize]]] = {}
        square = self.encoder.buckets[0]
        self.shards = {
            str(bucket): Gathering(builder.folder, IMAGES, name if bucket == square else f"{name}x{bucket}")
            for bucket in self.encoder.buckets
        }
        self.encoded = 0

    def add(self, sha: str, decoding: Future[Any]) -> None:
        """Take an image that is being decoded."""
        self.decoding.append((sha, decoding))
        while len(self.decoding) > 2 * self.settings.batch_size:
            self._take_decoded()

    def finish(self) -> None:
        """Encode and write what is left."""
        while self.decoding:
            self._take_decoded()
        for bucket in [*self.waiting]:
            self._encode(bucket)
        for shard in self.shards.values():
            shard.write()

    def _take_decoded(self) -> None:
        sha, future = self.decoding.popleft()
        try:
            pixels, size = future.result()
        except Unreadable as error:
            self._refuse(sha, str(error))
            return
        bucket, most = str(size.bucket), self.settings.batch_size
        waiting = self.waiting.setdefault(bucket, [])
        waiting.append((sha, pixels, size))
        if len(waiting) >= min(most, self.settings.shard_size - self.shards[bucket].items):
            self._encode(bucket)
        elif sum(map(len, self.waiting.values())) > HELD * most:
            self._encode(max(self.waiting, key=lambda each: len(self.waiting[each])))

    def _refuse(self, sha: str, reason: str) -> None:
        self.read.images[sha] = (reason, "", "")

    def _encode(self, bucket: str) -> None:
        batch, shard = self.waiting.pop(bucket, []), self.shards[bucket]
        if not batch:
            return
        pixels = torch.from_numpy(np.stack([pixels for _, pixels, _ in batch]))
        versions = [pixels, pixels.flip(-1)] if self.settings.flips else [pixels]
        began = time.perf_counter()
        moments = [self._moments(version) for version in versions]
        shard.seconds += time.perf_counter() - began
        good = torch.stack([m.flatten(1).isfinite().all(1) for pair in moments for m in pair.values()]).all(0).tolist()
        for flip, tensors in enumerate(moments):
            rows = [
                image_row(sha, size.mirrored() if flip else size, flip=bool(flip))
                for (sha, _, size), fine in zip(batch, good, strict=True)
                if fine
            ]
            keep = torch.tensor(good)
            shard.add({k: v[keep] for k, v in tensors.items()}, rows, items=0 if flip else len(rows))
        for (sha, _, _), fine in zip(batch, good, strict=True):
            if not fine:
                self._refuse(sha, f"its latent is not finite in {self.settings.dtype}")
        self.encoded += len(batch)
        if sum(each.items for each in self.shards.values()) >= self.settings.shard_size:
            max(self.shards.values(), key=lambda each: each.items).write()

    def _moments(self, pixels: Tensor) -> dict[str, Tensor]:
        mean, std = self.encoder.encode_images(pixels)
        kept = {"mean": mean} if self.settings.posterior == "mode" else {"mean": mean, "std": std}
        return {name: value.to(self.dtype).cpu() for name, value in kept.items()}


def _tokens(tensors: dict[str, Tensor]) -> Tensor:
    if MASK in tensors:
        return tensors[MASK].long().sum(1)
    embeds = tensors["prompt_embeds"]
    return torch.full((embeds.shape[0],), embeds.shape[1])


class Gathering:
    """Rows gathered for the next shard of one kind."""

    def __init__(self, folder: Path, kind: Kind, prefix: str) -> None:
        self.folder, self.prefix, self.kind = folder / kind.name, prefix, kind
        used = [int(name.split("-")[1]) for name in shard_names(self.folder) if name.split("-")[0] == prefix]
        self.number = max(used, default=-1) + 1
        self.tensors: dict[str, list[Tensor]] = {}
        self.rows: list[dict[str, Any]] = []
        self.items = 0
        self.seconds = 0.0

    def add(self, tensors: dict[str, Tensor], rows: list[dict[str, Any]], *, items: int) -> None:
        """Append rows; `items` counts images or prompts (a mirror is not one more image)."""
        for name, value in tensors.items():
            self.tensors.setdefault(name, []).append(value)
        self.rows += rows
        self.items += items

    def write(self) -> None:
        """Write the shard and start the next."""
        if not self.rows:
            return
        tensors = {name: torch.cat(values) for name, values in self.tensors.items()}
        index = self.kind.table(self.rows, seconds=self.seconds)
        write_shard(self.folder, f"{self.prefix}-{self.number:05d}", tensors, index)
        self.number, self.tensors, self.rows, self.items, self.seconds = self.number + 1, {}, [], 0, 0.0
