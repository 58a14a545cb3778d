"""From draws to batches: cached latents and embeddings, posterior samples, flips and prompt dropout, on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finepref.core.batches import ImageBatch, PairBatch, PairSignal
from finepref.core.images import ImageSize
from finepref.data.latents import EMPTY_PROMPT, Latents
from finepref.models.protocol import Adapter
from finepref.train.draws import Draw, image_order, normals, pair_order, uniforms
from finepref.train.reference import ReferenceCache
from finepref.train.table import ImageTable, PairTable
from finepref.train.trajectories import TrajectoryCache


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Drawing:
    """What both sources share: the cache, the adapter that knows its conditions, and the random choices of a draw."""

    cache: Latents
    adapter: Adapter
    prompt_dropout: float
    flip: bool

    def latents(
        self, images: Sequence[str], word: str, *, ids: Sequence[str], visits: Sequence[int], seed: int
    ) -> tuple[Tensor, list[ImageSize]]:
        """Latents [B,C,h,w] float32 (a posterior sample where the cache keeps mean and std) and image sizes."""
        flips: Sequence[bool] | None = None
        if self.flip:
            flips = (uniforms(seed, f"flip-{word}", ids, visits) < 0.5).tolist()
        mean, std, sizes = self.cache.latents(images, flips)
        if std is None:
            return mean, sizes
        return mean + std * normals(seed, f"posterior-{word}", ids, visits, mean.shape[1:]), sizes

    def prompts(
        self, prompts: Sequence[str], *, ids: Sequence[str], visits: Sequence[int], seed: int
    ) -> dict[str, Tensor]:
        """Prompt tensors [B,...]; a draw has the empty prompt with probability `prompt_dropout`."""
        dropped = uniforms(seed, "prompt", ids, visits) < self.prompt_dropout
        names = [EMPTY_PROMPT if drop else p for p, drop in zip(prompts, dropped, strict=True)]
        return self.cache.prompts(names)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PairSource:
    """Paired draws."""

    drawing: Drawing
    table: PairTable
    guidance: bool
    reference: ReferenceCache | None = None
    trajectories: TrajectoryCache | None = None

    def order(self, seed: int, *, step: int, per_step: int) -> list[Draw]:
        """The draws of an optimiser step."""
        return pair_order(seed, count=len(self.table.pair_id), step=step, per_step=per_step)

    def id_of(self, index: int) -> str:
        """The pair id of a row."""
        return self.table.pair_id[index]

    def batch(self, drawn: Sequence[Draw], *, seed: int, device: torch.device) -> PairBatch:
        """The pairs of some draws."""
        table, drawing = self.table, self.drawing
        rows = [draw.index for draw in drawn]
        ids, visits = [table.pair_id[i] for i in rows], [draw.visit for draw in drawn]
        x0_w, sizes_w = drawing.latents([table.winner[i] for i in rows], "w", ids=ids, visits=visits, seed=seed)
        x0_l, sizes_l = drawing.latents([table.loser[i] for i in rows], "l", ids=ids, visits=visits, seed=seed)
        prompts = drawing.prompts([table.prompt[i] for i in rows], ids=ids, visits=visits, seed=seed)
        condition = drawing.adapter.condition
        empty_w: Mapping[str, Tensor] | None = None
        empty_l: Mapping[str, Tensor] | None = None
        if self.guidance:
            empty = drawing.cache.prompts([EMPTY_PROMPT] * len(rows))
            empty_w, empty_l = condition(empty, sizes_w), condition(empty, sizes_l)
        return PairBatch(
            pair_id=tuple(ids),
            visit=tuple(visits),
            x0_w=x0_w.to(device, non_blocking=True),
            x0_l=x0_l.to(device, non_blocking=True),
            cond_w=condition(prompts, sizes_w),
            cond_l=condition(prompts, sizes_l),
            signal=PairSignal(
                margin=torch.from_numpy(table.margin[rows]).to(device, non_blocking=True),
                weight=torch.from_numpy(table.weight[rows]).to(device, non_blocking=True),
            ),
            empty_w=empty_w,
            empty_l=empty_l,
        )

    def reference_errors(self, batch: PairBatch, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Reference errors (winner, loser) of a batch from the reference cache; None without one."""
        if self.reference is None:
            return None
        found = self.reference.errors(batch.pair_id, batch.visit).to(device, non_blocking=True)
        return found[:, 0], found[:, 1]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImageSource:
    """Unpaired draws (KTO)."""

    drawing: Drawing
    table: ImageTable
    ratio: float

    def order(self, seed: int, *, step: int, per_step: int) -> list[Draw]:
        """The draws of an optimiser step."""
        return image_order(seed, desirable=self.table.desirable, ratio=self.ratio, step=step, per_step=per_step)

    def id_of(self, index: int) -> str:
        """The image id of a row."""
        return self.table.image_id[index]

    def batch(self, drawn: Sequence[Draw], *, seed: int, device: torch.device) -> ImageBatch:
        """The images of some draws."""
        table, drawing = self.table, self.drawing
        rows = [draw.index for draw in drawn]
        ids, visits = [table.image_id[i] for i in rows], [draw.visit for draw in drawn]
        x0, sizes = drawing.latents([table.image[i] for i in rows], "i", ids=ids, visits=visits, seed=seed)
        prompts = drawing.prompts([table.prompt[i] for i in rows], ids=ids, visits=visits, seed=seed)
        return ImageBatch(
            image_id=tuple(ids),
            visit=tuple(visits),
            x0=x0.to(device, non_blocking=True),
            cond=drawing.adapter.condition(prompts, sizes),
            label=torch.from_numpy(table.desirable[rows].astype(np.float32)).to(device, non_blocking=True),
        )
