"""Where a pair is looked at when it is not plain forward noise: stratified levels, inversions, shared trajectories.

Shapes: B pairs, K levels that share a trajectory, C channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from finepref.core import rng
from finepref.core.tensors import PairBatch, PairSignal, Placed
from finepref.diffusion.forward import noised
from finepref.diffusion.inversion import Denoise, guided
from finepref.diffusion.path import Path
from finepref.models.denoiser import Denoiser
from finepref.objectives.core import wide
from finepref.train.levels import windowed
from finepref.train.method import Method
from finepref.train.step import Calls

if TYPE_CHECKING:
    from finepref.train.state import Run

BLOCK = 64


def draw_levels(
    ids: Sequence[str],
    visits: Sequence[int],
    *,
    path: Path,
    method: Method,
    seed: int,
    strata: tuple[int, int, Sequence[int]] | None = None,
) -> Tensor:
    """Levels [B], or [B,K] in rising order where K share a trajectory, on the CPU, where an inversion plans its calls.

    Of K levels the k-th is uniform in the k-th of K equal parts of the range, so that one taken at random is uniform.

    Args:
        strata: (optimiser step, its draws, positions of these draws in it) to stratify over the step; None does not.
    """
    columns = []
    for part in range(method.share):
        u = rng.uniforms(seed, "t" if method.share == 1 else f"t-{part}", ids, visits)
        if strata is not None:
            u = stratify(u, seed=seed, step=strata[0], per_step=strata[1], positions=strata[2])
        share = torch.from_numpy((part + u) / method.share)
        if method.levels is not None:
            share = windowed(share, method.levels, path)
        columns.append(path.draw_t(share, lowest=method.lowest_t))
    return columns[0] if method.share == 1 else torch.stack(columns, dim=1)


def stratify(u: np.ndarray, *, seed: int, step: int, per_step: int, positions: Sequence[int]) -> np.ndarray:
    """Stratify uniforms [B] over an optimiser step: position p gets (stratum(p) + u) / per_step.

    Every block of 64 positions has 64 neighbouring strata, blocks shuffled, and shuffled inside: processes that take
    every n-th position get nearly equal levels, and so, where they invert, nearly equal work.
    """
    draw = rng.numpy_generator(seed, "strata", step)
    blocks = [draw.permutation(np.arange(start, min(start + BLOCK, per_step))) for start in range(0, per_step, BLOCK)]
    shuffled = np.concatenate([blocks[k] for k in draw.permutation(len(blocks))])
    return (shuffled[np.asarray(positions, dtype=np.int64)] + u) / per_step


def place(run: Run, batch: PairBatch, t: Tensor, *, calls: Calls) -> Placed:
    """Put pairs on the trajectory of the run, at levels t [B] or [B,K] (CPU), with the noise of their draws.

    Where a cache holds the reference's inversion, that is taken. Where the trajectory calls a network it does so
    without gradient, in one ragged batch; counts images under `inversion`.
    """
    method, path, device = run.method, run.adapter.path, batch.x0_w.device
    seed, shape, count = run.config.train.seed, batch.x0_w.shape[1:], len(batch.pair_id)
    if run.trajectories is not None:
        noise_w, noise_l = (
            tau.flatten(0, 1).to(device, non_blocking=True) for tau in run.trajectories.read(batch.pair_id, batch.visit)
        )
        x0_w, x0_l = (x0.repeat_interleave(method.share, dim=0) for x0 in (batch.x0_w, batch.x0_l))
        return noised(x0_w, x0_l, t.to(device, non_blocking=True).flatten(), noise_w, noise_l, path=path)
    noise: Tensor | None = None
    denoise: Denoise | None = None
    if method.trajectory.uses_network:
        denoise = _denoiser(batch, adapter=run.adapter, method=method, calls=calls)
    else:
        noise = rng.normals(seed, "noise", batch.pair_id, batch.visit, shape).to(device, non_blocking=True)
        t = t.to(device, non_blocking=True)

    def draw(rows: Tensor, steps: Tensor) -> Tensor:
        words = [
            f"{batch.pair_id[r % count]}\x1f{'wl'[r // count]}\x1f{s}"
            for r, s in zip(rows.tolist(), steps.tolist(), strict=True)
        ]
        return rng.normals(seed, "inversion", words, [batch.visit[r % count] for r in rows.tolist()], shape)

    options = method.place_options
    whole = nullcontext() if run.adapter.drawn is None else run.adapter.drawn.nothing_dropped()
    with torch.no_grad(), whole:
        placed = method.trajectory.place(
            batch.x0_w, batch.x0_l, t, path=path, options=options, noise=noise, denoise=denoise, draw=draw
        )
    return replace(placed, t=placed.t.to(device, non_blocking=True))


def cut(batch: PairBatch, placed: Placed, *, size: int, share: int) -> Iterator[tuple[PairBatch, Placed]]:
    """Micro-batches of `size` rows of a placed batch, in which every pair stands `share` times, with their pairs."""
    names = ("xt_w", "xt_l", "t", "target_w", "target_l")
    for start in range(0, len(placed.t), size):
        rows = slice(start, start + size)
        pairs = [row // share for row in range(len(placed.t))[rows]]
        index = rows if share == 1 else torch.tensor(pairs).to(batch.x0_w.device, non_blocking=True)
        micro = PairBatch(
            pair_id=tuple(batch.pair_id[pair] for pair in pairs),
            visit=tuple(batch.visit[pair] for pair in pairs),
            x0_w=batch.x0_w[index],
            x0_l=batch.x0_l[index],
            cond_w={name: value[index] for name, value in batch.cond_w.items()},
            cond_l={name: value[index] for name, value in batch.cond_l.items()},
            signal=PairSignal(margin=batch.signal.margin[index], weight=batch.signal.weight[index]),
        )
        yield micro, Placed(**{name: getattr(placed, name)[rows] for name in names})


def _denoiser(batch: PairBatch, *, adapter: Denoiser, method: Method, calls: Calls) -> Denoise:
    """The network that inverts, as a function (x, t, rows) of rows of cat(winners, losers), with guidance if asked."""
    assert method.inversion is not None
    predict = getattr(adapter, method.inversion.network)

    def of(cond_w: Mapping[str, Tensor], cond_l: Mapping[str, Tensor]) -> Denoise:
        cond = {name: torch.cat([cond_w[name], cond_l[name]]) for name in cond_w}

        def denoise(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            calls["inversion"] += x.shape[0]
            index = rows.to(x.device, non_blocking=True)
            return wide(predict(x, t, {name: value[index] for name, value in cond.items()}))

        return denoise

    found, scale = of(batch.cond_w, batch.cond_l), method.inversion.cfg
    if scale == 1:
        return found
    assert batch.empty_w is not None
    assert batch.empty_l is not None
    return guided(found, of(batch.empty_w, batch.empty_l), scale=scale)
