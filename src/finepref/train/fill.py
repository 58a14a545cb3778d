"""Fill the caches of what the frozen reference does with every draw of a run's plan, without training.

A reference cache holds its two errors, a trajectory cache where it inverted the pair to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finepref.core.errors import ConfigError
from finepref.core.progress import progress
from finepref.data.latents import Latents
from finepref.models.protocol import Adapter
from finepref.train.config import RunConfig
from finepref.train.draws import Draw
from finepref.train.loop import Run, draw_times, place_batch
from finepref.train.method import draws_per_step
from finepref.train.prepare import Prepared, prepare
from finepref.train.processes import World
from finepref.train.reference import held_values, save_reference
from finepref.train.run import make_run
from finepref.train.source import PairSource
from finepref.train.step import both, reference_errors
from finepref.train.trajectories import SHARD, clear, held_shards, missing_shards, save_record, save_shard

SAVE_EVERY = 300.0  # seconds between two saves of a cache that is being filled


@dataclass(frozen=True, slots=True)
class FillSummary:
    """What filling cost: draws of the plan, draws and reference images computed now, seconds of all processes."""

    folder: str
    draws: int
    computed: int
    images: int
    device_seconds: float


def fill(
    config: RunConfig,
    *,
    world: World,
    open_cache: Callable[[], Latents],
    load_adapter: Callable[[bool], Adapter],
    about_base: Mapping[str, Any],
    overwrite: bool,
) -> FillSummary:
    """Fill `train.reference_cache` with every draw of the run's plan that it does not hold yet.

    Raises:
        ConfigError: no folder is named, the objective needs no reference errors, or a network places its pairs.
        InputError: the folder holds errors of another seed, data set, reference or draw plan.
    """
    folder = config.train.reference_cache
    if folder is None:
        raise ConfigError("no folder is named", where="train.reference_cache", remedy="name one to fill")
    prepared = prepare(config, cache=open_cache(), base=about_base)
    run = make_run(_without(prepared, "reference_cache"), Path(folder), world=world, load_adapter=load_adapter)
    return fill_reference(run, Path(folder), identity=prepared.reference, overwrite=overwrite)


def _without(prepared: Prepared, *caches: str) -> Prepared:
    """The same run without some caches, so that it calls the reference where they would be read."""
    options = prepared.config.train.model_copy(update=dict.fromkeys(caches))
    return replace(prepared, config=prepared.config.model_copy(update={"train": options}))


def fill_reference(run: Run, folder: Path, *, identity: str, overwrite: bool) -> FillSummary:
    """Compute missing reference errors in the run's own order, `train.place_batch` pairs at once; saved as it goes on.

    Processes share the draws of a step as they share them in the run.
    """
    source, world, options = run.source, run.world, run.config.train
    assert isinstance(source, PairSource)
    ids = source.table.pair_id
    visits = -(-options.max_steps * options.pairs_per_step // len(ids))
    values, spent = held_values(folder, identity=identity, pair_id=ids, visits=visits, overwrite=overwrite)
    world.barrier()
    run.adapter.train_mode(True)  # the mode it will be asked in: some kernels depend on it
    computed, began = 0, time.perf_counter()
    saved = began

    def write() -> None:
        if world.main and computed:
            about = {"device_seconds": spent + (time.perf_counter() - began) * world.size}
            save_reference(folder, values, identity=identity, pair_id=ids, about=about)

    steps: Iterable[int] = range(options.max_steps)
    if world.main:
        steps = progress(steps, f"reference errors {folder.name}", total=options.max_steps, unit="step")
    for step in steps:
        order = source.order(options.seed, step=step, per_step=options.pairs_per_step)
        missing = [k for k, draw in enumerate(order) if not np.isfinite(values[draw.visit, draw.index]).all()]
        if not missing:
            continue
        found = world.sum(_errors(run, source, step=step, order=order, positions=missing)).cpu().numpy()
        values[[order[k].visit for k in missing], [order[k].index for k in missing]] = found
        computed += len(missing)
        if time.perf_counter() - saved > SAVE_EVERY:
            write()
            saved = time.perf_counter()
    write()
    world.barrier()
    return FillSummary(
        folder=str(folder),
        draws=options.max_steps * options.pairs_per_step,
        computed=computed,
        images=2 * computed,
        device_seconds=(time.perf_counter() - began) * world.size,
    )


def fill_trajectories(
    config: RunConfig,
    *,
    world: World,
    open_cache: Callable[[], Latents],
    load_adapter: Callable[[bool], Adapter],
    about_base: Mapping[str, Any],
    overwrite: bool,
) -> FillSummary:
    """Fill `train.trajectory_cache` with every draw of the run's plan that it does not hold yet, shard by shard.

    Processes share the shards. What was written stays when it is killed.

    Raises:
        ConfigError: no folder is named, or it is not the frozen reference that inverts.
        InputError: the folder holds inversions of another seed, data set, reference, trajectory or draw plan.
    """
    if config.train.trajectory_cache is None:
        raise ConfigError("no folder is named", where="train.trajectory_cache", remedy="name one to fill")
    folder = Path(config.train.trajectory_cache)
    prepared = prepare(config, cache=open_cache(), base=about_base)
    without = _without(prepared, "reference_cache", "trajectory_cache")
    run = make_run(without, folder, world=world, load_adapter=load_adapter)
    if overwrite and world.main:
        clear(folder)
    world.barrier()
    held, spent = held_shards(folder, identity=prepared.trajectories)
    total = run.config.train.max_steps * draws_per_step(run.config, run.method)
    missing = missing_shards(held, total)
    world.barrier()
    run.adapter.train_mode(True)
    began, images, computed = time.perf_counter(), 0, 0

    def record() -> None:
        if world.main and missing:
            seconds = spent + (time.perf_counter() - began) * world.size
            save_record(folder, identity=prepared.trajectories, device_seconds=seconds)

    for number in progress(missing[world.rank :: world.size], f"trajectories {folder.name}", unit="shard"):
        record()
        positions = range(number * SHARD, min(total, (number + 1) * SHARD))
        images += _save_trajectories(run, folder, number, positions)
        computed += len(positions)
    done = world.sum(torch.tensor([computed, images], device=world.device))
    record()
    world.barrier()
    return FillSummary(
        folder=str(folder),
        draws=total,
        computed=int(done[0]),
        images=int(done[1]),
        device_seconds=(time.perf_counter() - began) * world.size,
    )


def _save_trajectories(run: Run, folder: Path, number: int, positions: range) -> int:
    """Invert the draws at some positions of the global order and write their shard; returns images called for."""
    source, options, calls = run.source, run.config.train, {"inversion": 0}
    assert isinstance(source, PairSource)
    per_step, share, path = draws_per_step(run.config, run.method), run.method.share, run.adapter.path
    order = source.order(options.seed, step=number, per_step=SHARD)[: len(positions)]
    parts: list[tuple[Tensor, ...]] = []
    start = positions.start
    while start < positions.stop:
        step = start // per_step  # a chunk stays inside an optimiser step, whose strata it shares
        stop = min(start + options.place_batch, (step + 1) * per_step, positions.stop)
        drawn = order[start - positions.start : stop - positions.start]
        batch = source.batch(drawn, seed=options.seed, device=run.world.device)
        t = draw_times(run, batch, step=step, positions=[p % per_step for p in range(start, stop)])
        placed = place_batch(run, batch, t, calls=calls)
        points = ((batch.x0_w, placed.xt_w), (batch.x0_l, placed.xt_l))
        noise = (path.implied_noise(x0.repeat_interleave(share, dim=0), x_t, placed.t) for x0, x_t in points)
        parts.append(tuple(tau.unflatten(0, (-1, share)).cpu() for tau in noise))
        start = stop
    tau_w, tau_l = (torch.cat(sides) for sides in zip(*parts, strict=True))
    save_shard(
        folder,
        number,
        tau_w,
        tau_l,
        pair_id=[source.id_of(draw.index) for draw in order],
        visit=[draw.visit for draw in order],
        dtype=run.config.cache.dtype,
    )
    return calls["inversion"]


@torch.no_grad()
def _errors(run: Run, source: PairSource, *, step: int, order: Sequence[Draw], positions: Sequence[int]) -> Tensor:
    """float32 [N,2] on the device: errors of this process' share of N positions, zero elsewhere.

    Every process makes equally many network calls (a shorter share repeats its last draw), as sharded networks need.
    """
    world, options = run.world, run.config.train
    errors = torch.zeros(len(positions), 2, device=world.device)
    padded = range(world.rank, -(-len(positions) // world.size) * world.size, world.size)
    for start in range(0, len(padded), options.place_batch):
        rows = [min(row, len(positions) - 1) for row in padded[start : start + options.place_batch]]
        chunk = [positions[row] for row in rows]
        batch = source.batch([order[k] for k in chunk], seed=options.seed, device=world.device)
        placed = place_batch(run, batch, draw_times(run, batch, step=step, positions=chunk), calls={})
        x, t = torch.cat([placed.xt_w, placed.xt_l]), torch.cat([placed.t, placed.t])
        cond = both(batch.cond_w, batch.cond_l)
        found = reference_errors(placed, run.adapter.predict(x, t, cond, network="reference"))
        own = [k for k, row in enumerate(padded[start : start + options.place_batch]) if row < len(positions)]
        errors[[rows[k] for k in own]] = torch.stack(found, dim=1)[own].to(errors.dtype)
    return errors
