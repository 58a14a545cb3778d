"""The loop: optimiser steps over the seeded order, until the last; files are written by the main process alone."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from finepref.core.errors import CheckFailed
from finepref.core.interrupt import Interrupted, at_safe_places
from finepref.core.progress import progress, room_beside, say
from finepref.formats.heldout import read_start
from finepref.formats.metrics import TIMING, StepMetrics, StepTiming, append_line, append_metrics, cut_after
from finepref.train.batches import Draw, ImageSource, micro_batches, of_one_bucket
from finepref.train.callbacks import Progress
from finepref.train.checkpoint import (
    CALLS,
    Counters,
    checkpoint_path,
    load_checkpoint,
    newest_whole,
    take_checkpoint,
)
from finepref.train.left import leaving
from finepref.train.levels import level_weights
from finepref.train.lists import ListSource, list_loss
from finepref.train.log import Tally
from finepref.train.look import look
from finepref.train.moving import move
from finepref.train.optim import learning_rate, make_optimizer, make_scaler
from finepref.train.placement import cut, place
from finepref.train.processes import whole
from finepref.train.state import Run, State, progress_of
from finepref.train.step import Calls, Output, pair_loss
from finepref.train.stopping import is_over, sound_step
from finepref.train.unpaired import image_losses
from finepref.train.writing import Writing, writing

COPIED = 1 << 30
"""Bytes of a run on the CPU that are copied to be written beside it; what is larger is written from where it lies."""


def train(run: Run, state: State) -> State:
    """Run the optimiser steps that are left, or up to where a callback stops; the trained part stays in the adapter.

    state: of `begin`.

    Raises:
        CheckFailed: more than `train.max_skipped` steps had gradients that were not finite, or all of them.
    """
    run.adapter.train_mode(True)
    if _due(run, state):
        look(run, state)
    with writing() as writer:
        came, over = _steps(run, state, writer)
        _checkpoint(run, state, writer, last=True)
    _check_end(run, state, came=came, over=over)
    return state


def _steps(run: Run, state: State, writer: Writing) -> tuple[int, bool]:
    """The steps that are left; which signal came, 0 for none, and whether held-out pairs ended the run."""
    options, main = run.config.train, run.world.main
    over = is_over(run)
    steps = range(state.step, state.step if over else options.max_steps)
    started = time.perf_counter()
    came = 0
    bar = progress(steps, f"train {run.out.name}", unit="step", hidden=not main, done=state.step)
    room = room_beside(bar)
    with at_safe_places("the run ends after this step, with a checkpoint") as signalled:
        for step in bar:
            began = time.perf_counter()
            record = optimiser_step(run, state, step)
            state.step = step + 1
            if main:
                append_metrics(run.out, record)
                now = time.perf_counter()
                timing = StepTiming(step=step + 1, seconds=now - began, since_start=now - started)
                append_line(run.out / TIMING, asdict(timing))
                for tracker in run.trackers:
                    tracker.log(record.numbers(), step=step + 1)
                bar.set_postfix_str(record.brief(room), refresh=False)
            if writer.running is not None:
                writer.end(wait=False)
            stopped = bool(run.callbacks) and _asked_to_stop(run, state, record)
            came = signalled() if run.world.size == 1 else run.world.highest(signalled())
            save = bool(options.checkpoint_every) and state.step % options.checkpoint_every == 0
            if save and not (stopped or came) and state.step < options.max_steps:
                _checkpoint(run, state, writer)
            if _due(run, state) and not (came and state.step < options.max_steps):
                look(run, state)
                over = is_over(run)
                goes_on = not (save or over) and state.step < options.max_steps
                if goes_on and sound_step(run, now=state.step) == state.step:
                    _checkpoint(run, state, writer)
            if record.skipped_pairs is not None and state.skipped > options.max_skipped:
                raise _skipped(run, state, f"the last pairs were {', '.join(record.skipped_pairs[:8])}")
            if stopped or came or over:
                break
    return came, over


def _due(run: Run, state: State) -> bool:
    """Whether the run is looked at after this step: every so many steps, and held-out pairs at both ends too."""
    every = run.config.validation.every
    ends = run.heldout is not None and state.step in (0, run.config.train.max_steps)
    return ends or bool(every and state.step % every == 0)


def _check_end(run: Run, state: State, *, came: int, over: bool) -> None:
    """Say that a signal came, and refuse to leave what no step has changed."""
    options, finished = run.config.train, over or state.step == run.config.train.max_steps
    if came and not finished:
        kept = f"{checkpoint_path(run.out, state.step)} is kept; the same command with --resume goes on from it"
        text = f"stopped after step {state.step} of {options.max_steps}: {kept}"
        raise Interrupted(text if run.world.main else "", came)
    if finished and state.step and state.skipped == state.step:
        raise _skipped(run, state, "not one was applied, so the weights are those of the start")
    if finished and state.step and state.skipped + state.overflows == state.step:
        what = f"not one of {state.step} steps was applied, because the loss scale had not fallen far enough"
        raise CheckFailed(what, where=run.out, remedy="train more steps, or in bf16")


def optimiser_step(run: Run, state: State, step: int) -> StepMetrics:
    """One optimiser step over this process' share of the step's draws; one reduction of statistics, none inside it."""
    options, world, path = run.config.train, run.world, run.adapter.path
    order = run.source.order(step=step, per_step=run.draws)
    share = of_one_bucket(order, range(world.rank, len(order), world.size), run.source.table, size=run.draws)
    positions = [*chain(*share)]
    parameters = [p for _, p in state.named]
    state.optimizer.zero_grad(set_to_none=True)
    highest = 1.0 if path.alpha_bar is None else float(len(path.alpha_bar))
    tally = Tally(buckets=run.config.log.t_buckets, highest=highest, device=world.device)
    scale = world.size if run.sharded else 1  # sharded gradients are averaged, others summed
    losses: list[Tensor] = []
    before, state.calls = state.calls, dict.fromkeys(CALLS, 0)
    for out, t in _weighted(run, _outputs(run, state.calls, step=step, order=order, positions=positions)):
        state.scaler.scale(out.loss.sum() * scale / options.pairs_per_step).backward()
        tally.add(out, t)
        losses.append(out.loss.detach())
    if world.size > 1 and not run.sharded:
        world.sum_gradients(parameters)
    loss_scale = state.scaler.get_scale() if state.scaler.is_enabled() else None
    state.scaler.unscale_(state.optimizer)  # summed before, so every process finds the same overflow
    limit = options.max_grad_norm if options.max_grad_norm is not None else float("inf")
    total = torch.nn.utils.clip_grad_norm_(parameters, limit)
    norm = (whole(total) if run.sharded else total).item()
    means, by_t, called = tally.finish(world, state.calls)
    state.calls = {name: count + called[name] for name, count in before.items()}
    rate, skipped, overflow = learning_rate(options, step), None, False
    if math.isfinite(norm):
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.scaler.step(state.optimizer)
        if state.average is not None and options.ema_decay is not None:
            for name, parameter in state.named:
                state.average[name].lerp_(parameter.detach(), 1.0 - options.ema_decay)
    else:
        suspects = _suspects(run, losses, positions, len(order))
        overflow = loss_scale is not None and loss_scale >= 1 and not suspects
        if overflow:
            state.overflows += 1
            if world.main:
                say(f"step {step + 1}: gradients times {loss_scale:g} are beyond float16, step left out, scale halved")
        else:
            skipped = _skip(run, state, [order[position].index for position in suspects or range(len(order))])
    state.scaler.update()
    if state.reference is not None:
        applied = skipped is None and not overflow
        move(state.reference, state.named, options.reference, step=step + 1, applied=applied)
    return StepMetrics(
        step=step + 1,
        means=means,
        pairs=sum(bucket.pairs for bucket in by_t),
        by_t=by_t,
        grad_norm=norm,
        lr=rate,
        loss_scale=loss_scale,
        overflow=overflow,
        skipped_pairs=skipped,
    )


def _weighted(run: Run, outputs: Iterator[Output]) -> Iterator[Output]:
    """Outputs whose losses count as `train.levels.weights` says."""
    options, path = run.config.train.levels, run.adapter.path
    if options.weights is None:
        return outputs
    return ((replace(out, loss=out.loss * level_weights(t, options, path)), t) for out, t in outputs)


def _skip(run: Run, state: State, indices: Sequence[int]) -> tuple[str, ...]:
    """Count a step that cannot be applied; the ids of the rows that may be why."""
    state.skipped += 1
    found = tuple(dict.fromkeys(run.source.table.ids[index] for index in indices))
    if run.world.main:
        ids = list(found[:8])
        say(f"step {state.step + 1}: gradients are not finite, step skipped ({state.skipped} so far); pairs {ids}")
    return found


def _outputs(run: Run, calls: Calls, *, step: int, order: Sequence[Draw], positions: Sequence[int]) -> Iterator[Output]:
    """The objective's output for every micro-batch of this process, in order."""
    options, method, adapter, source = run.config.train, run.method, run.adapter, run.source
    if isinstance(source, ImageSource):
        size = options.micro_batch
        yield from image_losses(
            lambda: (
                (batch, run.levels(batch, step=step, positions=chunk))
                for chunk, batch in micro_batches(source, order, positions, size=size)
            ),
            single=len(of_one_bucket(order, positions, source.table, size=size)) <= 1,
            adapter=adapter,
            method=method,
            seed=options.seed,
            calls=calls,
            total=run.world.sum,
        )
        return
    if isinstance(source, ListSource):
        for chunk, lists in micro_batches(source, order, positions, size=options.micro_batch):
            levels = run.levels(lists, step=step, positions=chunk)
            yield list_loss(lists, t=levels, adapter=adapter, method=method, seed=options.seed, calls=calls)
        return
    plain = method.trajectory.name == "forward"
    size = max(options.place_batch, options.micro_batch) if run.inverts else options.micro_batch
    for chunk, batch in micro_batches(source, order, positions, size=size):
        in_step = plain and not options.stratified_t and method.levels is None
        t = None if in_step else run.levels(batch, step=step, positions=chunk)
        if t is None or plain:
            parts: Any = [(batch, None)]
        else:
            parts = cut(batch, place(run, batch, t, calls=calls), size=options.micro_batch, share=method.share)
        for micro, placed in parts:
            known = None
            if run.errors is not None:
                error_w, error_l = run.errors.read(micro.pair_id, micro.visit)
                device = run.world.device
                known = error_w.to(device, non_blocking=True), error_l.to(device, non_blocking=True)
            yield pair_loss(
                micro,
                adapter=adapter,
                method=method,
                seed=options.seed,
                calls=calls,
                t=t,
                placed=placed,
                known=known,
            )


def _suspects(run: Run, losses: Sequence[Tensor], positions: Sequence[int], count: int) -> list[int]:
    """Positions of the draws whose loss is not finite, on any process."""
    bad = torch.zeros(count, device=run.world.device)
    if losses:
        own = ~torch.isfinite(torch.cat(list(losses))).view(len(positions), -1).all(1)
        bad[torch.tensor(positions)] = own.to(bad.dtype)
    found: list[int] = run.world.sum(bad).nonzero().flatten().tolist()
    return found


def _skipped(run: Run, state: State, what: str) -> CheckFailed:
    return CheckFailed(
        f"{state.skipped} steps were skipped because their gradients were not finite; {what}",
        where=run.out,
        remedy="lower the learning rate or inspect these pairs",
    )


def begin(run: Run, *, resume: bool) -> State:
    """The state of a run before its next step: of its newest whole checkpoint, or of a start.

    Raises:
        InputError: a checkpoint that is not as a step of this run left it.
    """
    named = run.adapter.trainable()
    average = None
    if run.config.train.ema_decay is not None:
        average = {name: parameter.detach().clone() for name, parameter in named}
    optimizer = make_optimizer(run.config.train, [p for _, p in named])
    scaler = make_scaler(run.config.train, run.world.device)
    moving = run.adapter.reference_tensors() if run.config.train.reference.moves else None
    state = State(optimizer=optimizer, scaler=scaler, named=named, average=average, reference=moving)
    found = newest_whole(run.out, told=run.world.main) if resume else None
    if found is not None:
        counters = load_checkpoint(found, named=named, optimizer=optimizer, scaler=scaler, beside=state.beside())
        state.step, state.skipped, state.calls = counters.step, counters.skipped, state.calls | dict(counters.calls)
        state.overflows = counters.overflows
    if run.heldout is not None and state.step:  # refused here rather than at the next look
        read_start(run.out, run.heldout.source.table.pair_id, run.heldout.draws)
    if run.world.main:
        cut_after(run.out, state.step)
    run.world.barrier()
    return state


def _asked_to_stop(run: Run, state: State, record: StepMetrics) -> bool:
    """Tell the callbacks of a step, on the main process; whether one of them stops the run, on every process."""
    told = run.callbacks if run.world.main else ()
    answers = [callback.on_step(progress_of(run, state), copy.deepcopy(record)) for callback in told]
    return bool(run.world.sum(torch.tensor(float(True in answers), device=run.world.device)))


def _checkpoint(run: Run, state: State, writer: Writing, *, last: bool = False) -> None:
    """Write a checkpoint: beside the run where that takes no more memory than writing does, or little."""
    writer.end()
    spared = sound_step(run, now=state.step)
    goes_on = not last and (run.world.device.type != "cpu" or state.nbytes() <= COPIED)
    if run.world.main or run.sharded:
        write = take_checkpoint(
            run.out,
            Counters(step=state.step, skipped=state.skipped, calls=dict(state.calls), overflows=state.overflows),
            run.identity,
            named=state.named,
            optimizer=state.optimizer,
            scaler=state.scaler,
            beside=state.beside(),
            leaving=lambda weights: leaving(run, state, weights),
            keep=run.config.train.checkpoints_keep,
            spared=spared,
            main=run.world.main,
            copy=goes_on,
        )
        if write is not None:
            told = functools.partial(_tell, run, progress_of(run, state))
            if goes_on:
                writer.begin(write, told)
            else:
                write()
                told()
    run.world.barrier()


def _tell(run: Run, then: Progress) -> None:
    """Tell the callbacks of a checkpoint that is whole. then: where the run was when it was taken."""
    for callback in run.callbacks:
        callback.on_checkpoint(then, checkpoint_path(run.out, then.step))
