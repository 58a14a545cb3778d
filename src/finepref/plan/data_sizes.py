"""How many images, prompts and pairs a run has: by its cache, by its data, or guessed while neither is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from finepref.formats.cache import is_complete, read_cache
from finepref.formats.paircolumns import columns_of
from finepref.formats.pairrows import Account
from finepref.formats.preferences import Preferences
from finepref.formats.rankedrows import ranked_pairs
from finepref.formats.reading import Reading
from finepref.formats.sources import count_rows
from finepref.formats.stretches import open_rows
from finepref.formats.tables import suffix_of
from finepref.formats.textcolumn import TextColumn, distinct
from finepref.train.config import RunConfig
from finepref.train.opened import cache_folder

By = Literal["cache", "data", "draws"]


@dataclass(frozen=True, slots=True)
class DataSizes:
    """by: how they are known: as the cache holds them; counted in the data, by its own names of images, where an image
    without a name counts as one more, and with the empty prompt; guessed, every draw another pair.
    """

    images: int
    prompts: int
    pairs: int
    by: By


def data_sizes(config: RunConfig) -> DataSizes:
    """What a run's cache holds; else what its data holds, no picture read; else, without data, its draws.

    Raises:
        InputError: files that cannot be read.
    """
    folder = cache_folder(config)
    if config.cache.folder is not None and is_complete(folder):
        known = read_cache(folder).summary
        return DataSizes(known.images, known.prompts, known.pairs, "cache")
    paths, reading = config.data.paths, config.data.reading()
    if not paths or count_rows(paths, reading) is None:
        draws = config.train.max_steps * config.train.pairs_per_step
        return DataSizes(2 * draws, draws, draws, "draws")
    columns = columns_of(Preferences(data=paths, reading=reading, images=False, quarantine=[]))
    if columns is None:
        return _by_rows(paths, reading)
    held = [chunk.cast(pa.string()) for each in (columns.image_0, columns.image_1) for chunk in each.arrow.chunks]
    images = pa.chunked_array(held, pa.string())
    names, prompts = distinct(TextColumn(images.drop_null())), 1 + distinct(columns.prompt)
    return DataSizes(names + images.null_count, prompts, len(columns.label), "data")


def _by_rows(paths: list[str], reading: Reading) -> DataSizes:
    prompts, images, nameless, pairs = {""}, set[str](), 0, 0
    for source in open_rows(paths, reading, images=False, account=Account()):
        lines = source.lines(images=suffix_of(source.table.path) != ".parquet")  # where they are names of files
        for draft in ranked_pairs(source, lines) if source.dialect.kwise else source.pairs(lines):
            if draft.preference is None or draft.problem:
                continue
            pairs += 1
            prompts.add(draft.preference.prompt)
            for image in (draft.preference.image_0, draft.preference.image_1):
                name = image.path or image.uid
                nameless += name is None
                images |= set() if name is None else {str(name)}
    return DataSizes(len(images) + nameless, len(prompts), pairs, "data")
