"""One process at work on a latent cache: what it has seen, what waits for the networks, what goes into the next shard.

Shapes: N images, C channels, h w latent size, L tokens.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
from finepref.data.latents import MASK
from finepref.data.shards import STORAGE, read_index, shard_names, write_shard
from finepref.formats.cache import IMAGES, KINDS, PROMPTS, Kind, image_row, prompt_row
from finepref.formats.preferences import ImageRef
from finepref.formats.prompts import prompt_sha256
from finepref.models.encoder import LatentEncoder

HELD = 4  # batches of decoded images of all buckets that may wait for others of theirs


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """flips: mirror images too. posterior: `mode` (mean alone) or `mean_std`. dtype: of the shards.

    shard_size: images that wait for a shard, and at most those of one. batch_size: images (or prompts) encoded at once.
    offload: prompts are encoded after all images, for an encoder that holds one kind of network at a time.
    """

    flips: bool = False
    posterior: Literal["mean_std", "mode"] = "mean_std"
    dtype: str = "float16"
    shard_size: int = 4096
    batch_size: int = 32
    offload: bool = False


def shard_index(folder: Path, kind: Kind, *, square: Bucket) -> pa.Table:
    """The indexes of all shards of a kind that are whole. square: the bucket of images that older versions cached."""
    return read_index(folder / kind.name, kind.schema, before=kind.before(square))


def owner(sha: str, world: int) -> int:
    """The process that encodes a content hash."""
    return int(sha[:8], 16) % world


class Builder:
    """State of one process while it makes a cache."""

    def __init__(self, folder: Path, encoder: LatentEncoder, settings: CacheSettings, *, rank: int, world: int) -> None:
        self.folder, self.encoder, self.settings = folder, encoder, settings
        self.rank, self.world = rank, world
        self.dtype = STORAGE[settings.dtype]
        square = encoder.buckets[0]
        self.images, self.prompts = (kind.held(shard_index(folder, kind, square=square)) for kind in KINDS)
        self.bad_images: dict[str, str] = {}
        self.decoding: deque[tuple[str, Future[Any]]] = deque()
        self.waiting: dict[str, list[tuple[str, NDArray[np.uint8], ImageSize]]] = {}
        self.waiting_prompts: deque[tuple[str, str]] = deque()
        self.image_shards = {
            str(bucket): Gathering(folder, IMAGES, f"r{rank}" if bucket == square else f"r{rank}x{bucket}")
            for bucket in encoder.buckets
        }
        self.prompt_shard = Gathering(folder, PROMPTS, f"r{rank}")
        self.encoded_images = self.encoded_prompts = 0

    def add(
        self, prompt: str, bucket: str, images: Mapping[str, tuple[ImageRef, bytes]], pool: ThreadPoolExecutor
    ) -> None:
        """Queue what this process must encode of a pair. images: content hash -> image and its bytes."""
        self.add_prompt(prompt)
        for sha, (_, content) in images.items():
            if (sha, bucket) not in self.images and owner(sha, self.world) == self.rank:
                self.images.add((sha, bucket))
                self.decoding.append((sha, pool.submit(fitted, content, bucket_of(bucket))))
        while len(self.decoding) > 2 * self.settings.batch_size:
            self._take_decoded()

    def add_prompt(self, prompt: str) -> None:
        """Queue a prompt if it is new and this process' own."""
        sha = prompt_sha256(prompt)
        if (sha,) not in self.prompts and owner(sha, self.world) == self.rank:
            self.prompts.add((sha,))
            self.waiting_prompts.append((sha, prompt))
            if len(self.waiting_prompts) == self.settings.batch_size and not self.settings.offload:
                self._encode_prompts()

    def finish(self) -> None:
        """Encode and write what is left."""
        while self.decoding:
            self._take_decoded()
        for bucket in [*self.waiting]:
            self._encode_images(bucket)
        while self.waiting_prompts:
            self._encode_prompts()
        for shard in (*self.image_shards.values(), self.prompt_shard):
            shard.write()

    def _take_decoded(self) -> None:
        sha, future = self.decoding.popleft()
        try:
            pixels, size = future.result()
        except Unreadable as error:
            self.bad_images[sha] = str(error)
            return
        bucket, most = str(size.bucket), self.settings.batch_size
        waiting = self.waiting.setdefault(bucket, [])
        waiting.append((sha, pixels, size))
        if len(waiting) >= min(most, self.settings.shard_size - self.image_shards[bucket].items):
            self._encode_images(bucket)
        elif sum(map(len, self.waiting.values())) > HELD * most:
            self._encode_images(max(self.waiting, key=lambda each: len(self.waiting[each])))

    def _encode_images(self, bucket: str) -> None:
        batch, shard = self.waiting.pop(bucket, []), self.image_shards[bucket]
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
                self.bad_images[sha] = f"its latent is not finite in {self.settings.dtype}"
        self.encoded_images += len(batch)
        if sum(each.items for each in self.image_shards.values()) >= self.settings.shard_size:
            max(self.image_shards.values(), key=lambda each: each.items).write()

    def _moments(self, pixels: Tensor) -> dict[str, Tensor]:
        mean, std = self.encoder.encode_images(pixels)
        kept = {"mean": mean} if self.settings.posterior == "mode" else {"mean": mean, "std": std}
        return {name: value.to(self.dtype).cpu() for name, value in kept.items()}

    def _encode_prompts(self) -> None:
        size = min(self.settings.batch_size, len(self.waiting_prompts))
        batch = [self.waiting_prompts.popleft() for _ in range(size)]
        began = time.perf_counter()
        encoded = self.encoder.encode_prompts([prompt for _, prompt in batch])
        tensors = {k: v.to(self.dtype).cpu() if v.is_floating_point() else v.cpu() for k, v in encoded.items()}
        self.prompt_shard.seconds += time.perf_counter() - began
        for name, value in tensors.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                remedy = "use cache.dtype float32 or bfloat16"
                raise InputError(f"{name} is not finite in {self.settings.dtype}", where="cache", remedy=remedy)
        tokens = _tokens(tensors)
        if MASK in tensors:
            longest = int(tokens.max())
            tensors = {k: v[:, :longest] if k in (MASK, "prompt_embeds") else v for k, v in tensors.items()}
        rows = [prompt_row(sha, int(n)) for (sha, _), n in zip(batch, tokens, strict=True)]
        self.prompt_shard.add(tensors, rows, items=len(rows))
        self.encoded_prompts += len(batch)
        if MASK in tensors or self.prompt_shard.items >= self.settings.shard_size:
            self.prompt_shard.write()


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
