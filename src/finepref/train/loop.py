"""The loop: optimiser steps over the seeded order, until the last; files are written by the main process alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finepref.core.batches import ImageBatch, ImagePrediction, ObjectiveOutput, PairBatch, PairSignal, Placed
from finepref.core.errors import CheckFailed
from finepref.core.progress import progress, say
from finepref.diffusion.forward import noised
from finepref.diffusion.path import Path as NoisePath
from finepref.models.protocol import Adapter
from finepref.objectives.kto import kto_anchor, kto_sums
from finepref.train import draws
from finepref.train.checkpoint import Counters, checkpoints, load_checkpoint, remove_leftovers, save_checkpoint
from finepref.train.config import RunConfig
from finepref.train.draws import Draw
from finepref.train.log import Tally, append, cut_after, tracked
from finepref.train.method import Method, draws_per_step, inverts
from finepref.train.optim import learning_rate, make_optimizer, set_learning_rate
from finepref.train.processes import World
from finepref.train.samples import draw_samples, write_samples
from finepref.train.shard import whole
from finepref.train.source import ImageSource, PairSource
from finepref.train.step import Calls, pair_step, place_pairs, predict_images
from finepref.train.trajectories import TrajectoryCache

CALLS = ("policy", "reference", "inversion", "anchor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything a step needs, fixed for the run."""

    config: RunConfig
    method: Method
    adapter: Adapter
    source: PairSource | ImageSource
    world: World
    out: Path
    identity: str
    trackers: Sequence[Any] = ()

    @property
    def sharded(self) -> bool:
        """Whether parameters are shards (FSDP2) on this process."""
        return self.config.train.distributed == "fsdp2"


@dataclass(slots=True)
class State:
    """What changes from step to step; all of it is in a checkpoint."""

    optimizer: torch.optim.Optimizer
    named: list[tuple[str, torch.nn.Parameter]]
    average: dict[str, Tensor] | None
    step: int = 0
    skipped: int = 0
    calls: Calls = field(default_factory=lambda: dict.fromkeys(CALLS, 0))


def train(run: Run, *, resume: bool) -> State:
    """Run the optimiser steps that are left, and leave the trained part in `run.out`.

    Raises:
        InputError: the checkpoint belongs to another config or other data.
        CheckFailed: more than `train.max_skipped` steps had gradients that were not finite.
    """
    options = run.config.train
    state = _start(run, resume=resume)
    run.adapter.train_mode(True)
    _samples(run, state.step)
    steps: Iterator[int] = iter(range(state.step, options.max_steps))
    if run.world.main:
        what = f"train {run.out.name}"
        steps = progress(steps, what, total=options.max_steps - state.step, unit="step")
    started = time.perf_counter()
    for step in steps:
        began = time.perf_counter()
        record = optimiser_step(run, state, step)
        state.step = step + 1
        if run.world.main:
            append(run.out / "metrics.jsonl", record)
            now = time.perf_counter()
            append(run.out / "timing.jsonl", {"step": step + 1, "seconds": now - began, "since_start": now - started})
            for tracker in run.trackers:
                tracker.log(tracked(record), step=step + 1)
        if options.checkpoint_every and state.step % options.checkpoint_every == 0 and state.step < options.max_steps:
            _checkpoint(run, state)
        _samples(run, state.step)
        if "skipped_pairs" in record and state.skipped > options.max_skipped:
            raise CheckFailed(
                f"{state.skipped} steps were skipped because their gradients were not finite; the last pairs were "
                f"{', '.join(record['skipped_pairs'][:8])}",
                where=run.out,
                remedy="lower the learning rate or inspect these pairs",
            )
    _checkpoint(run, state)
    return state


def optimiser_step(run: Run, state: State, step: int) -> dict[str, Any]:
    """One optimiser step over this process' share of the step's draws; one reduction of statistics, none inside it."""
    options, world = run.config.train, run.world
    order = run.source.order(options.seed, step=step, per_step=draws_per_step(run.config, run.method))
    positions = draws.share(order, rank=world.rank, world=world.size)
    parameters = [p for _, p in state.named]
    state.optimizer.zero_grad(set_to_none=True)
    tally = Tally(buckets=run.config.log.t_buckets, device=world.device)
    scale = world.size if run.sharded else 1  # sharded gradients are averaged over the processes, others summed
    losses: list[Tensor] = []
    before, state.calls = state.calls, dict.fromkeys(CALLS, 0)
    for out, t in _outputs(run, state, step=step, order=order, positions=positions):
        (out.loss.sum() * scale / options.pairs_per_step).backward()
        tally.add(out, _bucket(run, t))
        losses.append(out.loss.detach())
    if not run.sharded:
        world.sum_gradients(parameters)
    limit = options.max_grad_norm if options.max_grad_norm is not None else float("inf")
    norm = whole(torch.nn.utils.clip_grad_norm_(parameters, limit)).item()
    means, called = tally.finish(world, state.calls)
    state.calls = {name: count + called[name] for name, count in before.items()}
    record: dict[str, Any] = {"step": step + 1, **means, "grad_norm": norm}
    rate = learning_rate(options, step)
    if math.isfinite(norm):
        set_learning_rate(state.optimizer, rate)
        state.optimizer.step()
        if state.average is not None and options.ema_decay is not None:
            for name, parameter in state.named:
                state.average[name].lerp_(parameter.detach(), 1.0 - options.ema_decay)
    else:
        state.skipped += 1
        suspects = _suspects(run, losses, positions, len(order))
        ids = list(dict.fromkeys(run.source.id_of(order[position].index) for position in suspects))
        record["skipped_pairs"] = ids
        if world.main:
            say(f"step {step + 1}: gradients are not finite, step skipped ({state.skipped} so far); pairs {ids[:8]}")
    return {**record, "lr": rate}


def _suspects(run: Run, losses: Sequence[Tensor], positions: Sequence[int], count: int) -> list[int]:
    """Positions of the draws whose loss is not finite, on any process; all of them where every loss is finite."""
    bad = torch.zeros(count, device=run.world.device)
    if losses:
        own = ~torch.isfinite(torch.cat(list(losses))).view(len(positions), -1).all(1)
        bad[torch.tensor(positions)] = own.to(bad.dtype)
    found: list[int] = run.world.sum(bad).nonzero().flatten().tolist()
    return found or list(range(count))


def _batches(
    run: Run, order: Sequence[Draw], positions: Sequence[int], *, size: int
) -> Iterator[tuple[Sequence[int], Any]]:
    """(positions, batch) of at most `size` draws each; the next batch is read while this one trains."""
    chunks = [positions[i : i + size] for i in range(0, len(positions), size)]

    def load(chunk: Sequence[int]) -> Any:
        return run.source.batch([order[p] for p in chunk], seed=run.config.train.seed, device=run.world.device)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(load, chunks[0]) if chunks else None
        for number, chunk in enumerate(chunks):
            assert ahead is not None
            batch = ahead.result()
            ahead = pool.submit(load, chunks[number + 1]) if number + 1 < len(chunks) else None
            yield chunk, batch


def _outputs(
    run: Run, state: State, *, step: int, order: Sequence[Draw], positions: Sequence[int]
) -> Iterator[tuple[ObjectiveOutput, Tensor]]:
    """(objective output, t) of every micro-batch of this process, in order."""
    options = run.config.train
    if isinstance(run.source, ImageSource):
        yield from _images(run, state, step=step, order=order, positions=positions)
        return
    size = options.micro_batch
    if inverts(run.config, run.method):
        size = max(options.place_batch, size)
    for chunk, batch in _batches(run, order, positions, size=size):
        yield from _pairs(run, state, batch, draw_times(run, batch, step=step, positions=chunk))


def _images(
    run: Run, state: State, *, step: int, order: Sequence[Draw], positions: Sequence[int]
) -> Iterator[tuple[ObjectiveOutput, Tensor]]:
    """Unpaired images (KTO), whose anchor is that of the whole optimiser step on all processes.

    Several micro-batches are predicted once before, without gradient, for the anchor and the reference's errors.
    """
    seed, size, device = run.config.train.seed, run.config.train.micro_batch, run.world.device

    def predictions(known: Sequence[Tensor], calls: Calls) -> Iterator[tuple[ImagePrediction, Tensor]]:
        for number, (chunk, batch) in enumerate(_batches(run, order, positions, size=size)):
            noise = draws.normals(seed, "noise", batch.image_id, batch.visit, batch.x0.shape[1:])
            t = draw_times(run, batch, step=step, positions=chunk).to(device, non_blocking=True)
            errors = known[number] if known else None
            noise = noise.to(device, non_blocking=True)
            yield predict_images(run.adapter, run.method, batch, t=t, noise=noise, calls=calls, known=errors), t

    sums, known = torch.zeros(4, dtype=torch.float64, device=device), []
    found: Iterable[tuple[ImagePrediction, Tensor]]
    if len(positions) <= size:
        found = list(predictions((), state.calls))
        for prediction, _ in found:
            sums += kto_sums(prediction)
    else:
        first = dict.fromkeys(CALLS, 0)
        with torch.no_grad():
            for prediction, _ in predictions((), first):
                assert prediction.ref_error is not None
                sums += kto_sums(prediction)
                known.append(prediction.ref_error)
        state.calls["reference"] += first["reference"]
        state.calls["anchor"] += first["policy"]
        found = predictions(known, state.calls)
    options = run.method.options
    anchor = kto_anchor(run.world.sum(sums), offset=options["offset"])
    for prediction, t in found:
        yield run.method.objective.function(prediction, **options, anchor=anchor), t


def _pairs(run: Run, state: State, batch: PairBatch, t: Tensor) -> Iterator[tuple[ObjectiveOutput, Tensor]]:
    options = run.config.train
    placed = place_batch(run, batch, t, calls=state.calls)
    for start in range(0, len(placed.t), options.micro_batch):
        part = slice(start, start + options.micro_batch)
        micro = cut_batch(batch, part, share=run.method.share)
        known = run.source.reference_errors(micro, run.world.device) if isinstance(run.source, PairSource) else None
        out = pair_step(run.adapter, run.method, micro, cut_placed(placed, part), calls=state.calls, known=known)
        yield out, placed.t[part]


def place_batch(run: Run, batch: PairBatch, t: Tensor, *, calls: Calls) -> Placed:
    """Put a batch on its trajectory at levels t [B] or [B,K] (CPU), with the noise of its draws."""
    seed, shape = run.config.train.seed, batch.x0_w.shape[1:]
    device, count = run.world.device, len(batch.pair_id)
    if isinstance(run.source, PairSource) and run.source.trajectories is not None:
        return _place_known(run.source.trajectories, batch, t.to(device, non_blocking=True), path=run.adapter.path)
    noise = None
    if not run.method.trajectory.uses_network:
        noise = draws.normals(seed, "noise", batch.pair_id, batch.visit, shape).to(device, non_blocking=True)

    def draw(rows: Tensor, steps: Tensor) -> Tensor:
        words = [
            f"{batch.pair_id[r % count]}\x1f{'wl'[r // count]}\x1f{s}"
            for r, s in zip(rows.tolist(), steps.tolist(), strict=True)
        ]
        return draws.normals(seed, "inversion", words, [batch.visit[r % count] for r in rows.tolist()], shape)

    placed = place_pairs(run.adapter, run.method, batch, t=t, noise=noise, draw=draw, calls=calls)
    return replace(placed, t=placed.t.to(device, non_blocking=True))


def _place_known(known: TrajectoryCache, batch: PairBatch, t: Tensor, *, path: NoisePath) -> Placed:
    """Put a batch where the reference's inversion had put it."""
    noise_w, noise_l = (
        tau.flatten(0, 1).to(t.device, non_blocking=True) for tau in known.noise(batch.pair_id, batch.visit)
    )
    share = noise_w.shape[0] // len(batch.pair_id)
    x0_w, x0_l = (x0.repeat_interleave(share, dim=0) for x0 in (batch.x0_w, batch.x0_l))
    return noised(x0_w, x0_l, t.flatten(), noise_w, noise_l, path=path)


def cut_batch(batch: PairBatch, part: slice, *, share: int = 1) -> PairBatch:
    """The pairs behind some rows of a placed batch, in which every pair stands `share` times."""
    rows = range(len(batch.pair_id) * share)[part]
    pairs = [row // share for row in rows]
    index: slice | Tensor = part
    if share > 1:
        index = torch.tensor(pairs).to(batch.x0_w.device, non_blocking=True)
    return PairBatch(
        pair_id=tuple(batch.pair_id[pair] for pair in pairs),
        visit=tuple(batch.visit[pair] for pair in pairs),
        x0_w=batch.x0_w[index],
        x0_l=batch.x0_l[index],
        cond_w={name: value[index] for name, value in batch.cond_w.items()},
        cond_l={name: value[index] for name, value in batch.cond_l.items()},
        signal=PairSignal(margin=batch.signal.margin[index], weight=batch.signal.weight[index]),
    )


def cut_placed(placed: Placed, part: slice) -> Placed:
    """Some pairs of a placed batch."""
    return Placed(
        xt_w=placed.xt_w[part],
        xt_l=placed.xt_l[part],
        t=placed.t[part],
        target_w=placed.target_w[part],
        target_l=placed.target_l[part],
    )


def draw_times(run: Run, batch: PairBatch | ImageBatch, *, step: int, positions: Sequence[int]) -> Tensor:
    """Levels [B], or [B,K] in rising order where K share a trajectory, on the CPU, where an inversion plans its calls.

    Of K levels the k-th is uniform in the k-th of K equal parts of the range, so that one taken at random is uniform.
    """
    options, share = run.config.train, run.method.share
    ids = batch.pair_id if isinstance(batch, PairBatch) else batch.image_id
    per_step, columns = draws_per_step(run.config, run.method), []
    for part in range(share):
        u = draws.uniforms(options.seed, "t" if share == 1 else f"t-{part}", ids, batch.visit)
        if options.stratified_t:
            u = draws.strata(options.seed, step=step, per_step=per_step, positions=positions, u=u)
        columns.append(draws.times(run.adapter.path, (part + u) / share, lowest=run.method.lowest_t))
    return columns[0] if share == 1 else torch.stack(columns, dim=1)


def _bucket(run: Run, t: Tensor) -> Tensor:
    buckets = run.config.log.t_buckets
    top = 1.0 if run.adapter.path.alpha_bar is None else float(len(run.adapter.path.alpha_bar))
    return (t.to(torch.float64) / top * buckets).long().clamp(0, buckets - 1)


def _start(run: Run, *, resume: bool) -> State:
    named = run.adapter.trainable()
    average = None
    if run.config.train.ema_decay is not None:
        average = {name: parameter.detach().clone() for name, parameter in named}
    optimizer = make_optimizer(run.config.train, [p for _, p in named])
    state = State(optimizer=optimizer, named=named, average=average)
    found = checkpoints(run.out) if resume else []
    if found:
        counters = load_checkpoint(found[-1], identity=run.identity, named=named, optimizer=optimizer, average=average)
        state.step, state.skipped, state.calls = counters.step, counters.skipped, dict(counters.calls)
    if run.world.main:
        remove_leftovers(run.out)
        cut_after(run.out / "metrics.jsonl", state.step)
        cut_after(run.out / "timing.jsonl", state.step)
    run.world.barrier()
    return state


def _checkpoint(run: Run, state: State) -> None:
    if run.world.main or run.sharded:
        save_checkpoint(
            run.out,
            Counters(step=state.step, skipped=state.skipped, calls=dict(state.calls), identity=run.identity),
            named=state.named,
            optimizer=state.optimizer,
            average=state.average,
            keep=run.config.train.checkpoints_keep,
            write=run.world.main,
        )
    run.world.barrier()


def _samples(run: Run, step: int) -> None:
    options = run.config.validation
    if not (options.prompts and options.every and step % options.every == 0):
        return
    if run.world.main or run.sharded:
        run.adapter.train_mode(False)
        images = draw_samples(run.adapter.pipeline(), options)
        run.adapter.train_mode(True)
        if run.world.main:
            write_samples(images, options, run.out / "samples" / f"step-{step:06d}")
    run.world.barrier()
