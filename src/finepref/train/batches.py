"""Which pair comes when, and what a draw brings to the device: latents, conditions, signal.

The seeded global order fixes the pairs of every optimiser step; processes and micro-batches take slices of it. Every
random number is a function of (seed, pair_id, visit). So resuming, accumulation and the number of processes change
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finepref.core import rng
from finepref.core.images import ImageSize
from finepref.core.tensors import ImageBatch, ListBatch, PairBatch, PairSignal
from finepref.data.latents import EMPTY_PROMPT, Latents
from finepref.models.denoiser import Denoiser
from finepref.train.data import ImageTable, PairTable

Batch = TypeVar("Batch", PairBatch, ImageBatch, ListBatch, covariant=True)


@dataclass(frozen=True, slots=True)
class Draw:
    """One row of the order: index into the table, and how often that row was drawn before."""

    index: int
    visit: int


class Shaped(Protocol):
    """A table of what is drawn."""

    @property
    def bucket(self) -> Sequence[str]:
        """Of every row, the shape of its images."""
        ...


class DrawnFrom(Protocol[Batch]):
    """Where micro-batches come from."""

    @property
    def table(self) -> Shaped:
        """Its rows."""
        ...

    def batch(self, drawn: Sequence[Draw], /) -> Batch:
        """What some draws of one bucket bring."""
        ...


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> npt.NDArray[np.int32]:
    return rng.numpy_generator(seed, "order", epoch).permutation(count).astype(np.int32)


def pair_order(seed: int, *, count: int, step: int, per_step: int) -> list[Draw]:
    """The draws of optimiser step `step` (from 0): every epoch is one seeded permutation of all `count` rows."""
    positions = range(step * per_step, (step + 1) * per_step)
    return [Draw(int(_permutation(seed, k // count, count)[k % count]), k // count) for k in positions]


def image_order(seed: int, *, desirable: np.ndarray, ratio: float, step: int, per_step: int) -> list[Draw]:
    """The draws of an unpaired step: with replacement, a desirable image with probability `ratio`.

    Args:
        desirable: [n] bool, the label of every image; both kinds must occur.
        ratio: share of desirable images among the draws, in [0, 1].
    References: Diffusion-KTO, weighted sampling of images (gamma = 0.8).
    """
    groups = np.flatnonzero(~desirable), np.flatnonzero(desirable)
    draws = []
    for k in range(step * per_step, (step + 1) * per_step):
        group = groups[int(rng.uniform(seed, "label", k) < ratio)]
        draws.append(Draw(int(group[int(rng.uniform(seed, "image", k) * len(group))]), k))
    return draws


def of_one_bucket(order: Sequence[Draw], positions: Iterable[int], table: Shaped, *, size: int) -> list[list[int]]:
    """At most `size` positions each, whose images have one shape: buckets as they first come, positions in order."""
    groups: dict[str, list[int]] = {}
    for place in positions:
        groups.setdefault(table.bucket[order[place].index], []).append(place)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


def micro_batches(
    source: DrawnFrom[Batch], order: Sequence[Draw], positions: Sequence[int], *, size: int
) -> Iterator[tuple[Sequence[int], Batch]]:
    """(positions, batch) of at most `size` draws of one bucket; the next batch is read while this one trains."""
    load, chunks = source.batch, of_one_bucket(order, positions, source.table, size=size)
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(load, [order[p] for p in chunk]) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks):
            batch = waiting.pop().result()
            waiting = [pool.submit(load, [order[p] for p in after]) for after in chunks[number + 1 : number + 2]]
            yield chunk, batch


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Drawing:
    """What both sources share: the cache, the adapter that knows its conditions, and the random choices of a draw."""

    cache: Latents
    adapter: Denoiser
    prompt_dropout: float
    flip: bool
    seed: int

    def latents(
        self, images: Mapping[str, Sequence[str]], *, ids: Sequence[str], visits: Sequence[int], bucket: str
    ) -> tuple[list[Tensor], list[list[ImageSize]]]:
        """Latents [B,C,h,w] float32 and image sizes of every side (its word -> B images), on the device.

        A latent is a posterior sample where the cache keeps mean and std; flips are drawn for each side. bucket: of all
        these images.
        """
        flips: list[bool] | None = None
        if self.flip:
            flips = [bool(u < 0.5) for word in images for u in rng.uniforms(self.seed, f"flip-{word}", ids, visits)]
        every = [image for side in images.values() for image in side]
        mean, std, sizes = self.cache.latents(every, flips, bucket=bucket)
        count, found = len(ids), []
        for number, word in enumerate(images):
            rows = slice(number * count, (number + 1) * count)
            x = mean[rows]
            if std is not None:
                x = x + std[rows] * rng.normals(self.seed, f"posterior-{word}", ids, visits, mean.shape[1:])
            found.append(x.to(self.adapter.device, non_blocking=True))
        return found, [sizes[number * count : (number + 1) * count] for number in range(len(images))]

    def prompts(self, prompts: Sequence[str], *, ids: Sequence[str], visits: Sequence[int]) -> dict[str, Tensor]:
        """Prompt tensors [B,...]; a draw has the empty prompt with probability `prompt_dropout`."""
        dropped = rng.uniforms(self.seed, "prompt", ids, visits) < self.prompt_dropout
        return self.cache.prompts([EMPTY_PROMPT if drop else p for p, drop in zip(prompts, dropped, strict=True)])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PairSource:
    """Paired draws. guidance: whether a trajectory asks for the empty prompt too."""

    drawing: Drawing
    table: PairTable
    guidance: bool

    def order(self, *, step: int, per_step: int) -> list[Draw]:
        """The draws of an optimiser step."""
        return pair_order(self.drawing.seed, count=len(self.table.margin), step=step, per_step=per_step)

    def batch(self, drawn: Sequence[Draw]) -> PairBatch:
        """The pairs of some draws of one bucket."""
        table, drawing, condition = self.table, self.drawing, self.drawing.adapter.condition
        rows, visits = np.array([draw.index for draw in drawn]), [draw.visit for draw in drawn]
        ids, device = table.pair_id.at(rows), drawing.adapter.device
        sides = {"w": table.winner.at(rows), "l": table.loser.at(rows)}
        (x0_w, x0_l), (sizes_w, sizes_l) = drawing.latents(sides, ids=ids, visits=visits, bucket=table.bucket[rows[0]])
        prompts = drawing.prompts(table.prompt.at(rows), ids=ids, visits=visits)
        empty = drawing.cache.prompts([EMPTY_PROMPT] * len(rows)) if self.guidance else None
        return PairBatch(
            pair_id=tuple(ids),
            visit=tuple(visits),
            x0_w=x0_w,
            x0_l=x0_l,
            cond_w=condition(prompts, sizes_w),
            cond_l=condition(prompts, sizes_l),
            signal=PairSignal(
                margin=torch.from_numpy(table.margin[rows]).to(device, non_blocking=True),
                weight=torch.from_numpy(table.weight[rows]).to(device, non_blocking=True),
            ),
            empty_w=None if empty is None else condition(empty, sizes_w),
            empty_l=None if empty is None else condition(empty, sizes_l),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImageSource:
    """Unpaired draws (KTO). ratio: share of desirable images among the draws."""

    drawing: Drawing
    table: ImageTable
    ratio: float

    def order(self, *, step: int, per_step: int) -> list[Draw]:
        """The draws of an optimiser step."""
        desirable = self.table.desirable
        return image_order(self.drawing.seed, desirable=desirable, ratio=self.ratio, step=step, per_step=per_step)

    def batch(self, drawn: Sequence[Draw]) -> ImageBatch:
        """The images of some draws of one bucket."""
        table, drawing = self.table, self.drawing
        rows, visits = [draw.index for draw in drawn], [draw.visit for draw in drawn]
        ids = [table.image_id[i] for i in rows]
        images = {"i": [table.image[i] for i in rows]}
        (x0,), (sizes,) = drawing.latents(images, ids=ids, visits=visits, bucket=table.bucket[rows[0]])
        prompts = drawing.prompts([table.prompt[i] for i in rows], ids=ids, visits=visits)
        label = torch.from_numpy(table.desirable[rows].astype(np.float32))
        return ImageBatch(
            image_id=tuple(ids),
            visit=tuple(visits),
            x0=x0,
            cond=drawing.adapter.condition(prompts, sizes),
            label=label.to(drawing.adapter.device, non_blocking=True),
        )
