"""A run folder from its first file to its last: what is there already, what is trained, what it leaves."""

from __future__ import annotations

import platform
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from finepref import provenance
from finepref.data.latents import SHAPING, LatentCache
from finepref.errors import ConfigError, InputError
from finepref.files import read_json, write_json, write_text
from finepref.models.protocol import Adapter, parameter_count
from finepref.progress import say
from finepref.train.config import RunConfig
from finepref.train.log import make_trackers, read_lines
from finepref.train.loop import Run, State, train
from finepref.train.method import Method, check_path, make_method
from finepref.train.reference import load_reference
from finepref.train.source import Drawing, ImageSource, PairSource
from finepref.train.table import ImageTable, PairTable, image_table, pair_table
from finepref.train.world import World

# What may differ between a checkpoint and the run that goes on from it.
FREE = {
    ("validation",),
    ("log",),
    ("train", "checkpoint_every"),
    ("train", "checkpoints_keep"),
    ("train", "max_skipped"),
}


def train_run(
    config: RunConfig,
    out: Path,
    *,
    world: World,
    open_cache: Callable[[], LatentCache],
    load_adapter: Callable[[bool], Adapter],
    about_base: dict[str, Any],
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
    _check_images(config, method)
    if overwrite and world.main and out.exists():
        shutil.rmtree(out)
    world.barrier()
    cache = open_cache()
    table = _table(config, method, cache)
    held = cache_identity(cache)
    identity = run_identity(config, base=about_base, cache=held, signal=table.about["sha256"])
    if _finished(out, identity, resume=resume):
        say(f"{out} is finished already (--overwrite trains it again)")
        return out
    adapter = load_adapter(method.needs_reference and config.train.reference_cache is None)
    check_path(method, adapter.path)
    drawing = Drawing(cache=cache, adapter=adapter, prompt_dropout=config.data.prompt_dropout, flip=config.data.flip)
    draws = reference_identity(config, about_base, held, table)
    source = _source(config, method, drawing, table, identity=draws)
    if world.main:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "config.yaml", yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True))
        trainable = parameter_count(adapter.trainable())
        say(f"{config.objective.name} on {len(_rows(table))} rows, {trainable / 1e6:.2f} M trained parameters, {out}")
    world.barrier()
    trackers = make_trackers(config.log.trackers, out, config.as_dict()) if world.main else []
    run = Run(
        config=config,
        method=method,
        adapter=adapter,
        source=source,
        world=world,
        out=out,
        identity=identity,
        trackers=trackers,
    )
    state = train(run, resume=resume)
    for tracker in trackers:
        tracker.finish()
    if world.main:
        _finish(run, state, table=table, about_base=about_base)
    world.barrier()
    return out


def cache_identity(cache: LatentCache) -> str:
    """Hash of what a cache holds: everything that shaped its numbers, and its pairs."""
    shaping = {key: cache.meta.get(key) for key in SHAPING}
    return provenance.hash_config({**shaping, "pairs": provenance.sha256_file(cache.folder / "pairs.parquet")})


def run_identity(config: RunConfig, *, base: dict[str, Any], cache: str, signal: str) -> str:
    """Hash of everything that decides the weights: config (but for paths, logging, checkpoints), base, cache, signal."""
    settings = config.as_dict()
    for place in FREE:
        section = settings
        for part in place[:-1]:
            section = section[part]
        section.pop(place[-1])
    settings["cache"].pop("folder")
    settings["signal"].pop("file")
    settings["data"].pop("paths")
    settings["model"].pop("base")
    return provenance.hash_config({"config": settings, "base": base["base_sha256"], "cache": cache, "signal": signal})


def reference_identity(config: RunConfig, base: dict[str, Any], cache: str, table: PairTable | ImageTable) -> str:
    """Hash of everything that decides a reference error: reference, data, draws."""
    plan = {
        "base": base["base_sha256"],
        "init_from": config.model.init_from,
        "micro_conditioning": config.model.micro_conditioning,
        "cache": cache,
        "winners": getattr(table, "winner", ()),
        "seed": config.train.seed,
        "flip": config.data.flip,
        "prompt_dropout": config.data.prompt_dropout,
        "stratified_t": config.train.stratified_t and config.train.pairs_per_step,
        "mixed_precision": config.train.mixed_precision,
    }
    return provenance.hash_config(plan)


def _check_images(config: RunConfig, method: Method) -> None:
    if method.objective.needs.paired:
        if config.data.desirable_share is not None:
            raise ConfigError(
                f"objective {method.objective.name} takes pairs", where="data.desirable_share", remedy="null"
            )
    elif config.signal.file is None:
        raise ConfigError(
            f"objective {method.objective.name} needs image labels",
            where="signal.file",
            remedy="make them with `finepref signals --kind kto`",
        )


def _table(config: RunConfig, method: Method, cache: LatentCache) -> PairTable | ImageTable:
    if not method.objective.needs.paired:
        assert config.signal.file is not None
        return image_table(cache, signals=config.signal.file)
    return pair_table(
        cache,
        signals=config.signal.file,
        votes=config.data.paths,
        format=config.data.format,
        scale=config.signal.margin_scale,
    )


def _source(
    config: RunConfig, method: Method, drawing: Drawing, table: PairTable | ImageTable, *, identity: str
) -> PairSource | ImageSource:
    if isinstance(table, ImageTable):
        share = config.data.desirable_share
        return ImageSource(drawing=drawing, table=table, ratio=0.8 if share is None else share)
    folder = config.train.reference_cache
    reference = None if folder is None else load_reference(folder, identity=identity)
    guidance = method.inversion is not None and method.inversion.cfg != 1
    return PairSource(drawing=drawing, table=table, guidance=guidance, reference=reference)


def _rows(table: PairTable | ImageTable) -> tuple[str, ...]:
    return table.pair_id if isinstance(table, PairTable) else table.image_id


def _finished(out: Path, identity: str, *, resume: bool) -> bool:
    """Whether the run is done; refuses a folder that holds something else."""
    if (out / "run.json").is_file():
        if read_json(out / "run.json").get("identity") == identity:
            return True
        raise InputError(
            "it holds a finished run of another config or other data",
            where=out,
            remedy="choose another --out, or --overwrite to remove it",
        )
    if not resume and (out / "config.yaml").is_file():
        raise InputError(
            "it holds an unfinished run", where=out, remedy="go on with --resume, or --overwrite to start again"
        )
    return False


def _finish(run: Run, state: State, *, table: PairTable | ImageTable, about_base: dict[str, Any]) -> None:
    if state.average is not None:
        with torch.no_grad():
            for name, parameter in state.named:
                parameter.copy_(state.average[name])
    run.adapter.train_mode(False)
    run.adapter.save(run.out)
    config, method = run.config, run.method
    seconds = sum(line["seconds"] for line in read_lines(run.out / "timing.jsonl"))
    labelling = table.about.get("device_seconds") if table.about["rewards"] else 0.0  # None: not measured
    held = run.source.drawing.cache.meta["summary"]
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
            **about_base,
            "seed": config.train.seed,
            "config_hash": provenance.hash_config(config.as_dict()),
            "identity": run.identity,
            "signals": table.about,
            "steps": state.step,
            "skipped_steps": state.skipped,
            "pairs": state.step * config.train.pairs_per_step,
            "network_calls": {**state.calls, "vae": held["encoded_images"], "text": held["encoded_prompts"]},
            "device_seconds": {"training": seconds, "labelling": labelling, "processes": run.world.size},
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
