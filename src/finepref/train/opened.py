"""What a config names, opened: the base model's networks, and the cache of its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finepref.core.errors import ConfigError
from finepref.core.provenance import sha256_folder
from finepref.data.building import CacheSettings
from finepref.data.cache import CacheSummary, cache_from, shaping_of
from finepref.data.latents import LatentCache, Latents
from finepref.data.uncached import OnlineLatents
from finepref.formats.cache import CACHE
from finepref.models import load
from finepref.models.denoiser import Denoiser
from finepref.models.encoder import LatentEncoder
from finepref.models.family import family_of
from finepref.models.run_folder import pipeline_sha256
from finepref.models.source import locate
from finepref.models.start import check_start, start_sha256
from finepref.models.text_encoders import check_trainable
from finepref.train.config import RunConfig
from finepref.train.processes import World


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecord:
    """What run.json says of the base: name as given, family, revision, hashes of its weights and of `init_from`'s.

    base_sha256: of all of its folder, by which a run goes on. base_content: hash of what is read of it.
    """

    base: str
    revision: str | None
    family: str
    base_sha256: str
    base_content: str
    init_sha256: str | None


def about_base(config: RunConfig) -> BaseRecord:
    """The base of a run, and what it starts from, checked against each other before anything is made of the data.

    Raises:
        InputError: a model out of reach or of no known family, or a start that does not fit the base.
        ConfigError: a LoRA of another rank, alpha or targets than the run asks for.
    """
    section = config.model
    source = locate(section.base, **section.said())
    kind = family_of(source, section.family)
    if config.lora is not None and config.lora.text_encoder:
        check_trainable(source, kind)
    if section.init_from is not None:
        check_start(source, kind, section.init_from, config.lora)
    return BaseRecord(
        base=section.base,
        revision=section.revision,
        family=kind.name,
        base_sha256=sha256_folder(source.folder),
        base_content=pipeline_sha256(source),
        init_sha256=None if section.init_from is None else start_sha256(section.init_from, kind.part, source),
    )


def load_encoder(config: RunConfig, *, device: str) -> LatentEncoder:
    """The VAE and text encoders that a run's cache is made with."""
    model = config.model.model_dump(exclude={"init_from", "micro_conditioning", "quantize"})
    shape, cache = config.data.model_dump(include={"resolution", "buckets"}), config.cache
    return LatentEncoder(**model, **shape, device=device, mixed_precision=cache.mixed_precision, offload=cache.offload)


def load_adapter(config: RunConfig, *, reference: bool, device: str) -> Denoiser:
    """The denoiser that a run trains, with its frozen reference where one is needed."""
    taken = {"mixed_precision", "gradient_checkpointing", "channels_last", "compile", "seed"}
    return load.load_adapter(
        **config.model.model_dump(),
        **config.train.model_dump(include=taken),
        lora=config.lora,
        reference=reference,
        device=device,
        sharded=config.train.distributed == "fsdp2",
        moving=config.train.reference.moves,
        from_base=config.train.reference.kind == "base",
    )


def cache_folder(config: RunConfig, out: Path | None = None) -> Path:
    """Where a run's cache is: `cache.folder`, else `cache/` in the run folder."""
    return Path(config.cache.folder) if config.cache.folder is not None else (out or Path()) / "cache"


def make_cache(
    config: RunConfig, folder: Path, *, world: World, recheck: bool = False, overwrite: bool = False
) -> CacheSummary:
    """Encode a run's data into its cache; what is there already is not encoded again.

    Args:
        recheck: read images that are files again although the tables did not change.

    Raises:
        ConfigError: the config names no data. InputError: the cache was made for something else, or no pair is usable.
    """
    if config.cache.online:
        raise ConfigError("online encoding keeps nothing", where="cache.online", remedy="set it to false")
    return cache_from(
        _named(config),
        load_encoder(config, device=str(world.device)),
        folder,
        reading=config.data.reading(),
        settings=_cache_settings(config),
        recheck=recheck,
        overwrite=overwrite,
    )


def open_latents(config: RunConfig, out: Path, *, world: World) -> Latents:
    """The cache of a run, made first where it is missing or unfinished; with `cache.online` what encodes its data.

    Raises:
        ConfigError: the config names no data. InputError: it was made for another model, resolution or setting.
    """
    folder, device = cache_folder(config, out), str(world.device)
    if config.cache.online:
        if config.cache.folder is not None:
            remedy = "null, or cache.online=false"
            raise ConfigError("online encoding keeps nothing", where="cache.folder", remedy=remedy)
        return OnlineLatents(
            _named(config),
            load_encoder(config, device=device),
            reading=config.data.reading(),
            posterior=config.cache.posterior,
            batch_size=config.cache.batch_size,
        )
    if config.data.paths or not (folder / CACHE).is_file():
        make_cache(config, folder, world=world)
        world.barrier()
        return LatentCache(folder)
    cache = LatentCache(folder)
    cache.require(shaping_of(load_encoder(config, device=device), _cache_settings(config)))
    return cache


def _cache_settings(config: RunConfig) -> CacheSettings:
    section = config.cache.model_dump(include={"posterior", "dtype", "shard_size", "batch_size"})
    return CacheSettings(flips=config.data.flip, **section)


def _named(config: RunConfig) -> list[str]:
    if not config.data.paths:
        raise ConfigError("no preferences are named", where="data.paths", remedy="list files or folders")
    return [*config.data.paths, *config.validation.pairs]
