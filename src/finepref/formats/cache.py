"""The latent cache: cache.json, the tables images, prompts and pairs, and the indexes of its shards.

A cache is known by what shaped its numbers; images and prompts are known by their content hash.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from finepref.core.buckets import Bucket
from finepref.core.errors import InputError
from finepref.core.files import reading, write_sealed
from finepref.core.images import ImageSize
from finepref.core.provenance import hash_config, provenance
from finepref.formats.records import read_record

CACHE = "cache.json"
VERSION = 1
SHARD = "shard"  # the column of an index of several shards that names the shard
SECONDS = b"device_seconds"  # in the footer of the index of a shard
CROP = "short side bilinear, centre"
BUCKET = "bucket"  # the column of images and pairs that caches of the version before do not have
FLIP = "flip"
LATER = " text"  # ends the parts of a fingerprint that caches of the version before do not have
WORDS = {"fingerprint": "model", "crop": "crop rule", "dtype": "storage type"}  # what errors call a field


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """What decides a stored number; caches with equal shaping are interchangeable.

    fingerprint: hashes of VAE, text encoders and tokenizers. crop, dtype: None where images are encoded when drawn.
    """

    fingerprint: Mapping[str, str]
    resolution: int
    crop: str | None
    dtype: str | None
    flips: bool
    posterior: str
    buckets: bool = False

    @property
    def square(self) -> Bucket:
        """The only bucket there is without `buckets`."""
        return Bucket(self.resolution, self.resolution)

    def require(self, wanted: Shaping, *, where: object) -> None:
        """Refuse what was made for something else.

        Raises:
            InputError: names the first thing that differs.
        """
        for name, value in asdict(wanted).items():
            held = getattr(self, name)
            if isinstance(value, Mapping):
                value = {part: said for part, said in value.items() if part in held or not part.endswith(LATER)}
            if held == value:
                continue
            what = f"{WORDS.get(name, name)} ({held}, now {value})"
            if isinstance(value, Mapping):
                what = next(part for part in sorted({*value, *held}) if value.get(part) != held.get(part))
            remedy = "use another folder, or make it again with `finepref cache --overwrite`"
            raise InputError(f"the cache was made for another {what}", where=where, remedy=remedy)

    def identity(self, pairs_sha256: str) -> str:
        """Hash of what decides a latent or an embedding, and of the pairs, given by theirs."""
        said = asdict(self)
        if not self.buckets:  # a cache of the version before is the same one
            del said["buckets"]
        return hash_config({**said, "pairs": pairs_sha256})


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCounts:
    """How much a finished cache holds, and how many pairs were dropped."""

    pairs: int = 0
    images: int = 0
    prompts: int = 0
    quarantined: int = 0


NOTHING = CacheCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """What cache.json holds. stamp: names the input. files: whether any image is a file of its own.

    device_seconds: what encoding its images and prompts took, on all processes; None where it was not measured.
    """

    shaping: Shaping
    complete: bool = False
    stamp: str = ""
    files: bool = False
    summary: CacheCounts = NOTHING
    device_seconds: float | None = None
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Kind:
    """What shards hold. schema: of the index of a shard. keys: columns that identify a row, the content hash first."""

    name: str
    schema: pa.Schema
    keys: tuple[str, ...]

    def before(self, square: Bucket) -> dict[str, str]:
        """Columns that an index of an older version lacks, and what they would hold. square: all images' bucket."""
        return {BUCKET: str(square)} if BUCKET in self.keys else {}

    def held(self, table: pa.Table) -> set[tuple[str, ...]]:
        """What an index holds: (content hash, bucket) of images, (content hash,) of prompts."""
        return {*zip(*(table[key].to_pylist() for key in self.keys if key != FLIP), strict=True)}

    def table(self, rows: Sequence[Mapping[str, Any]], *, seconds: float = 0.0) -> pa.Table:
        """The index of a shard, with the seconds that encoding it took in its footer."""
        found = pa.Table.from_pylist([{**row, "row": place} for place, row in enumerate(rows)], self.schema)
        return found.replace_schema_metadata({SECONDS: repr(seconds)})


SIZE = ("original_height", "original_width", "crop_top", "crop_left")
IMAGES = Kind(
    "images",
    pa.schema(
        [
            *(("image_sha256", pa.string()), (FLIP, pa.bool_()), (BUCKET, pa.string()), ("row", pa.int64())),
            *((name, pa.int32()) for name in SIZE),
        ]
    ),
    ("image_sha256", BUCKET, FLIP),
)
PROMPTS = Kind(
    "prompts",
    pa.schema([("prompt_sha256", pa.string()), ("row", pa.int64()), ("tokens", pa.int32())]),
    ("prompt_sha256",),
)
KINDS = (IMAGES, PROMPTS)
PAIRS = "pairs.parquet"
OWN = (*(kind.name for kind in KINDS), *(f"{kind.name}.parquet" for kind in KINDS), PAIRS, CACHE)


def image_row(sha: str, size: ImageSize, *, flip: bool) -> dict[str, Any]:
    """A row of the index of images, but for its place in the shard."""
    crop = {name: getattr(size, name) for name in SIZE}
    return {"image_sha256": sha, FLIP: flip, BUCKET: str(size.bucket), **crop}


def prompt_row(sha: str, tokens: int) -> dict[str, Any]:
    """A row of the index of prompts, but for its place in the shard."""
    return {"prompt_sha256": sha, "tokens": tokens}


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a finished cache."""
    return (folder / CACHE).is_file() and read_cache(folder).complete


def read_cache(folder: Path) -> CacheRecord:
    """Read cache.json.

    Raises:
        InputError: there is none, or it is broken or no record of a cache.
    """
    remedy = "make it again with `finepref cache --overwrite`"
    return read_record(folder / CACHE, CacheRecord, version=VERSION, remedy=remedy, flat=("shaping",))


def write_cache(folder: Path, record: CacheRecord) -> None:
    """Write cache.json with the provenance; the fields of shaping stand among the others."""
    held = asdict(record)
    write_sealed(folder / CACHE, {**held.pop("shaping"), **held, **provenance()})


def encoding_seconds(footers: Iterable[tuple[Path, Mapping[bytes, bytes]]]) -> float | None:
    """Seconds of encoding by the footers of all indexes; None where an older version wrote one of them.

    Raises:
        InputError: a footer that holds no seconds where they stand.
    """
    held = []
    for path, footer in footers:
        if SECONDS not in footer:
            return None
        with reading(path, "an index whose footer has seconds", remedy="make it again with `finepref cache`"):
            held.append(as_seconds(footer[SECONDS]))
    return sum(held)


def as_seconds(text: bytes) -> float:
    """Seconds written in a footer; anything but a finite number of them is a ValueError."""
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds} seconds")
    return seconds
