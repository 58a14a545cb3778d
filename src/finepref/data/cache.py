"""Making a latent cache: every image and every prompt encoded once, resumable at every shard.

    pairs -> bytes -> sha256 -> decode (threads) -> VAE -> shard       quarantine.jsonl: pairs with a bad image
          -> prompt -> text encoders -> shard

Several processes share the work by content hash; the last to finish writes the index.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from finepref.data.building import IMAGES, PROMPTS, Builder, CacheSettings
from finepref.data.latents import check_same
from finepref.data.readers import read_preferences
from finepref.data.rows import tables
from finepref.data.schema import Preference, Quarantined
from finepref.data.shards import read_index
from finepref.errors import ConfigError, InputError
from finepref.files import read_json, write_json, write_parquet, write_text
from finepref.models.protocol import Encoder
from finepref.progress import progress, say
from finepref.provenance import hash_config, provenance

OWN = ("images", "prompts", "images.parquet", "prompts.parquet", "pairs.parquet", "quarantine.jsonl", "cache.json")


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """What a cache holds and what this call did. complete is False while other processes are still at work."""

    folder: str
    pairs: int
    images: int
    prompts: int
    quarantined: int
    encoded_images: int
    encoded_prompts: int
    complete: bool


def build_cache(
    preferences: Iterable[Preference],
    encoder: Encoder,
    out: str | Path,
    *,
    settings: CacheSettings | None = None,
    rejected: Sequence[Quarantined] = (),
    rank: int = 0,
    world: int = 1,
    stamp: str = "",
    overwrite: bool = False,
    total: int | None = None,
) -> CacheSummary:
    """Encode every image and prompt of the preferences into `out`; what is there already is not encoded again.

    Args:
        rejected: rows that the reader drops while it is read (the list given to `read_preferences`).
        rank, world: this process and how many; images and prompts are shared out by their hash.
        stamp: names the input; a finished cache with the same stamp is returned as it is, without reading.
        overwrite: start again.
        total: number of preferences, for the progress bar.

    Returns:
        counts; with several processes complete only for the last one.

    Raises:
        InputError: a cache made for another model, resolution or setting is there; no pair is usable.
    """
    settings = settings or CacheSettings()
    folder = Path(out)
    shaping = shaping_of(encoder, settings)
    if overwrite:
        if world > 1:
            raise ConfigError("--overwrite with several processes", where=folder, remedy="remove the folder first")
        _clear(folder)
    meta = read_json(folder / "cache.json") if (folder / "cache.json").is_file() else {}
    if meta:
        check_same(meta, shaping, where=folder)
        if meta.get("complete") and stamp and meta.get("stamp") == stamp:
            return CacheSummary(**{**meta["summary"], "encoded_images": 0, "encoded_prompts": 0})
    else:
        write_json(folder / "cache.json", {**shaping, "complete": False})
    build = Builder(folder, encoder, settings, rank=rank, world=world)
    with ThreadPoolExecutor(max_workers=settings.workers or min(8, os.cpu_count() or 1)) as pool:
        build.add_prompt("")
        what = "cache" if world == 1 else f"cache {rank}/{world}"
        for preference in progress(preferences, what, total=total, unit="pair"):
            build.add(preference, pool, row=build.rows + len(rejected))
        build.finish()
    return _merge(build, list(rejected), shaping, stamp=stamp)


def cache_from(
    paths: str | Path | Sequence[str | Path],
    encoder: Encoder,
    out: str | Path,
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    settings: CacheSettings | None = None,
    rank: int = 0,
    world: int = 1,
    overwrite: bool = False,
) -> CacheSummary:
    """Read preferences and build their cache; a finished cache of the same unchanged parquet files is left as it is.

    Args:
        paths, format, columns: see `readers.read_preferences`.

    Raises:
        InputError: the data cannot be read, or the cache is of something else (see `build_cache`).
    """
    rejected: list[Quarantined] = []
    return build_cache(
        read_preferences(paths, format=format, columns=columns, quarantine=rejected),
        encoder,
        out,
        settings=settings,
        rejected=rejected,
        rank=rank,
        world=world,
        stamp=stamp_of(paths, format=format, columns=columns),
        overwrite=overwrite,
    )


def stamp_of(
    paths: str | Path | Sequence[str | Path], *, format: str = "auto", columns: Mapping[str, str] | None = None
) -> str:
    """A name for tables that hold their images, from the version of each; empty where images are files."""
    versions = [table.version for table in tables(paths)]
    if not all(versions):
        return ""
    first = next(iter(read_preferences(paths, format=format, columns=columns, quarantine=[])))
    if first.image_0.data is None or first.image_1.data is None:
        return ""
    return hash_config({"format": format, "columns": dict(columns or {}), "tables": versions})


def shaping_of(encoder: Encoder, settings: CacheSettings) -> dict[str, Any]:
    """Everything that shapes the stored numbers; two caches with equal shaping are interchangeable."""
    return {
        "fingerprint": dict(encoder.fingerprint()),
        "resolution": encoder.resolution,
        "crop": "short side bilinear, centre",
        "dtype": settings.dtype,
        "flips": settings.flips,
        "posterior": settings.posterior,
    }


def _clear(folder: Path) -> None:
    for name in OWN:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _merge(build: Builder, rejected: list[Quarantined], shaping: dict[str, Any], *, stamp: str) -> CacheSummary:
    """Write the index once every process is done; the last one does it, and twice does no harm."""
    folder, world = build.folder, build.world
    token = hash_config({"shaping": shaping, "world": world, "stamp": stamp, "pairs": len(build.pairs)})[:8]
    done = [folder / f"done-{token}-{rank}.json" for rank in range(world)]
    if world > 1:
        write_json(done[build.rank], {"bad_images": build.bad_images})
        if not all(file.is_file() for file in done):
            return _summary(build, pairs=0, quarantined=0, images=0, prompts=0, complete=False)
        for file in done:
            build.bad_images |= read_json(file)["bad_images"]
    bad = build.bad_pairs + rejected
    good: list[tuple[int, str, str, str, str]] = []
    for pair in build.pairs:
        reasons = [f"image_{i}: {build.bad_images[sha]}" for i, sha in enumerate(pair[3:]) if sha in build.bad_images]
        if reasons:
            bad.append(Quarantined(row=pair[0], pair_id=pair[1], reason="; ".join(reasons)))
        else:
            good.append(pair)
    bad.sort(key=lambda each: each.row)
    write_text(folder / "quarantine.jsonl", "".join(json.dumps(asdict(each)) + "\n" for each in bad))
    if not good:
        raise InputError("no pair is usable", where=folder / "quarantine.jsonl", remedy="the reasons are in that file")
    held = _write_index(folder, good)
    summary = _summary(build, pairs=len(good), quarantined=len(bad), **held, complete=True)
    record = {**shaping, "complete": True, "stamp": stamp, "summary": asdict(summary), **provenance()}
    write_json(folder / "cache.json", record)
    for file in done:
        file.unlink(missing_ok=True)
    if bad:
        say(f"{len(bad)} pairs dropped for bad images or rows; see {folder / 'quarantine.jsonl'}")
    return summary


def _write_index(folder: Path, pairs: list[tuple[int, str, str, str, str]]) -> dict[str, int]:
    """images.parquet, prompts.parquet and pairs.parquet; how many images and prompts there are."""
    held: dict[str, int] = {}
    for kind, schema, keys in (("images", IMAGES, ("image_sha256", "flip")), ("prompts", PROMPTS, ("prompt_sha256",))):
        table = read_index(folder / kind, schema)
        identities = list(zip(*(table[key].to_pylist() for key in keys), strict=True))
        first = {identity: row for row, identity in reversed(list(enumerate(identities)))}
        held[kind] = len({identity[0] for identity in identities})
        write_parquet(folder / f"{kind}.parquet", table.take(pa.array(sorted(first.values()), pa.int64())))
    columns = list(zip(*pairs, strict=True))
    names = ("pair_id", "prompt_sha256", "image_0", "image_1")
    table = pa.table({name: pa.array(columns[1 + i], pa.string()) for i, name in enumerate(names)})
    write_parquet(folder / "pairs.parquet", table)
    return held


def _summary(
    build: Builder, *, pairs: int, quarantined: int, images: int, prompts: int, complete: bool
) -> CacheSummary:
    return CacheSummary(
        folder=str(build.folder),
        pairs=pairs,
        images=images,
        prompts=prompts,
        quarantined=quarantined,
        encoded_images=build.encoded_images,
        encoded_prompts=build.encoded_prompts,
        complete=complete,
    )
