"""Making a latent cache: every image and every prompt encoded once, by any number of processes, resumable.

    stretch of the pairs -> bytes -> sha256 -> decode (threads) -> VAE -> shards; what was read, as a part
    all parts -> prompts -> text encoders -> shards
    all parts -> pairs.parquet, the index of the shards; quarantine.jsonl: pairs with a bad image

The processes deal the stretches, and then blocks of prompts, among themselves (`data.sharing`); the one that finds all
of them made joins the parts. A finished cache of unchanged tables is returned as it is, once its shards are seen to be
whole.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from finepref.core.buckets import Bucket
from finepref.core.device import launched_as
from finepref.core.errors import ConfigError, InputError
from finepref.core.locks import BUSY
from finepref.core.outfolders import check_folder, own_folder, recover, replacing
from finepref.core.progress import progress, say
from finepref.core.provenance import hash_config
from finepref.data.building import Builder, CacheSettings, shard_index
from finepref.data.hashed import HashedStretch
from finepref.data.latents import EMPTY_PROMPT
from finepref.data.readstretches import (
    READ,
    Made,
    Readers,
    ReadUnit,
    begin,
    clear,
    joining,
    leave,
    read_parts,
    read_units,
    readers,
)
from finepref.data.shards import footers, shard_names
from finepref.formats import cache as stored
from finepref.formats.cachetables import read_items, write_items, write_pairs
from finepref.formats.folders import CACHE
from finepref.formats.joinedparts import images_of, joined, usable_images
from finepref.formats.quarantine import QUARANTINE, write_quarantine
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.readparts import read_part, read_prompts, write_part
from finepref.formats.sources import named_inputs, stamp_of
from finepref.formats.stretches import OpenedPairs, named, open_stretches
from finepref.models.encoder import LatentEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSummary:
    """What a cache holds and what was done now. complete: this process found the cache finished, or finished it.

    encoded_*: by all processes where complete, else by this one, and the other counts are 0. Where every process finds
    it finished, rank 0 alone says complete.
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
class PromptUnit:
    """A block of prompts as work: (content hash, text) of each."""

    name: str
    prompts: tuple[tuple[str, str], ...]

    @property
    def keys(self) -> list[str]:
        """Its name."""
        return [self.name]


def cache_from(
    paths: str | Path | Sequence[str | Path],
    encoder: LatentEncoder,
    out: str | Path,
    *,
    reading: Reading = AS_IT_IS,
    settings: CacheSettings | None = None,
    recheck: bool = False,
    overwrite: bool = False,
) -> CacheSummary:
    """Encode every image and prompt of the preferences into `out`; what is there already is not encoded again.

    A finished cache of the same unchanged tables is left as it is, without reading them. Any number of processes may
    make one cache at once: each takes a part of the data that no other has, and reads that alone.

    Args:
        paths, reading: what is read, and how.
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
    hand = readers(folder, "cache")
    alone = not folder.is_dir() or hand.is_alone()
    if alone:
        recover(folder, CACHE, begun=_is_begun)
    made = stored.CacheRecord(shaping=shaping_of(encoder, settings), stamp=stamp_of(paths, reading))
    if overwrite and launched_as()[0] > 1:
        raise ConfigError("--overwrite with several processes", where=folder, remedy="remove the folder first")
    if not overwrite and (folder / stored.CACHE).is_file():
        found = stored.read_cache(folder)
        found.shaping.require(made.shaping, where=folder)
        made = replace(made, shaping=found.shaping)
        known = found.complete and found.stamp == made.stamp
        if known and not (recheck and found.files) and _is_whole(folder, encoder.buckets[0]):
            if (folder / READ).is_dir():  # of a process that was killed when all was joined
                with hand.writing():
                    if hand.is_alone():
                        clear(hand)
            return _summary(folder, found.summary, complete=launched_as()[1] == 0)
    if overwrite and not alone:
        raise InputError(BUSY[0], where=folder, remedy=BUSY[1])
    mark = hash_config(asdict(made.shaping))
    start_again = replacing(folder, CACHE, again=overwrite, begun=_is_begun, whole=stored.is_complete)
    with own_folder(folder, CACHE, inputs=inputs, part=uuid.uuid4().hex[:12], fingerprint=mark), start_again:
        if not (folder / stored.CACHE).is_file():
            stored.write_cache(folder, replace(made, stamp=""))
        opened = open_stretches(paths, reading)
        work = _Work(hand, Builder(folder, encoder, settings), opened, read_units(opened, made.stamp))
        with hand.at_work(begin=work.begin, leave=lambda: leave(hand, made.stamp)):
            work.encode()
            with joining(hand, made.stamp) as is_first:
                if not is_first:
                    return _summary(folder, stored.NOTHING, work.encoded_images, work.encoded_prompts, complete=False)
                return _merge(work, made, reading)


@dataclass(slots=True)
class _Work:
    """What this process does of a cache."""

    hand: Readers
    build: Builder
    opened: OpenedPairs
    units: Sequence[ReadUnit]
    encoded_images: int = 0
    encoded_prompts: int = 0

    def begin(self) -> None:
        """Know what others made, and of it what is still there; images that are files are read again."""
        self.build.news()
        names = {unit.name for unit in self.units}

        def is_held(name: str) -> bool:
            if name not in names or not (self.build.folder / READ / f"{name}.pairs.parquet").is_file():
                return False
            part = read_part(self.build.folder / READ, name)
            return not part.about.files and usable_images(part) <= self.build.held[stored.IMAGES.name]

        begin(self.hand, is_held)

    def encode(self) -> None:
        """Read and encode what no other process does, until all is made."""
        unread = [unit for unit in self.units if not self.hand.is_made(unit)]
        for _ in progress(self.hand.work(unread, self._read), "images", total=len(unread), unit="part"):
            pass
        blocks = self._prompts()
        for _ in progress(self.hand.work(blocks, self._write), "prompts", total=len(blocks), unit="part"):
            pass

    def _read(self, unit: ReadUnit) -> list[Made]:
        self.build.news()
        read = HashedStretch(self.opened, unit.stretch, buckets=self.build.encoder.buckets)
        encoded = self.build.add_images(f"r{unit.name}", read)
        self.encoded_images += encoded
        write_part(self.build.folder / READ, unit.name, read.part())
        return [Made(unit.name, encoded)]

    def _prompts(self) -> list[PromptUnit]:
        """All prompts in blocks, the same ones in every process."""
        texts = {EMPTY_PROMPT: ""}
        for unit in self.units:
            texts |= read_prompts(self.build.folder / READ, unit.name)
        settings, held, stamp = self.build.settings, [*texts.items()], self.units[0].name.partition("n")[0]
        size = min(settings.shard_size, max(settings.batch_size, len(held) // len(self.units)))
        starts = range(0, len(held), size)
        return [PromptUnit(f"{stamp}p{at:07d}", tuple(held[at : at + size])) for at in starts]

    def _write(self, unit: PromptUnit) -> list[Made]:
        self.build.news()
        encoded = self.build.add_prompts(f"r{unit.name}", unit.prompts)
        self.encoded_prompts += encoded
        return [Made(unit.name, encoded)]


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
    named = {kind.name: {*read_items(folder, kind, square=square).shards} for kind in stored.KINDS}
    return all(shards <= {*shard_names(folder / name)} for name, shards in named.items())


def _merge(work: _Work, made: stored.CacheRecord, reading: Reading) -> CacheSummary:
    """Write the tables from all parts."""
    folder, hand, build = work.build.folder, work.hand, work.build
    whole = joined(read_parts(folder, work.units), where=named(work.opened), question=reading.question)
    before = stored.read_cache(folder)
    if not len(whole.pairs) and before.complete:  # its list of rows left out stays
        what = f"no pair is usable; the first: {whole.left_out[0].reason}"
        raise InputError(what, where=named(work.opened), remedy="`finepref data validate` lists all")
    build.news()
    if not images_of(whole.pairs) <= build.held[stored.IMAGES.name]:
        raise InputError("a shard was lost while it was made", where=folder, remedy="run the command again")
    stored.write_cache(folder, replace(before, complete=False, stamp=""))  # while its tables are of two data sets
    write_quarantine(folder / QUARANTINE, whole.left_out)
    if not len(whole.pairs):
        raise InputError("no pair is usable", where=folder / QUARANTINE, remedy="the reasons are in that file")
    square = build.encoder.buckets[0]
    indexes = [(kind, shard_index(folder, kind, square=square)) for kind in stored.KINDS]
    images, prompts = (write_items(folder, kind, index) for kind, index in indexes)
    write_pairs(folder, whole.pairs)
    counts = stored.CacheCounts(pairs=len(whole.pairs), images=images, prompts=prompts, quarantined=len(whole.left_out))
    seconds = stored.encoding_seconds(found for kind in stored.KINDS for found in footers(folder / kind.name))
    record = replace(made, complete=True, files=whole.files, summary=counts, device_seconds=seconds)
    stored.write_cache(folder, record)
    encoded = {True: 0, False: 0}  # by whether it is a stretch of pairs
    names = {unit.name for unit in work.units}
    for row in hand.parts.rows():
        encoded[row.unit in names] += row.encoded
    if whole.left_out:
        say(f"{len(whole.left_out)} pairs dropped for bad images or rows; see {folder / QUARANTINE}")
    return _summary(folder, counts, encoded[True], encoded[False], complete=True)


def _summary(
    folder: Path, counts: stored.CacheCounts, images: int = 0, prompts: int = 0, *, complete: bool
) -> CacheSummary:
    return CacheSummary(
        folder=str(folder), **asdict(counts), encoded_images=images, encoded_prompts=prompts, complete=complete
    )
