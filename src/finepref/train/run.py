"""A run folder from its first file to its last: what is there already, what is trained, what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn

import torch

from finepref.core.device import free_memory
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import write_text
from finepref.core.known import forget
from finepref.core.outfolders import check_folder, mark, own_files, own_folder, recover, refuse_changed, replacing
from finepref.core.progress import say
from finepref.data.latents import EMPTY_PROMPT, LatentCache, Latents
from finepref.data.tokens import TokenLatents, prompt_texts
from finepref.formats.folders import LEFT
from finepref.formats.folders import RUN as RUN_FOLDER
from finepref.formats.run import is_finished, read_run
from finepref.formats.sources import named_inputs
from finepref.models.denoiser import Denoiser
from finepref.models.run_folder import inputs_of
from finepref.train.batches import Drawing, ImageSource, PairSource
from finepref.train.callbacks import Callback
from finepref.train.checkpoint import check_checkpoint, checkpoints, newest_whole, read_state
from finepref.train.config import RunConfig, load_config
from finepref.train.data import ImageTable
from finepref.train.diagnose import diagnose
from finepref.train.frozen import ERRORS, NOISE, Content, FillSummary, FrozenCache, fill_frozen, open_frozen
from finepref.train.identity import Prepared, changed, differences, prepare, settings, written_settings
from finepref.train.left import leaving
from finepref.train.lists import ListSource, ListTable
from finepref.train.log import make_trackers
from finepref.train.loop import begin, train
from finepref.train.method import check_data, check_path, draws_per_step, inverts, make_method, needs_reference
from finepref.train.opened import about_base, load_adapter, open_latents
from finepref.train.processes import World, check_sharding, join_world, shard, whole_tensors
from finepref.train.state import Run, State, progress_of
from finepref.train.stopping import is_over, kept_step, put_kept
from finepref.train.unseen import unseen_pairs

HANDED = ("base", "pairs.parquet", "signals.parquet")
"""What a `Trainer` puts into a run folder, which the run reads."""
OTHER = "choose another folder, or overwrite it"
CONFIG = "config.yaml"
Resume = bool | Literal["auto"]


def train_run(
    config: RunConfig,
    out: Path,
    *,
    resume: Resume = False,
    overwrite: bool = False,
    verify: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Train by config into `out`, on all processes that the launcher started; returns `out`.

    Args:
        resume: go on from the last complete checkpoint, also of a finished run of fewer steps; "auto": or start, where
            no run is there. overwrite: remove what is there and start again.
        verify: read everything that carries or has a hash again, the base too, whatever is known of it.

    The run is unfinished, and goes on with `resume`, where a callback stopped it.

    Raises:
        ConfigError: a combination that makes no sense. InputError: files that do not fit, or a folder in use.
        CheckFailed: steps that could not be applied.
    """
    check_folder(out, RUN_FOLDER, inputs=_inputs(config, out))
    check_data(config, make_method(config))
    if not overwrite:
        check_run(out, config, resume=resume, verify=verify)
    compared = 0
    with join_world(config.train.timeout_minutes) as world, ExitStack() as held:
        if world.main:
            recover(out, RUN_FOLDER, begun=_is_begun)
            held.enter_context(own_folder(out, RUN_FOLDER))
            if verify:
                forget()
                compared = refuse_changed(out, remedy="overwrite it to train again")
                compared += sum(check_checkpoint(folder) for folder in checkpoints(out))
        world.barrier()
        base = about_base(config)
        latents = open_latents(config, out, world=world)
        if verify and isinstance(latents, LatentCache):
            compared += latents.check()
        prepared = prepare(config, cache=latents, base=base)
        free_memory()  # of reading the tables, before the networks are loaded
        if verify:
            say(f"{out}: {compared} files of the run, its checkpoints and its cache are as they were written")
        if not overwrite and _finished(out, prepared, resume=resume):
            say(f"{out} is finished already (--overwrite trains again; --resume with more train.max_steps goes on)")
            return out
        world.barrier()  # nothing is written before every process has looked
        run = replace(make_run(prepared, out, world=world), callbacks=tuple(callbacks))
        for frozen in (run.errors, run.trajectories):
            if verify and frozen is not None:
                frozen.shards.check()
        if world.main:
            held.enter_context(replacing(out, RUN_FOLDER, again=overwrite, begun=_is_begun, whole=is_finished))
        world.barrier()
        _train(run, prepared, resume=bool(resume) and not overwrite)
    if world.main and is_finished(out):
        for finding in diagnose(out):
            say(f"{out.name}: {finding}")
    return out


def _train(run: Run, prepared: Prepared, *, resume: bool) -> None:
    config, out, world = run.config, run.out, run.world
    state = begin(run, resume=resume)  # a checkpoint that cannot be used is refused before anything is written
    if world.main:
        write_text(out / CONFIG, config.to_yaml())
        trainable = sum(parameter.numel() for _, parameter in run.adapter.trainable())
        processes = "1 process" if world.size == 1 else f"{world.size} processes"
        what = f"{len(prepared.table.ids)} rows, {trainable / 1e6:.2f} M trained parameters, {processes}"
        say(f"{config.method} on {what}, {out}")
        run = replace(run, trackers=make_trackers(config.log.trackers, out, config.as_dict()))
    world.barrier()
    train(run, state)
    for tracker in run.trackers:
        tracker.finish()
    if state.step < config.train.max_steps and not is_over(run):
        say(f"{out}: stopped after step {state.step}; resume it to go on")
    else:
        _finish(run, state)
    for callback in run.callbacks if world.main else ():
        callback.on_end(progress_of(run, state))
    world.barrier()


def _is_begun(out: Path) -> bool:
    return bool(checkpoints(out))


def _inputs(config: RunConfig, out: Path) -> list[Path]:
    """What a run reads, but for what a `Trainer` handed to it in its own folder."""
    named = [*inputs_of(config.model.model_dump()), *map(Path, filter(None, [config.signal.file]))]
    own = {(out / name).absolute() for name in HANDED}
    read = named_inputs([*config.data.paths, *config.validation.pairs])
    return [path for path in [*named, *read] if path.absolute() not in own]


def fill_run(config: RunConfig, content: Content, *, overwrite: bool = False) -> FillSummary:
    """Fill a cache of the frozen reference for a run, on all processes; makes the latent cache where missing.

    Raises:
        ConfigError: no folder is named, or the run cannot use it. InputError: the folder holds something else.
    """
    folder = getattr(config.train, content.option)
    if folder is None:
        raise ConfigError("no folder is named", where=f"train.{content.option}", remedy="name one to fill")
    check_folder(folder, content.folder, inputs=_inputs(config, Path(folder)))
    with join_world(config.train.timeout_minutes) as world:
        base = about_base(config)
        prepared = prepare(config, cache=open_latents(config, Path(), world=world), base=base)
        unknown = ("reference_cache",) if content is ERRORS else ("reference_cache", "trajectory_cache")
        options = config.train.model_copy(update=dict.fromkeys(unknown))
        asking = replace(prepared, config=config.model_copy(update={"train": options}))
        run = make_run(asking, Path(folder), world=world)
        identity = prepared.reference if content is ERRORS else prepared.trajectories
        return fill_frozen(run, Path(folder), content, identity=identity, overwrite=overwrite)


def make_run(prepared: Prepared, out: Path, *, world: World) -> Run:
    """Load the networks of a prepared config; the run is ready for its first step.

    Raises:
        ConfigError: a trajectory that the model's noise path cannot do. InputError: a model or a cache of the reference
            that cannot be used.
    """
    config, method, table = prepared.config, prepared.method, prepared.table
    draws, placing = draws_per_step(config, method), inverts(config, method)
    if draws < world.size:
        what = f"{world.size} processes cannot share {draws} draws a step"
        raise ConfigError(what, where="train.pairs_per_step", remedy="raise it, or start fewer processes")
    sharded = config.train.distributed == "fsdp2"
    if sharded:
        check_sharding(config, method, world)
    adapter = load_adapter(config, reference=needs_reference(config, method), device=str(world.device))
    check_path(method, adapter.path)
    if isinstance(prepared.cache, LatentCache):
        adapter.check_prompts(prepared.cache.prompts([EMPTY_PROMPT]), where=prepared.cache.folder)
    if sharded:
        shard(adapter, world)
    drawing = Drawing(
        cache=_drawn_from(prepared, adapter),
        adapter=adapter,
        prompt_dropout=config.data.prompt_dropout,
        flip=config.data.flip,
        seed=config.train.seed,
    )
    source: PairSource | ImageSource | ListSource
    if isinstance(table, ListTable):
        source = ListSource(drawing=drawing, table=table)
    elif isinstance(table, ImageTable):
        ratio = 0.8 if config.data.desirable_share is None else config.data.desirable_share
        source = ImageSource(drawing=drawing, table=table, ratio=ratio)
    else:
        guidance = placing and method.inversion is not None and method.inversion.cfg != 1
        source = PairSource(drawing=drawing, table=table, guidance=guidance)
    return Run(
        config=config,
        method=method,
        adapter=adapter,
        source=source,
        world=world,
        out=out,
        identity=prepared.identity,
        base=prepared.base,
        draws=draws,
        inverts=placing,
        sharded=sharded,
        heldout=unseen_pairs(prepared.held_out, config, drawing, table),
        errors=_known(config, ERRORS, prepared.reference, draws=draws),
        trajectories=_known(config, NOISE, prepared.trajectories, draws=draws),
    )


def _drawn_from(prepared: Prepared, adapter: Denoiser) -> Latents:
    """The cache; where the text encoders are trained, its prompts as token ids."""
    if adapter.texts is None:
        return prepared.cache
    data = prepared.config.data
    texts = prompt_texts(data.paths, reading=data.reading(), wanted=prepared.table.prompt)
    return TokenLatents(prepared.cache, texts, adapter.texts.tokens)


def _known(config: RunConfig, content: Content, identity: str, *, draws: int) -> FrozenCache | None:
    folder = getattr(config.train, content.option)
    if folder is None:
        return None
    return open_frozen(folder, content, identity=identity, draws=config.train.max_steps * draws)


def check_run(out: Path, config: RunConfig, *, resume: Resume, verify: bool = False) -> None:
    """Refuse a folder of another run before anything is read for this one, as far as configs tell.

    Raises:
        InputError: it holds an unfinished run, or a finished one of another length, that is not resumed, one of another
            config, or nothing that could be resumed or verified.
    """
    if not (out / CONFIG).is_file():
        if resume is True and not is_finished(out):
            remedy = "leave out --resume, or write --resume auto, which starts where nothing is there"
            raise InputError("there is no run to go on with", where=out, remedy=remedy)
        if verify and resume != "auto" and not is_finished(out):
            raise InputError("there is no run to verify", where=out, remedy="leave out --verify to train one")
        return
    found = changed(written_settings(_config_of(out)), settings(config))
    if is_finished(out):
        if found:
            raise InputError(f"it holds a finished run of another config ({_few(found)})", where=out, remedy=OTHER)
        _check_length(out, read_run(out).steps, config, resume=resume)
    elif not resume:
        remedy = "resume it, or overwrite it to start again"
        raise InputError("it holds an unfinished run", where=out, remedy=remedy)
    if resume and found:
        _refuse(out, found)


def _check_length(out: Path, steps: int, config: RunConfig, *, resume: Resume) -> None:
    """Refuse a finished run of more steps than are asked for, and one of fewer that is not resumed."""
    wanted = config.train.max_steps
    if is_finished(out) and _ended_early(out) and steps <= wanted:
        return  # which its settings decided
    if steps > wanted or (steps < wanted and not resume):
        more = f"add --resume to go on to {wanted}" if steps < wanted else f"what it was then is {out}@STEP, if kept"
        raise InputError(f"it holds a finished run of {steps} steps, not {wanted}", where=out, remedy=more)


def _ended_early(out: Path) -> bool:
    """Whether held-out pairs ended a finished run before its last step."""
    record = read_run(out)
    return record.kept is not None and record.steps < _config_of(out).train.max_steps


def _finished(out: Path, prepared: Prepared, *, resume: Resume) -> bool:
    """Whether the run is done; refuses a folder that holds something else, and a checkpoint of another run."""
    if is_finished(out):
        record = read_run(out)
        if record.decides is not None and (found := differences(record.decides, prepared.identity)):
            raise InputError(f"it holds a finished run of {_few(found)}", where=out, remedy=OTHER)
        then = (record.signals.sha256, record.base_sha256, record.init_sha256)
        now = (prepared.table.about.sha256, prepared.base.base_sha256, prepared.base.init_sha256)
        if record.decides is None and then != now:  # of a version before
            raise InputError("it holds a finished run of another signal, base or start", where=out, remedy=OTHER)
        if record.steps == prepared.config.train.max_steps or _ended_early(out):
            return True
    last = newest_whole(out) if resume else None
    if last is not None:
        held = read_state(last)
        if held.decides is None:
            say(f"{last} is of a version before; its base, data and signal cannot be compared, its config was")
        elif found := differences(held.decides, prepared.identity):
            _refuse(out, found)
        if (done := held.counters.step) > (wanted := prepared.config.train.max_steps):
            what = f"it has {done} steps already, and train.max_steps is {wanted}"
            raise InputError(what, where=last, remedy="raise train.max_steps, or train into another folder")
    return False


def _refuse(out: Path, found: Sequence[str]) -> NoReturn:
    """Refuse to go on from a checkpoint of another run."""
    remedy = "set them as they were, or train into another folder"
    if found[0].startswith("train.max_steps"):
        remedy = "under its train.lr_scheduler the rate of every step depends on it: keep it, or train a run of a "
        remedy += "constant rate (train.lr_scheduler=constant), which can be made longer, into another folder"
    raise InputError(f"it was trained with other settings ({_few(found)})", where=out, remedy=remedy)


def _config_of(out: Path) -> RunConfig:
    """The config that a run folder holds.

    Raises:
        InputError: it is not one that can be read here.
    """
    try:
        return load_config(out / CONFIG)
    except ConfigError as error:
        raise InputError(f"its {CONFIG} cannot be read here ({error})", where=out, remedy=OTHER) from None


def _few(found: Sequence[str]) -> str:
    return ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")


def _finish(run: Run, state: State) -> None:
    if state.average is not None:
        with torch.no_grad():
            for name, parameter in state.named:
                parameter.copy_(state.average[name])
    run.adapter.train_mode(False)
    kept = kept_step(run, now=state.step)
    if kept is not None:
        put_kept(run, state, kept)
        why = "the last that held-out pairs find sound" if kept else "held-out pairs do not speak for a later one"
        say(f"the weights of step {kept} of {state.step} are kept: {why}")
    weights = whole_tensors(dict(state.named), keep=run.world.main) if run.sharded else None
    if run.world.main:
        mark(run.out, RUN_FOLDER, hashed=())  # a kill leaves no hashes of what was there before
        leaving(run, state, weights, kept=kept)(run.out)
        mark(run.out, RUN_FOLDER, fingerprint=run.identity.sha256(), hashed=own_files(run.out, LEFT))
