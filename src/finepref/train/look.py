"""What is looked at while a run goes on, beside its steps: samples of a few prompts, and held-out pairs."""

from __future__ import annotations

from finepref.formats.heldout import append_heldout, read_heldout, read_start, write_start
from finepref.train.log import draw_samples, write_samples
from finepref.train.state import Run, State, progress_of
from finepref.train.unseen import evaluate, summarise


def look(run: Run, state: State) -> None:
    """Draw samples and look at the held-out pairs, as far as the run has any."""
    options = run.config.validation
    if options.prompts and options.every and state.step % options.every == 0:
        _samples(run, state)
    if run.heldout is not None:
        _held_out(run, state)


def _held_out(run: Run, state: State) -> None:
    """Look at the held-out pairs, on all processes, and write what they say; a resumed run may have looked already."""
    held, out = run.heldout, run.out
    assert held is not None
    said = evaluate(run, state)
    if run.world.main and not ((lines := read_heldout(out)) and lines[-1].step == state.step):
        ids = held.source.table.pair_id
        if state.step == 0:
            write_start(out, ids, said, held.agreement, held.signal)
        record = summarise(run, said, read_start(out, ids, held.draws), step=state.step)
        append_heldout(out, record)
        for tracker in run.trackers:
            tracker.log(record.numbers(), step=state.step)
        for callback in run.callbacks:
            callback.on_heldout(progress_of(run, state), record)
    run.world.barrier()


def _samples(run: Run, state: State) -> None:
    options = run.config.validation
    if run.world.main or run.sharded:
        run.adapter.train_mode(False)
        images = draw_samples(run.adapter.pipeline(), options)
        run.adapter.train_mode(True)
        if run.world.main:
            folder = run.out / "samples" / f"step-{state.step:06d}"
            write_samples(images, options, folder)
            for callback in run.callbacks:
                callback.on_samples(progress_of(run, state), folder)
    run.world.barrier()
