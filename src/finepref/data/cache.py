"""Making a latent cache: every image and every prompt encoded once, resumable at every shard.

    pairs -> bytes -> sha256 -> decode (threads) -> VAE -> shard       quarantine.jsonl: pairs with a bad image
          -> prompt -> text encoders -> shard

Several processes share the work by content hash; the last to finish writes the index. A finished cache of unchanged
tables is returned as it is, once its shards are seen to be whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from finepref.core.buckets import Bucket
from finepref.core.errors import ConfigError, InputError
from finepref.core.files import parse_json, reading, write_json
from finepref.core.outfolders import check_folder, own_folder, recover, replacing
from finepref.core.progress import progress, say
from finepref.core.provenance import hash_config
from finepref.data.building import Builder, CacheSettings, shard_index
from finepref.data.hashed import HashedPairs
from finepref.data.shards import footers, shard_names
from finepref.formats import cache as stored
from finepref.formats.folders import CACHE
from finepref.formats.preferences import Preferences
from finepref.formats.quarantine import QUARANTINE, write_quarantine
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.records import as_record
from finepref.formats.sources import named_inputs, stamp_of
from finepref.models.encoder import LatentEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True)
class Done:
    """What a process leaves for the one that writes the index. bad_images: content hash -> reason."""

    bad_images: dict[str, str]
    images: int
    prompts: int


def cache_from(
    paths: str | Path | Sequence[str | Path],
    encoder: LatentEncoder,
    out: str | Path,
    *,
    reading: Reading = AS_IT_IS,
    settings: CacheSettings | None = None,
    rank: int = 0,
    world: int = 1,
    recheck: bool = False,
    overwrite: bool = False,
) -> CacheSummary:
    """Encode every image and prompt of the preferences into `out`; what is there already is not encoded again.

    A finished cache of the same unchanged tables is left as it is, without reading them.

    Args:
        paths, reading: what is read, and how.
        rank, world: this process and how many; images and prompts are shared out by their hash.
        recheck: read the images again all the same, where any is a file of its own.
        overwrite: start again.

    Returns:
        counts; with several processes complete for one of them.

    Raises:
        InputError: the data cannot be read, no pair is usable, or a cache made for another model, resolution or setting
            is there.
    """
    settings, folder = settings or CacheSettings(), Path(out)
    inputs = named_inputs(paths)
    check_folder(folder, CACHE, inputs=inputs)
    recover(folder, CACHE, begun=_is_begun)
    stamp = stamp_of(paths, reading)
    made = stored.CacheRecord(shaping=shaping_of(encoder, settings), stamp=stamp)
    if overwrite and world > 1:
        raise ConfigError("--overwrite with several processes", where=folder, remedy="remove the folder first")
    if not overwrite and (folder / stored.CACHE).is_file():
        found = stored.read_cache(folder)
        found.shaping.require(made.shaping, where=folder)
        made = replace(made, shaping=found.shaping)
        known = found.complete and found.stamp == made.stamp
        if known and not (recheck and found.files) and _is_whole(folder, encoder.buckets[0]):
            return _summary(folder, found.summary, Done({}, 0, 0), complete=rank == 0)
    start_again = replacing(folder, CACHE, again=overwrite, begun=_is_begun, whole=stored.is_complete)
    mark = hash_config(asdict(made.shaping))
    with own_folder(folder, CACHE, inputs=inputs, part=str(rank), fingerprint=mark), start_again:
        if not (folder / stored.CACHE).is_file():
            stored.write_cache(folder, replace(made, stamp=""))
        for old in folder.glob(f"done-*-{rank}.json"):  # of a run that was killed; the others would take it for this
            old.unlink()
        read = HashedPairs([], buckets=encoder.buckets)
        build = Builder(folder, encoder, settings, rank=rank, world=world)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            build.add_prompt("")
            what = "cache" if world == 1 else f"cache {rank}/{world}"
            preferences = Preferences(data=paths, reading=reading, quarantine=read.rejected)
            for prompt, bucket, images in read.read(progress(preferences, what, unit="pair")):
                build.add(prompt, bucket, images, pool)
            build.finish()
        return _merge(build, read, made)


def shaping_of(encoder: LatentEncoder, settings: CacheSettings) -> stored.Shaping:
    """Everything that shapes the stored numbers."""
    return stored.Shaping(
        fingerprint=dict(encoder.fingerprint()), resolution=encoder.resolution, crop=stored.CROP, dtype=settings.dtype,
        flips=settings.flips, posterior=settings.posterior, buckets=len(encoder.buckets) > 1,
    )  # fmt: skip


def _is_begun(folder: Path) -> bool:
    return any(shard_names(folder / stored.IMAGES.name))


def _is_whole(folder: Path, square: Bucket) -> bool:
    """Whether every shard that the tables name is there and whole."""
    if not all((folder / name).exists() for name in stored.OWN):
        return False
    named = {kind.name: {*stored.read_items(folder, kind, square=square).shard} for kind in stored.KINDS}
    return all(shards <= {*shard_names(folder / name)} for name, shards in named.items())


def _merge(build: Builder, read: HashedPairs, made: stored.CacheRecord) -> CacheSummary:
    """Write the tables once every process is done; the last one does it."""
    folder = build.folder
    token = hash_config({**asdict(made), "world": build.world, "pairs": len(read.pairs)})[:8]
    own = Done(build.bad_images, build.encoded_images, build.encoded_prompts)
    done = _all_done(build, read, [folder / f"done-{token}-{rank}.json" for rank in range(build.world)], own)
    if not done:
        return _summary(folder, stored.NOTHING, own, complete=False)
    good, bad = read.sorted_out({sha: reason for each in done for sha, reason in each.bad_images.items()})
    write_quarantine(folder / QUARANTINE, bad)
    if not good:
        raise InputError("no pair is usable", where=folder / QUARANTINE, remedy="the reasons are in that file")
    square = build.encoder.buckets[0]
    indexes = [(kind, shard_index(folder, kind, square=square)) for kind in stored.KINDS]
    images, prompts = (stored.write_items(folder, kind, index) for kind, index in indexes)
    stored.write_pairs(folder, good)
    counts = stored.CacheCounts(pairs=len(good), images=images, prompts=prompts, quarantined=len(bad))
    seconds = stored.encoding_seconds(found for kind in stored.KINDS for found in footers(folder / kind.name))
    stored.write_cache(folder, replace(made, complete=True, files=read.files, summary=counts, device_seconds=seconds))
    if bad:
        say(f"{len(bad)} pairs dropped for bad images or rows; see {folder / QUARANTINE}")
    encoded = Done({}, sum(each.images for each in done), sum(each.prompts for each in done))
    return _summary(folder, counts, encoded, complete=True)


def _summary(folder: Path, counts: stored.CacheCounts, done: Done, *, complete: bool) -> CacheSummary:
    return CacheSummary(
        folder=str(folder), **asdict(counts), encoded_images=done.images, encoded_prompts=done.prompts,
        complete=complete,
    )  # fmt: skip


def _all_done(build: Builder, read: HashedPairs, files: list[Path], own: Done) -> list[Done]:
    """What every process leaves when it is done, for the one that writes the tables; empty for the others."""
    if len(files) == 1:
        return [own]
    write_json(files[build.rank], asdict(own))
    try:
        found = [_as_done(file, file.read_bytes()) for file in files]
        if not _is_held(build, read, found):  # a file was of a killed run: its process is still to come
            return []
        files[0].unlink()  # which only one of them can
    except FileNotFoundError:
        return []
    for file in files[1:]:
        file.unlink(missing_ok=True)
    return found


def _as_done(file: Path, content: bytes) -> Done:
    remedy = "remove it and run again"
    with reading(file, "valid JSON", remedy=remedy):
        held = parse_json(content.decode())
    return as_record(Done, held, where=file, remedy=remedy)


def _is_held(build: Builder, read: HashedPairs, done: list[Done]) -> bool:
    """Whether every image and prompt of the pairs is in a shard, or the image known as bad."""
    square = build.encoder.buckets[0]
    images, prompts = (kind.held(shard_index(build.folder, kind, square=square)) for kind in stored.KINDS)
    bad = {sha for each in done for sha in each.bad_images}
    wanted = {(sha, pair.bucket) for _, pair in read.pairs for sha in (pair.image_0, pair.image_1) if sha not in bad}
    return wanted <= images and {(pair.prompt_sha256,) for _, pair in read.pairs} <= prompts
