"""Scores of both images of every preference: `rewards.parquet`, which reward signals read."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from finepref.core.device import Precision
from finepref.core.errors import InputError
from finepref.core.ownership import check_file
from finepref.core.progress import say
from finepref.core.provenance import sha256_bytes
from finepref.evaluate.scored_items import Cache, Item, cache_of, is_together, release, score_items, scored_by
from finepref.evaluate.scorers.scorer import Scorer
from finepref.evaluate.scorers.scorer_rows import as_scorers
from finepref.formats.preferences import ImageRef, Preference
from finepref.formats.prompts import prompt_sha256
from finepref.formats.rewards import Reward, is_rewards, iterate_rewards, join_rewards, own_rewards, write_rewards
from finepref.formats.scores import read_scorers
from finepref.formats.sources import named_inputs

BLOCK = 2048


def score_preferences(
    preferences: Iterable[Preference],
    scorers: Sequence[Scorer | str],
    out: str | Path,
    *,
    inputs: Sequence[str | Path] = (),
    precision: Precision = "no",
    batch_size: int = 16,
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
) -> Path:
    """Score both images of every preference and write them as `rewards.parquet`.

    Args:
        preferences: the pairs, in a fixed order; images are read when they are scored, a block of pairs at a time.
        scorers: the scorers, or their specs.
        out: the parquet file. What it holds already of equal fingerprint, image and prompt is kept, and what other
            scorers gave the same images.
        inputs: files to hash into the footer.
        precision: no (float32), bf16 or fp16, of scorers on a network.
        batch_size: images per call, >= 1.
        shard: (index, count); shard i of c takes the pairs i, i+c, ... and writes `<out stem>-i-of-c.parquet`. The
            shard that finds all others finished writes `out`.
        overwrite: score again what is there.

    Returns:
        Path of the file written last.

    Raises:
        InputError: no scorer, two of one name, no preference, or a shard outside 0..count-1.
    """
    index, count = shard
    chosen = as_scorers(scorers, precision)
    for scorer in filter(is_together, chosen):
        what = f"{scorer.name} says how far a model's pictures of one prompt are apart, and nothing of one picture"
        raise InputError(what, where="scorer", remedy="name another for the pictures of pairs")
    if not 0 <= index < count:
        raise InputError(f"shard {index} of {count}", where="shard", remedy="count from 0: 0/4 to 3/4")
    out = Path(out)
    target = out if count == 1 else shard_path(out, index, count)
    check_file(out, is_rewards, inputs=named_inputs(inputs), what="rewards")
    with own_rewards(target, inputs=()) as parts:
        held = [] if overwrite else [path for path in (target, out, *sorted(parts.glob("*.parquet"))) if path.is_file()]
        cache = cache_of(row for path in held for row in iterate_rewards(path))
        carried = {scorer.name: 0.0 if overwrite else _seconds(target, scorer) for scorer in chosen}
        written: list[Path] = []
        for block in _blocks(pair for place, pair in enumerate(preferences) if place % count == index):
            if not block and count == 1:
                raise InputError("no preference to score", where=", ".join(map(str, inputs)) or "preferences")
            part = parts / f"{len(written):06d}.parquet"
            spent = {scorer.name: 0.0 if overwrite else _seconds(part, scorer) for scorer in chosen}
            rows = _score_block(block, chosen, cache, batch_size, spent)
            about = {s.name: scored_by(s, spent[s.name]) for s in chosen}
            write_rewards(part, rows, about)
            written.append(part)
        failed, total = join_rewards(written, target, carried, shard=shard, inputs=inputs)
    if failed:
        say(f"{failed} of {total} scores are missing; their reasons are in {target}")
    shards = [shard_path(out, index, count) for index in range(count)]
    if count == 1 or not all(path.is_file() for path in shards):
        return target
    join_rewards(shards, out, {}, shard=(0, 1), inputs=inputs)
    return out


def shard_path(out: Path, index: int, count: int) -> Path:
    """`rewards.parquet` -> `rewards-0-of-4.parquet`."""
    return out.with_name(f"{out.stem}-{index}-of-{count}{out.suffix}")


def _seconds(path: Path, scorer: Scorer) -> float:
    """Seconds that a file's scores of this very scorer took; 0 for another version or without a file."""
    about = read_scorers(path).get(scorer.name) if path.is_file() else None
    return about.device_seconds or 0.0 if about is not None and about.fingerprint == scorer.fingerprint else 0.0


def _blocks(pairs: Iterator[Preference]) -> Iterator[list[Preference]]:
    """Lists of pairs; one that is empty where there is no pair."""
    yield list(itertools.islice(pairs, BLOCK))
    while block := list(itertools.islice(pairs, BLOCK)):
        yield block


def _score_block(
    block: Sequence[Preference], scorers: Sequence[Scorer], cache: Cache, batch_size: int, spent: dict[str, float]
) -> list[Reward]:
    """Rewards of a block of pairs; the seconds that each scorer took are added to `spent`."""
    sides = [
        (pair.pair_id, side, _item(pair, image))
        for pair in block
        for side, image in enumerate((pair.image_0, pair.image_1))
    ]
    for scorer in scorers:
        began = time.perf_counter()
        score_items([item for *_, item in sides if isinstance(item, Item)], scorer, cache, batch_size=batch_size)
        if len(scorers) > 1:
            release(scorer)
        spent[scorer.name] += time.perf_counter() - began
    rows = []
    for scorer, (pair_id, side, item) in itertools.product(scorers, sides):
        if isinstance(item, Item):
            value, image, prompt = cache[scorer.fingerprint, *item.key], *item.key
        else:
            value, image, prompt = (math.nan, item), "", ""
        rows.append(Reward(pair_id, side, scorer.name, scorer.fingerprint, *value, image, prompt))
    return rows


def _item(pair: Preference, image: ImageRef) -> Item | str:
    """The image as something to score, or why it cannot be read."""
    try:
        digest = sha256_bytes(image.read())
    except InputError as error:
        return error.what
    return Item(digest, pair.prompt, prompt_sha256(pair.prompt), image.read)
