"""One process at work on a latent cache: what it has seen, what waits for the networks, what goes into the next shard.

Shapes: N images, C channels, h w latent size, L tokens.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from finepref.core.errors import ConfigError, InputError, nearest
from finepref.core.images import ImageSize, Unreadable, square
from finepref.core.provenance import sha256_bytes
from finepref.data.latents import MASK
from finepref.data.shards import STORAGE, read_index, shard_names, write_shard
from finepref.formats.preferences import Preference, Quarantined
from finepref.models.protocol import Encoder

IMAGES = pa.schema(
    [
        ("image_sha256", pa.string()),
        ("flip", pa.bool_()),
        ("row", pa.int64()),
        ("original_height", pa.int32()),
        ("original_width", pa.int32()),
        ("crop_top", pa.int32()),
        ("crop_left", pa.int32()),
    ]
)
PROMPTS = pa.schema([("prompt_sha256", pa.string()), ("row", pa.int64()), ("tokens", pa.int32())])


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """flips: mirror images too. posterior: `mode` (mean alone) or `mean_std`. dtype: of the shards.

    shard_size: images a shard. batch_size: images (or prompts) encoded at once. workers: threads that decode.
    """

    flips: bool = False
    posterior: Literal["mean_std", "mode"] = "mean_std"
    dtype: str = "float16"
    shard_size: int = 4096
    batch_size: int = 32
    workers: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("posterior", ("mean_std", "mode")), ("dtype", tuple(STORAGE))):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"unknown {name} {value!r}", where=f"cache.{name}", remedy=nearest(value, allowed))
        for name in ("shard_size", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", where=f"cache.{name}", remedy="use 1 or more")


class Row(NamedTuple):
    """A pair of the data with content hashes in place of prompt and images; label as in `Preference`."""

    row: int
    pair_id: str
    prompt_sha256: str
    image_0: str
    image_1: str
    label: float


def owner(sha: str, world: int) -> int:
    """The process that encodes a content hash."""
    return int(sha[:8], 16) % world


class Builder:
    """State of one process while it makes a cache. files: whether any image is not held by its table."""

    def __init__(self, folder: Path, encoder: Encoder, settings: CacheSettings, *, rank: int, world: int) -> None:
        self.folder, self.encoder, self.settings = folder, encoder, settings
        self.rank, self.world, self.rows = rank, world, 0
        self.dtype = STORAGE[settings.dtype]
        self.images = set(read_index(folder / "images", IMAGES)["image_sha256"].to_pylist())
        self.prompts = set(read_index(folder / "prompts", PROMPTS)["prompt_sha256"].to_pylist())
        self.pairs: list[Row] = []
        self.files = False
        self.bad_pairs: list[Quarantined] = []
        self.bad_images: dict[str, str] = {}
        self.decoding: deque[tuple[str, Future[Any]]] = deque()
        self.waiting: list[tuple[str, NDArray[np.uint8], ImageSize]] = []
        self.waiting_prompts: list[tuple[str, str]] = []
        self.image_shard = Gathering(folder / "images", f"r{rank}", IMAGES)
        self.prompt_shard = Gathering(folder / "prompts", f"r{rank}", PROMPTS)
        self.encoded_images = self.encoded_prompts = 0

    def add(self, preference: Preference, pool: ThreadPoolExecutor, *, row: int) -> None:
        """Take in one pair: hash its images, queue what this process must encode."""
        self.rows += 1
        self.files |= any(image.data is None for image in (preference.image_0, preference.image_1))
        try:
            contents = preference.image_0.read(), preference.image_1.read()
        except InputError as error:
            self.bad_pairs.append(Quarantined(row=row, pair_id=preference.pair_id, reason=str(error)))
            return
        shas = tuple(sha256_bytes(content) for content in contents)
        prompt = self.add_prompt(preference.prompt)
        self.pairs.append(Row(row, preference.pair_id, prompt, shas[0], shas[1], preference.label))
        for sha, content in zip(shas, contents, strict=True):
            if sha not in self.images and owner(sha, self.world) == self.rank:
                self.images.add(sha)
                self.decoding.append((sha, pool.submit(square, content, self.encoder.resolution)))
        while len(self.decoding) > 2 * self.settings.batch_size:
            self._take_decoded()

    def add_prompt(self, prompt: str) -> str:
        """Queue a prompt if it is new and this process' own; its hash."""
        sha = sha256_bytes(prompt.encode())
        if sha not in self.prompts and owner(sha, self.world) == self.rank:
            self.prompts.add(sha)
            self.waiting_prompts.append((sha, prompt))
            if len(self.waiting_prompts) == self.settings.batch_size:
                self._encode_prompts()
        return sha

    def finish(self) -> None:
        """Encode and write what is left."""
        while self.decoding:
            self._take_decoded()
        self._encode_images()
        self._encode_prompts()
        self.image_shard.write()
        self.prompt_shard.write()

    def _take_decoded(self) -> None:
        sha, future = self.decoding.popleft()
        try:
            pixels, size = future.result()
        except Unreadable as error:
            self.bad_images[sha] = str(error)
            return
        self.waiting.append((sha, pixels, size))
        if len(self.waiting) >= min(self.settings.batch_size, self.settings.shard_size - self.image_shard.items):
            self._encode_images()

    def _encode_images(self) -> None:
        if not self.waiting:
            return
        batch, self.waiting = self.waiting, []
        pixels = torch.from_numpy(np.stack([pixels for _, pixels, _ in batch]))
        versions = [pixels, pixels.flip(-1)] if self.settings.flips else [pixels]
        moments = [self._moments(version) for version in versions]
        good = torch.stack([m.flatten(1).isfinite().all(1) for pair in moments for m in pair.values()]).all(0).tolist()
        for flip, tensors in enumerate(moments):
            rows = [
                {
                    "image_sha256": sha,
                    "flip": bool(flip),
                    **asdict(size.mirrored(self.encoder.resolution) if flip else size),
                }
                for (sha, _, size), fine in zip(batch, good, strict=True)
                if fine
            ]
            keep = torch.tensor(good)
            self.image_shard.add({k: v[keep] for k, v in tensors.items()}, rows, items=0 if flip else len(rows))
        for (sha, _, _), fine in zip(batch, good, strict=True):
            if not fine:
                self.bad_images[sha] = f"its latent is not finite in {self.settings.dtype}"
        self.encoded_images += len(batch)
        if self.image_shard.items >= self.settings.shard_size:
            self.image_shard.write()

    def _moments(self, pixels: Tensor) -> dict[str, Tensor]:
        mean, std = self.encoder.encode_images(pixels)
        kept = {"mean": mean} if self.settings.posterior == "mode" else {"mean": mean, "std": std}
        return {name: value.to(self.dtype).cpu() for name, value in kept.items()}

    def _encode_prompts(self) -> None:
        if not self.waiting_prompts:
            return
        batch, self.waiting_prompts = self.waiting_prompts, []
        encoded = self.encoder.encode_prompts([prompt for _, prompt in batch])
        tensors = {k: v.to(self.dtype).cpu() if v.is_floating_point() else v.cpu() for k, v in encoded.items()}
        for name, value in tensors.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                remedy = "use cache.dtype float32 or bfloat16"
                raise InputError(f"{name} is not finite in {self.settings.dtype}", where="cache", remedy=remedy)
        tokens = _tokens(tensors)
        if MASK in tensors:
            longest = int(tokens.max())
            tensors = {k: v[:, :longest] if k in (MASK, "prompt_embeds") else v for k, v in tensors.items()}
        rows = [{"prompt_sha256": sha, "tokens": int(n)} for (sha, _), n in zip(batch, tokens, strict=True)]
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

    def __init__(self, folder: Path, prefix: str, schema: pa.Schema) -> None:
        self.folder, self.prefix, self.schema = folder, prefix, schema
        used = [int(name.split("-")[1]) for name in shard_names(folder) if name.split("-")[0] == prefix]
        self.number = max(used, default=-1) + 1
        self.tensors: dict[str, list[Tensor]] = {}
        self.rows: list[dict[str, Any]] = []
        self.items = 0

    def add(self, tensors: dict[str, Tensor], rows: list[dict[str, Any]], *, items: int) -> None:
        """Append rows; `items` counts images or prompts (a mirror is not one more image)."""
        for name, value in tensors.items():
            self.tensors.setdefault(name, []).append(value)
        self.rows += [{**row, "row": len(self.rows) + i} for i, row in enumerate(rows)]
        self.items += items

    def write(self) -> None:
        """Write the shard and start the next."""
        if not self.rows:
            return
        tensors = {name: torch.cat(values) for name, values in self.tensors.items()}
        write_shard(
            self.folder, f"{self.prefix}-{self.number:05d}", tensors, pa.Table.from_pylist(self.rows, self.schema)
        )
        self.number, self.tensors, self.rows, self.items = self.number + 1, {}, [], 0
