"""The composition root: names in configs and on the command line -> objects. It alone knows that there is a lab."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finepref.core.errors import ConfigError, InputError, nearest

if TYPE_CHECKING:
    from finepref.data.building import CacheSettings
    from finepref.data.cache import CacheSummary
    from finepref.data.latents import Latents
    from finepref.data.uncached import OnlineLatents
    from finepref.evaluate.scorers.scorer import Scorer
    from finepref.models.denoiser import Denoiser
    from finepref.models.encoder import LatentEncoder
    from finepref.models.protocol import Counts
    from finepref.plan.needs import Gpu, Plan
    from finepref.train.config import RunConfig
    from finepref.train.fill import FillSummary
    from finepref.train.processes import World

LAB_MODELS = {"lab": "base", "lab:early": "early"}
LAB_PROMPTS = {"lab-train": "train", "lab-eval": "eval"}
LAB_SCORERS = ("lab-reward", "lab-true")


def cache_home() -> Path:
    """Where generated models are kept: $FINEPREF_HOME, else finepref/ in the user's cache folder."""
    given = os.environ.get("FINEPREF_HOME")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finepref"


def resolve_base(name: str) -> str:
    """A model name as a folder or hub name that diffusers can load; `lab` and `lab:early` become folders.

    Raises:
        InputError: an unknown lab model.
    """
    if not (name == "lab" or name.startswith("lab:")):
        return name
    if name not in LAB_MODELS:
        raise InputError(f"unknown lab model {name!r}", remedy=nearest(name, LAB_MODELS))
    from finepref.lab import model

    variant = LAB_MODELS[name]
    folder = cache_home() / f"lab-{variant}-{model.fingerprint(variant)[:12]}"
    return str(model.materialise(folder, variant))


def load_pipeline(path: str, *, device: str | None = None) -> Any:
    """A plain diffusers pipeline: of a run folder (base + trained part), a diffusers folder, a hub name, or the lab."""
    from finepref.core.files import read_json
    from finepref.models import load

    place = device or default_device()
    if (Path(path) / "run.json").is_file():
        record = read_json(Path(path) / "run.json")
        base, revision = resolve_base(record["base"]), record.get("revision")
        return load.load_pipeline(base, run=path, revision=revision, family=record["family"], device=place)
    if Path(path).is_dir() and not (Path(path) / "model_index.json").is_file():
        raise InputError(
            "neither a finished run (run.json) nor a diffusers pipeline (model_index.json)",
            where=path,
            remedy="finish the run with `finepref train --resume`, or give a pipeline folder",
        )
    return load.load_pipeline(resolve_base(path), device=place)


def default_device() -> str:
    """cuda where there is one, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_encoder(config: RunConfig, *, device: str) -> LatentEncoder:
    """The VAE and text encoders that a run's cache is made with."""
    from finepref.models import load

    section = config.model
    return load.load_encoder(
        resolve_base(section.base),
        family=section.family,
        revision=section.revision,
        vae=section.vae,
        resolution=config.data.resolution,
        device=device,
        mixed_precision=config.cache.mixed_precision,
    )


def load_adapter(config: RunConfig, *, reference: bool, device: str) -> Denoiser:
    """The denoiser that a run trains, with its frozen reference."""
    from finepref.models import load
    from finepref.models.lora import LoraSettings

    section, options = config.model, config.train
    lora = None if config.lora is None else LoraSettings(**config.lora.model_dump())
    return load.load_adapter(
        resolve_base(section.base),
        family=section.family,
        revision=section.revision,
        vae=section.vae,
        init_from=section.init_from,
        reference=reference,
        lora=lora,
        mixed_precision=options.mixed_precision,
        gradient_checkpointing=options.gradient_checkpointing,
        channels_last=options.channels_last,
        compile=options.compile,
        device=device,
        resolution=config.data.resolution,
        micro_conditioning=section.micro_conditioning,
        seed=options.seed,
        sharded=options.distributed == "fsdp2",
    )


def prompt_set(name: str) -> Sequence[str]:
    """The prompts of a built-in set by name: `lab-train` (votes) or `lab-eval` (held out).

    Raises:
        InputError: an unknown name.
    """
    if name not in LAB_PROMPTS:
        raise InputError(f"unknown prompt set {name!r}", remedy=nearest(name, LAB_PROMPTS))
    from finepref.lab import world

    return world.prompts(LAB_PROMPTS[name])


def make_scorer(name: str, *, device: str | None = None) -> Scorer:
    """A scorer by name.

    Raises:
        InputError: unknown name, or its weights cannot be had.
    """
    if name in LAB_SCORERS:
        from finepref.lab import scorers

        return scorers.lab_reward() if name == "lab-reward" else scorers.lab_true()
    if name.startswith("lab-"):
        raise InputError(f"unknown scorer {name!r}", remedy=nearest(name, LAB_SCORERS))
    from finepref.evaluate.scorers import kinds as table

    return table.make(name, device=device or default_device())


def run_training(config: RunConfig, out: Path, *, resume: bool, overwrite: bool) -> Path:
    """Train by config into a run folder, on all processes that the launcher started; makes the cache where missing."""
    from finepref.train.processes import join_world
    from finepref.train.run import train_run

    with join_world() as world:
        device = str(world.device)
        return train_run(
            config,
            out,
            world=world,
            open_cache=lambda: open_cache(config, out, world=world),
            load_adapter=lambda reference: load_adapter(config, reference=reference, device=device),
            about_base=about_base(config),
            resume=resume,
            overwrite=overwrite,
        )


def fill_reference(config: RunConfig, *, overwrite: bool) -> FillSummary:
    """Fill `train.reference_cache` for a run, on all processes that were launched; makes the cache where missing.

    Raises:
        ConfigError: the run cannot use reference errors. InputError: the folder holds errors of something else.
    """
    from finepref.train.fill import fill

    return _filled(fill, config, overwrite=overwrite)


def fill_trajectories(config: RunConfig, *, overwrite: bool) -> FillSummary:
    """Fill `train.trajectory_cache` for a run, on all processes that were launched; makes the cache where missing.

    Raises:
        ConfigError: the reference does not invert. InputError: the folder holds inversions of something else.
    """
    from finepref.train import fill

    return _filled(fill.fill_trajectories, config, overwrite=overwrite)


def _filled(fill: Callable[..., FillSummary], config: RunConfig, *, overwrite: bool) -> FillSummary:
    from finepref.train.processes import join_world

    with join_world() as world:
        device = str(world.device)
        return fill(
            config,
            world=world,
            open_cache=lambda: open_cache(config, Path(), world=world),
            load_adapter=lambda reference: load_adapter(config, reference=reference, device=device),
            about_base=about_base(config),
            overwrite=overwrite,
        )


def plan_run(config: RunConfig, *, gpus: Sequence[Gpu], processes: int) -> Plan:
    """What a run will need: its networks counted from their configs, its data from their tables.

    Raises:
        InputError: config files out of reach. ConfigError: a combination that makes no sense.
    """
    from functools import lru_cache

    from finepref.models.family import family_of
    from finepref.models.lora import LoraSettings
    from finepref.plan.fit import make_plan
    from finepref.plan.skeleton import config_source, count
    from finepref.train.method import check_path, make_method
    from finepref.train.prepare import check_data

    method = make_method(config)
    check_data(config, method)
    source = config_source(resolve_base(config.model.base), revision=config.model.revision)

    @lru_cache
    def counted(lora: str, checkpointing: bool | Literal["selective"], precision: str) -> tuple[Counts, Any]:
        given = json.loads(lora)
        return count(
            source.folder,
            family=config.model.family,
            vae=config.model.vae,
            lora=None if given is None else LoraSettings(**given),
            gradient_checkpointing=checkpointing,
            mixed_precision=precision,
            resolution=config.data.resolution,
        )

    def under(changed: RunConfig) -> tuple[Counts, Any]:
        lora = None if changed.lora is None else changed.lora.model_dump()
        return counted(json.dumps(lora), changed.train.gradient_checkpointing, changed.train.mixed_precision)

    path = under(config)[1]
    check_path(method, path)
    return make_plan(
        config,
        method,
        family=family_of(source, config.model.family).name,
        path=path,
        count=lambda changed: under(changed)[0],
        sizes=data_sizes(config),
        processes=processes,
        gpus=gpus,
    )


def data_sizes(config: RunConfig) -> tuple[int, int, int]:
    """(images, prompts, pairs) of a run at most: what its cache holds, else rows of the data, else its draws."""
    from finepref.core.files import read_json
    from finepref.formats.sources import count_rows

    made = cache_folder(config) / "cache.json"
    if config.cache.folder is not None and made.is_file() and read_json(made).get("complete"):
        summary = read_json(made)["summary"]
        return summary["images"], summary["prompts"], summary["pairs"]
    draws = config.train.max_steps * config.train.pairs_per_step
    rows = count_rows(config.data.paths) if config.data.paths else None
    pairs = draws if rows is None else rows
    return 2 * pairs, pairs, pairs


def about_base(config: RunConfig) -> dict[str, Any]:
    """What run.json says of the base: name as given, family, revision, hashes of its weights and of `init_from`'s."""
    from finepref.core.provenance import sha256_folder
    from finepref.models.family import family_of
    from finepref.models.load import start_sha256
    from finepref.models.source import locate

    section = config.model
    source = locate(resolve_base(section.base), revision=section.revision)
    kind = family_of(source, section.family)
    return {
        "base": section.base,
        "revision": section.revision,
        "family": kind.name,
        "base_sha256": sha256_folder(source.folder),
        "init_sha256": None if section.init_from is None else start_sha256(section.init_from, kind.part),
    }


def cache_folder(config: RunConfig, out: Path | None = None) -> Path:
    """Where a run's cache is: `cache.folder`, else `cache/` in the run folder."""
    if config.cache.folder is not None:
        return Path(config.cache.folder)
    return (out or Path()) / "cache"


def make_cache(
    config: RunConfig,
    folder: Path,
    *,
    rank: int = 0,
    size: int = 1,
    device: str,
    recheck: bool = False,
    overwrite: bool = False,
) -> CacheSummary:
    """Encode a run's data into its cache; what is there already is not encoded again.

    Args:
        recheck: read images that are files again although the tables did not change.

    Raises:
        ConfigError: the config names no data. InputError: the cache was made for something else, or no pair is usable.
    """
    from finepref.data.cache import cache_from

    if config.cache.online:
        raise ConfigError("online encoding keeps nothing", where="cache.online", remedy="set it to false")
    return cache_from(
        _named(config),
        load_encoder(config, device=device),
        folder,
        format=config.data.format,
        columns=config.data.columns,
        settings=cache_settings(config),
        rank=rank,
        world=size,
        recheck=recheck,
        overwrite=overwrite,
    )


def cache_settings(config: RunConfig) -> CacheSettings:
    """How a run's cache is written."""
    from finepref.data.building import CacheSettings

    section = config.cache.model_dump(include={"posterior", "dtype", "shard_size", "batch_size"})
    return CacheSettings(flips=config.data.flip, **section)


def encode_online(config: RunConfig, *, device: str) -> OnlineLatents:
    """A run's data, encoded whenever it is drawn.

    Raises:
        ConfigError: the config names no data, or a cache folder. InputError: no pair is usable.
    """
    from finepref.data.uncached import online_from

    data, section = config.data, config.cache
    if section.folder is not None:
        raise ConfigError("online encoding keeps nothing", where="cache.folder", remedy="null, or cache.online=false")
    return online_from(
        _named(config),
        load_encoder(config, device=device),
        format=data.format,
        columns=data.columns,
        posterior=section.posterior,
        batch_size=section.batch_size,
    )


def _named(config: RunConfig) -> Sequence[str]:
    """`data.paths`, of which there must be some."""

    if not config.data.paths:
        raise ConfigError("no preferences are named", where="data.paths", remedy="list files or folders")
    return config.data.paths


def open_cache(config: RunConfig, out: Path, *, world: World) -> Latents:
    """The cache of a run, made first where it is missing or unfinished; with `cache.online` what encodes its data.

    Raises:
        InputError: it was made for another model, resolution or setting, or there is no data to make it from.
    """
    from finepref.data.cache import shaping_of
    from finepref.data.latents import LatentCache

    folder, device = cache_folder(config, out), str(world.device)
    if config.cache.online:
        return encode_online(config, device=device)
    if config.data.paths or not (folder / "cache.json").is_file():
        make_cache(config, folder, rank=world.rank, size=world.size, device=device)
        world.barrier()
        return LatentCache(folder)
    cache = LatentCache(folder)
    cache.require(**shaping_of(load_encoder(config, device=device), cache_settings(config)))
    return cache
