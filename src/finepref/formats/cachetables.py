"""The tables of a latent cache: images.parquet, prompts.parquet and pairs.parquet, in a few bytes a line in memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finepref.core.buckets import Bucket
from finepref.core.errors import InputError
from finepref.core.files import parquet_columns, parquet_meta, parquet_rows, write_parquet
from finepref.formats.cache import BUCKET, FLIP, PAIRS, SHARD, SIZE, Kind
from finepref.formats.hashcolumns import (
    SHA256,
    Hashes,
    Numbers,
    Rows,
    coded,
    finder,
    hash_bytes,
    joined,
    narrow,
    packed,
    sorted_rows,
    text_of,
)
from finepref.formats.records import iterate_columns

BATCH = 1 << 16  # rows of a table that are read at once
CONTENT = "content_sha256"  # in the footer of pairs.parquet: `Pairs.sha256`
MAKE_AGAIN = "make it again with `finepref cache --overwrite`"


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """How N images were cropped. bucket: by number in `buckets`. flip: mirrored. size: by number in sizes [S, 4]."""

    buckets: Sequence[str]
    bucket: Rows
    flip: NDArray[np.bool_]
    sizes: NDArray[np.int32]
    size: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """images.parquet or prompts.parquet, N lines in the order of their hashes.

    shards: names; shard, place: [N] which one, and the row in it. crops: of images.
    """

    hashes: Hashes
    shards: Sequence[str]
    shard: Rows
    place: Rows
    crops: Crops | None = None


class CachedPair(NamedTuple):
    """Content hashes of a pair's prompt and images, and the bucket that both are trained in."""

    prompt: str
    image_0: str
    image_1: str
    bucket: str


class Pairs(Mapping[str, CachedPair]):
    """pair_id -> CachedPair, in file order. ids; columns: as the fields of `CachedPair`."""

    def __init__(self, ids: Sequence[str], *columns: Sequence[str], sha256: str = "") -> None:
        """sha256: where it is known."""
        self.ids, self.columns, self._sha256 = ids, columns, sha256
        self._row: dict[str, int] = {}  # made when a pair is first asked for by its id: a million are 150 MB

    def __getitem__(self, pair_id: str) -> CachedPair:
        if not self._row:
            self._row = {pair: row for row, pair in enumerate(self.ids)}
        row = self._row[pair_id]
        return CachedPair(*(column[row] for column in self.columns))

    def rows(self) -> Iterator[tuple[str, CachedPair]]:
        """Every pair by its id, in order."""
        return zip(self.ids, map(CachedPair._make, zip(*self.columns, strict=True)), strict=True)

    def sha256(self) -> str:
        """Hash of ids and content hashes, in order; what the images are decides the bucket."""
        if not self._sha256:
            digest = hashlib.sha256()
            for number, column in enumerate((self.ids, *self.columns[:3])):
                for piece in itertools.chain("\n" * (number > 0), text_of(column, between="\n")):
                    digest.update(piece.encode())
            self._sha256 = digest.hexdigest()
        return self._sha256

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


class CachedRow(NamedTuple):
    """A row of pairs.parquet. label: P(image_0 preferred) in {1, 0.5, 0}, nan where nobody voted."""

    pair_id: str
    prompt_sha256: str
    image_0: str
    image_1: str
    bucket: str
    label: float


def read_items(folder: Path, kind: Kind, *, square: Bucket) -> Items:
    """Read images.parquet or prompts.parquet. square: the bucket of all images that older versions cached.

    Raises:
        InputError: it is missing or damaged, or a content hash in it is none.
    """
    path, names = folder / f"{kind.name}.parquet", [name for name in SIZE if name in kind.schema.names]
    schema = kind.schema.append(pa.field(SHARD, pa.string()))
    total = parquet_rows(path)
    data, place, shard = np.empty((total, SHA256), np.uint8), np.empty(total, np.int32), np.empty(total, np.int32)
    bucket, flip, size = np.empty(total, np.int8), np.empty(total, np.bool_), np.empty(total, np.int32)
    shards, buckets, sizes = Numbers(), Numbers(), Numbers()
    at = 0
    for table in iterate_columns(path, schema, before=kind.before(square), rows=BATCH):
        here = slice(at, at := at + len(table))
        data[here] = sha256_bytes_of(table[kind.keys[0]], where=path)
        place[here], shard[here] = table["row"].to_numpy(), shards.of(table[SHARD])
        if names:
            flip[here], bucket[here] = table[FLIP].to_numpy(), buckets.of(table[BUCKET])
            size[here] = sizes.of_rows([table[name].to_numpy() for name in names])
    order, hashes = sorted_rows(Hashes(data)), Hashes(data)
    if (np.diff(order) != 1).any():  # an older version wrote them as they came
        hashes, place, shard = Hashes(data[order]), place[order], shard[order]
        bucket, flip, size = bucket[order], flip[order], size[order]
    if not names:
        return Items(hashes, shards.values, narrow(shard), place)
    shown = np.array(sizes.values, np.int32).reshape(-1, len(names))
    crops = Crops(buckets.values, narrow(bucket), flip, shown, narrow(size))
    return Items(hashes, shards.values, narrow(shard), place, crops)


def sha256_bytes_of(column: pa.ChunkedArray, *, where: Path) -> NDArray[np.uint8]:
    """[n, 32] content hashes.

    Raises:
        InputError: one is none.
    """
    found = hash_bytes(pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string()), SHA256)
    if found is None:
        raise InputError("what should be a SHA-256 is none", where=where, remedy=MAKE_AGAIN)
    return found


def write_items(folder: Path, kind: Kind, table: pa.Table) -> int:
    """Write images.parquet or prompts.parquet from the indexes of all shards, an identity once; how many hashes."""
    identities = list(zip(*(table[key].to_pylist() for key in kind.keys), strict=True))
    first = {identity: row for row, identity in reversed(list(enumerate(identities)))}
    rows = [first[identity] for identity in sorted(first)]
    write_parquet(folder / f"{kind.name}.parquet", table.take(pa.array(rows, pa.int64())))
    return len({identity[0] for identity in identities})


def read_pairs(
    folder: Path, *, square: Bucket, images: Hashes, prompts: Hashes
) -> tuple[Pairs, NDArray[np.float64] | None]:
    """Read pairs.parquet: the pairs, and their labels as in `CachedRow`; None in a cache that an older version made.

    Args:
        square: the bucket of all its pairs, if one made it that knew no others.
        images, prompts: all that the cache holds, sorted.

    Raises:
        InputError: it is missing or damaged, or names an image or a prompt that the cache does not hold.
    """
    *names, label = CachedRow._fields
    path = folder / PAIRS
    held = label in parquet_columns(path)
    columns = [*((name, pa.string()) for name in names), *([(label, pa.float64())] if held else [])]
    total = parquet_rows(path)
    codes = [np.empty(total, np.int32) for _ in range(3)]
    of_prompt, of_image = finder(prompts), finder(images)
    labels, bucket, buckets, ids = np.empty(total), np.empty(total, np.int32), Numbers(), []
    at = 0
    for table in iterate_columns(path, pa.schema(columns), before={BUCKET: str(square)}, rows=BATCH):
        here = slice(at, at := at + len(table))
        ids.append(packed(table[names[0]].chunks))
        for name, code, find in zip(names[1:4], codes, (of_prompt, of_image, of_image), strict=True):
            code[here] = find(Hashes(sha256_bytes_of(table[name], where=path)))
            if (code[here] < 0).any():
                what = table[name][int(np.argmin(code[here]))].as_py()[:12]
                said = f"no {'image' if find is of_image else 'prompt'} {what}"
                raise InputError(said, where=folder, remedy="make the cache again")
        bucket[here] = buckets.of(table[BUCKET])
        if held:
            labels[here] = table[label].to_numpy()
    pools = zip((prompts, images, images), codes, strict=True)
    shown = coded(buckets.values, narrow(bucket))
    known = str(parquet_meta(path).get(CONTENT, ""))
    pairs = Pairs(joined(ids), *(coded(pool, code) for pool, code in pools), shown, sha256=known)
    return pairs, labels if held else None


def pairs_of(rows: pa.Table) -> tuple[Pairs, NDArray[np.float64]]:
    """Pairs and labels that no file holds yet; columns as the fields of `CachedRow`."""
    *names, label = CachedRow._fields
    return Pairs(*(packed(rows[name].chunks) for name in names)), rows[label].to_numpy()


def write_pairs(folder: Path, rows: pa.Table) -> None:
    """Write pairs.parquet and their hash, columns as the fields of `CachedRow`; a label that is nan is null."""
    labels = pa.array(rows["label"].to_numpy(), pa.float64(), from_pandas=True)
    content = {CONTENT: pairs_of(rows)[0].sha256()}
    write_parquet(folder / PAIRS, rows.set_column(rows.column_names.index("label"), "label", labels), content)
