"""A run folder from its first file to its last: what is there already, what is trained, what it leaves."""

from __future__ import annotations

import platform
import resource
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from finepref.core import provenance
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import read_json, write_json, write_text
from finepref.core.progress import say
from finepref.data.latents import Latents
from finepref.models.protocol import Adapter, parameter_count
from finepref.train.checkpoint import checkpoints
from finepref.train.config import RunConfig
from finepref.train.log import flat, make_trackers, read_lines
from finepref.train.loop import Run, State, train
from finepref.train.method import check_path, draws_per_step, make_method, needs_reference
from finepref.train.prepare import Prepared, check_data, free, make_source, prepare
from finepref.train.processes import World
from finepref.train.shard import check_sharding, shard, whole_tensors
from finepref.train.source import PairSource


def train_run(
    config: RunConfig,
    out: Path,
    *,
    world: World,
    open_cache: Callable[[], Latents],
    load_adapter: Callable[[bool], Adapter],
    about_base: Mapping[str, Any],
    resume: bool,
    overwrite: bool,
) -> Path:
    """Train by config into `out`; returns `out`.

    Args:
        open_cache: makes the cache where it is missing and opens it.
        load_adapter: the denoiser, with a reference or without.
        about_base: what run.json says of the base model (base, base_sha256, family, revision).

    Raises:
        ConfigError: a combination that makes no sense. InputError: files that do not fit, or a folder in use.
    """
    method = make_method(config)
    check_data(config, method)
    if overwrite and world.main:
        _clear(out)
    world.barrier()
    prepared = prepare(config, cache=open_cache(), base=about_base)
    if _finished(out, prepared, resume=resume):
        say(f"{out} is finished already (--overwrite trains it again)")
        return out
    world.barrier()  # nothing is written before every process has looked
    run = make_run(prepared, out, world=world, load_adapter=load_adapter)
    if world.main:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "config.yaml", yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True))
        trainable = parameter_count(run.adapter.trainable())
        processes = "1 process" if world.size == 1 else f"{world.size} processes"
        what = f"{len(prepared.rows)} rows, {trainable / 1e6:.2f} M trained parameters, {processes}"
        say(f"{config.objective.name} on {what}, {out}")
        run = replace(run, trackers=make_trackers(config.log.trackers, out, config.as_dict()))
    world.barrier()
    state = train(run, resume=resume)
    for tracker in run.trackers:
        tracker.finish()
    _finish(run, state, prepared=prepared)
    world.barrier()
    return out


def make_run(prepared: Prepared, out: Path, *, world: World, load_adapter: Callable[[bool], Adapter]) -> Run:
    """Load the networks of a prepared config; the run is ready for its first step.

    Raises:
        ConfigError: a trajectory that the model's noise path cannot do. InputError: a model or reference cache that
            cannot be used.
    """
    config, method = prepared.config, prepared.method
    sharded = config.train.distributed == "fsdp2"
    draws = draws_per_step(config, method)
    if draws < world.size:
        raise ConfigError(
            f"{world.size} processes cannot share {draws} draws a step",
            where="train.pairs_per_step",
            remedy="raise it, or start fewer processes",
        )
    if sharded:
        check_sharding(config, method, world)
    adapter = load_adapter(needs_reference(config, method))
    check_path(method, adapter.path)
    if sharded:
        shard(adapter, world)
    return Run(
        config=config,
        method=method,
        adapter=adapter,
        source=make_source(prepared, adapter),
        world=world,
        out=out,
        identity=prepared.identity,
    )


def _clear(out: Path) -> None:
    """Remove a run, all but its latent cache, which checks itself against what the next run needs.

    Raises:
        InputError: the folder holds something that is not a run.
    """
    held = {entry.name: entry for entry in out.iterdir()} if out.is_dir() else {}
    if not {*held} <= {"cache"} and not {"config.yaml", "run.json"} & {*held}:
        raise InputError("it is not a run folder, so it is not removed", where=out, remedy="choose another --out")
    for name, entry in held.items():
        if name == "cache":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _finished(out: Path, prepared: Prepared, *, resume: bool) -> bool:
    """Whether the run is done; refuses a folder that holds something else."""
    if (out / "run.json").is_file():
        if read_json(out / "run.json").get("identity") == prepared.identity:
            return True
        raise InputError(
            f"it holds a finished run of {_difference(out, prepared.config)}",
            where=out,
            remedy="choose another --out, or --overwrite to remove it",
        )
    if not resume and (out / "config.yaml").is_file():
        raise InputError(
            "it holds an unfinished run", where=out, remedy="go on with --resume, or --overwrite to start again"
        )
    last = checkpoints(out)[-1:] if resume else []
    if last and read_json(last[0] / "state.json")["identity"] != prepared.identity:
        raise InputError(
            f"its last checkpoint was written with {_difference(out, prepared.config)}",
            where=out,
            remedy="resume with the config.yaml in it, or train into another folder",
        )
    return False


def _difference(out: Path, config: RunConfig) -> str:
    """What makes a run in a folder another one, as far as its config tells."""
    file = out / "config.yaml"
    held = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    old = dict(flat(held)) if isinstance(held, dict) else {}
    new = dict(flat(config.as_dict()))
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and not free(key)]
    if not changed:
        return "other data, another signal or another base"
    shown = ", ".join(f"{key} {old.get(key)}, now {new.get(key)}" for key in changed[:3])
    return f"another config ({shown}{', ...' if len(changed) > 3 else ''})"


def _finish(run: Run, state: State, *, prepared: Prepared) -> None:
    if state.average is not None:
        with torch.no_grad():
            for name, parameter in state.named:
                parameter.copy_(state.average[name])
    run.adapter.train_mode(False)
    weights = whole_tensors(dict(state.named), keep=run.world.main) if run.sharded else None
    if not run.world.main:
        return
    run.adapter.save(run.out, weights)
    config, method, table = run.config, run.method, prepared.table
    pairs = run.source if isinstance(run.source, PairSource) else None
    errors, points = (None, None) if pairs is None else (pairs.reference, pairs.trajectories)
    seconds = {
        "training": run.world.size * sum(line["seconds"] for line in read_lines(run.out / "timing.jsonl")),
        "labelling": table.about.get("device_seconds") if table.about["rewards"] else 0.0,  # None: not measured
        "reference_cache": 0.0 if errors is None else errors.device_seconds,
        "trajectory_cache": 0.0 if points is None else points.device_seconds,
    }
    measured = [value for value in seconds.values() if value is not None]
    write_json(
        run.out / "run.json",
        {
            "method": run.out.name,
            "axes": {
                "signal": table.about["kind"],
                "trajectory": method.trajectory.name,
                "objective": method.objective.name,
                "guard": config.guard.name,
            },
            **prepared.base,
            "seed": config.train.seed,
            "config_hash": provenance.hash_config(config.as_dict()),
            "identity": run.identity,
            "signals": table.about,
            "steps": state.step,
            "skipped_steps": state.skipped,
            "pairs": state.step * config.train.pairs_per_step,
            "network_calls": {**state.calls, **run.source.drawing.cache.calls()},
            "device_seconds": sum(measured) if len(measured) == len(seconds) else None,
            "device_seconds_by": seconds,
            "processes": run.world.size,
            "device": _device_name(run.world.device),
            "peak_memory_mb": _peak_memory_mb(run.world.device),
            **provenance.provenance(seed=config.train.seed),
        },
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
