"""Making a latent cache: every image and every prompt encoded once, resumable at every shard.

    pairs -> bytes -> sha256 -> decode (threads) -> VAE -> shard       quarantine.jsonl: pairs with a bad image
          -> prompt -> text encoders -> shard

Several processes share the work by content hash; the last to finish writes the index. A finished cache of unchanged
tables is returned as it is, once its shards are seen to be whole.
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

from finepref.core.errors import ConfigError, InputError
from finepref.core.files import read_json, read_parquet, write_json, write_parquet, write_text
from finepref.core.progress import progress, say
from finepref.core.provenance import hash_config, provenance
from finepref.data.building import IMAGES, PROMPTS, Builder, CacheSettings, Row
from finepref.data.latents import check_same
from finepref.data.shards import read_index, shard_names
from finepref.formats.preferences import Preference, Quarantined, read_preferences
from finepref.formats.sources import versions
from finepref.models.protocol import Encoder

OWN = ("images", "prompts", "images.parquet", "prompts.parquet", "pairs.parquet", "quarantine.jsonl", "cache.json")


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """What a cache holds and what was done now. complete: this process found the cache finished, or finished it.

    encoded_*: by all processes where complete, else by this one. Where every process finds it finished, rank 0 alone
    says complete.
    """

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
    recheck: bool = False,
    overwrite: bool = False,
    total: int | None = None,
) -> CacheSummary:
    """Encode every image and prompt of the preferences into `out`; what is there already is not encoded again.

    Args:
        rejected: rows that the reader drops while it is read (the list given to `read_preferences`).
        rank, world: this process and how many; images and prompts are shared out by their hash.
        stamp: names the input; a finished cache with the same stamp is returned as it is, without reading.
        recheck: read the images again all the same, where any is a file of its own.
        overwrite: start again.
        total: number of preferences, for the progress bar.

    Returns:
        counts; with several processes complete for one of them.

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
        known = stamp and meta.get("complete") and meta.get("stamp") == stamp
        if known and not (recheck and meta.get("files")) and _is_whole(folder):
            return _found(folder, meta["summary"], complete=rank == 0)
    else:
        write_json(folder / "cache.json", {**shaping, "complete": False})
    for old in folder.glob(f"done-*-{rank}.json"):  # of a run that was killed; the others would take it for this one's
        old.unlink()
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
    recheck: bool = False,
    overwrite: bool = False,
) -> CacheSummary:
    """Read preferences and build their cache; a finished cache of the same unchanged tables is left as it is.

    Args:
        paths, format, columns: see `formats.preferences.read_preferences`. recheck: see `build_cache`.

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
        recheck=recheck,
        overwrite=overwrite,
    )


def stamp_of(
    paths: str | Path | Sequence[str | Path], *, format: str = "auto", columns: Mapping[str, str] | None = None
) -> str:
    """A name for tables as they are now, from the version of each; images that are files of their own are not in it."""
    return hash_config({"format": format, "columns": dict(columns or {}), "tables": versions(paths)})


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
    for path in [*(folder / name for name in OWN), *folder.glob("done-*.json")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_whole(folder: Path) -> bool:
    """Whether every shard that the index names is there and whole."""
    for kind in ("images", "prompts"):
        index = folder / f"{kind}.parquet"
        if not index.is_file() or not {*read_parquet(index, ["shard"])["shard"].to_pylist()} <= {
            *shard_names(folder / kind)
        }:
            return False
    return (folder / "pairs.parquet").is_file()


def _merge(build: Builder, rejected: list[Quarantined], shaping: dict[str, Any], *, stamp: str) -> CacheSummary:
    """Write the index once every process is done; the last one does it."""
    folder = build.folder
    token = hash_config({"shaping": shaping, "world": build.world, "stamp": stamp, "pairs": len(build.pairs)})[:8]
    own = {"bad_images": build.bad_images, "images": build.encoded_images, "prompts": build.encoded_prompts}
    done = _all_done(build, [folder / f"done-{token}-{rank}.json" for rank in range(build.world)], own)
    if not done:
        held = dict.fromkeys(("pairs", "images", "prompts", "quarantined"), 0)
        encoded = {"encoded_images": build.encoded_images, "encoded_prompts": build.encoded_prompts}
        return CacheSummary(folder=str(folder), **held, **encoded, complete=False)
    bad_images = {sha: reason for each in done for sha, reason in each["bad_images"].items()}
    bad = build.bad_pairs + rejected
    good: list[Row] = []
    for pair in build.pairs:
        shas = (pair.image_0, pair.image_1)
        reasons = [f"image_{i}: {bad_images[sha]}" for i, sha in enumerate(shas) if sha in bad_images]
        if reasons:
            bad.append(Quarantined(row=pair.row, pair_id=pair.pair_id, reason="; ".join(reasons)))
        else:
            good.append(pair)
    bad.sort(key=lambda each: each.row)
    write_text(folder / "quarantine.jsonl", "".join(json.dumps(asdict(each)) + "\n" for each in bad))
    if not good:
        raise InputError("no pair is usable", where=folder / "quarantine.jsonl", remedy="the reasons are in that file")
    counts = {"pairs": len(good), **_write_index(folder, good), "quarantined": len(bad)}
    record = {**shaping, "complete": True, "stamp": stamp, "files": build.files, "summary": counts, **provenance()}
    write_json(folder / "cache.json", record)
    if bad:
        say(f"{len(bad)} pairs dropped for bad images or rows; see {folder / 'quarantine.jsonl'}")
    encoded = {f"encoded_{kind}": sum(each[kind] for each in done) for kind in ("images", "prompts")}
    return CacheSummary(folder=str(folder), **counts, **encoded, complete=True)


def _all_done(build: Builder, files: list[Path], own: dict[str, Any]) -> list[dict[str, Any]]:
    """What every process leaves when it is done, for the one that writes the index; empty for the others."""
    if len(files) == 1:
        return [own]
    write_json(files[build.rank], own)
    try:
        found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        if not _is_held(build, found):  # a file was of a killed run: its process is still to come, and will be the last
            return []
        files[0].unlink()  # which only one of them can
    except FileNotFoundError:
        return []
    for file in files[1:]:
        file.unlink(missing_ok=True)
    return found


def _is_held(build: Builder, done: list[dict[str, Any]]) -> bool:
    """Whether every image and prompt of the pairs is in a shard, or the image known as bad."""
    prompts = {*read_index(build.folder / "prompts", PROMPTS)["prompt_sha256"].to_pylist()}
    images = {*read_index(build.folder / "images", IMAGES)["image_sha256"].to_pylist()}
    images.update(*(each["bad_images"] for each in done))
    return all({p.image_0, p.image_1} <= images and p.prompt_sha256 in prompts for p in build.pairs)


def _found(folder: Path, counts: Mapping[str, Any], *, complete: bool) -> CacheSummary:
    """Of a cache that was finished before."""
    held = {name: counts[name] for name in ("pairs", "images", "prompts", "quarantined")}
    return CacheSummary(folder=str(folder), **held, encoded_images=0, encoded_prompts=0, complete=complete)


def _write_index(folder: Path, pairs: list[Row]) -> dict[str, int]:
    """images.parquet, prompts.parquet and pairs.parquet; how many images and prompts there are."""
    held: dict[str, int] = {}
    for kind, schema, keys in (("images", IMAGES, ("image_sha256", "flip")), ("prompts", PROMPTS, ("prompt_sha256",))):
        table = read_index(folder / kind, schema)
        identities = list(zip(*(table[key].to_pylist() for key in keys), strict=True))
        first = {identity: row for row, identity in reversed(list(enumerate(identities)))}
        held[kind] = len({identity[0] for identity in identities})
        write_parquet(folder / f"{kind}.parquet", table.take(pa.array(sorted(first.values()), pa.int64())))
    columns = dict(zip(Row._fields, zip(*pairs, strict=True), strict=True))
    names = ("pair_id", "prompt_sha256", "image_0", "image_1")
    texts = {name: pa.array(columns[name], pa.string()) for name in names}
    labels = pa.array(columns["label"], pa.float64(), from_pandas=True)  # nan, nobody voted, is null
    write_parquet(folder / "pairs.parquet", pa.table({**texts, "label": labels}))
    return held
