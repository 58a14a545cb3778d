"""Scores of both images of every preference: `rewards.parquet`, which reward signals read."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finepref.core.errors import InputError
from finepref.core.files import parquet_meta, read_parquet, write_parquet
from finepref.core.progress import say
from finepref.core.provenance import provenance, sha256_bytes, sha256_file
from finepref.evaluate.score import Cache, Item, Score, score_items
from finepref.evaluate.scorers.scorer import Scorer
from finepref.formats.preferences import Preference
from finepref.formats.prompts import prompt_sha256

SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("side", pa.int8()),
        ("scorer", pa.string()),
        ("fingerprint", pa.string()),
        ("value", pa.float64()),
        ("reason", pa.string()),
        ("image_sha256", pa.string()),
        ("prompt_sha256", pa.string()),
    ]
)
BLOCK = 2048


def score_preferences(
    preferences: Iterable[Preference],
    scorers: Sequence[Scorer],
    out: str | Path,
    *,
    inputs: Sequence[str | Path] = (),
    batch_size: int = 16,
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
) -> Path:
    """Score both images of every preference and write them as `rewards.parquet`.

    Args:
        preferences: the pairs, in a fixed order; images are read when they are scored, a block of pairs at a time.
        scorers: the scorers.
        out: the parquet file. What it holds already of equal fingerprint, image and prompt is kept.
        inputs: files to hash into the footer.
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
    names = [scorer.name for scorer in scorers]
    if not names or len(set(names)) != len(names):
        raise InputError(f"scorers {names}", where="--scorer", remedy="give at least one, each once")
    if not 0 <= index < count:
        raise InputError(f"shard {index} of {count}", where="--shard", remedy="count from 0: 0/4 to 3/4")
    out = Path(out)
    target = out if count == 1 else shard_path(out, index, count)
    parts = target.with_name(f"{target.name}.parts")
    held = [] if overwrite else [path for path in (target, out, *sorted(parts.glob("*.parquet"))) if path.is_file()]
    cache = _read_cache(held)
    own = [path for path in held if path == target or path.parent == parts]
    seconds = {scorer.name: sum(_seconds(path, scorer) for path in own) for scorer in scorers}
    written = []
    for number, block in enumerate(_blocks(pair for place, pair in enumerate(preferences) if place % count == index)):
        written.append(parts / f"{number:06d}.parquet")
        before = dict(seconds)
        table = _score_block(block, scorers, cache, batch_size, seconds)
        spent = {s.name: _about(s, seconds[s.name] - before[s.name]) for s in scorers}
        write_parquet(written[-1], table, {"scorers": spent})
    if not written and count == 1:
        raise InputError("no preference to score", where=", ".join(map(str, inputs)) or "preferences")
    table = pa.concat_tables([SCHEMA.empty_table(), *(_bare(path) for path in written)])
    known = {scorer.name: _about(scorer, seconds[scorer.name]) for scorer in scorers}
    write_parquet(target, table, {"scorers": known, "shard": [index, count], **provenance(inputs=inputs)})
    shutil.rmtree(parts, ignore_errors=True)
    failed = int(np.isnan(table["value"].to_numpy()).sum())
    if failed:
        say(f"{failed} of {len(table)} scores are missing; their reasons are in {target}")
    return (merge_shards(out, count, inputs) or target) if count > 1 else target


def shard_path(out: Path, index: int, count: int) -> Path:
    """`rewards.parquet` -> `rewards-0-of-4.parquet`."""
    return out.with_name(f"{out.stem}-{index}-of-{count}{out.suffix}")


def merge_shards(out: Path, count: int, inputs: Sequence[str | Path]) -> Path | None:
    """Write `out` from its shards once all are there; None while one is missing."""
    paths = [shard_path(out, index, count) for index in range(count)]
    if not all(path.is_file() for path in paths):
        return None
    known = [parquet_meta(path).get("scorers", {}) for path in paths]
    versions = [{name: about["fingerprint"] for name, about in scorers.items()} for scorers in known]
    if any(other != versions[0] for other in versions):
        raise InputError("the shards were scored by different scorers", where=out, remedy="score them again")
    total = {
        name: {**about, "device_seconds": sum(scorers[name]["device_seconds"] for scorers in known)}
        for name, about in known[0].items()
    }
    meta = {"scorers": total, "shard": [0, 1], **provenance(inputs=inputs)}
    write_parquet(out, pa.concat_tables([_bare(path) for path in paths]), meta)
    return out


def _about(scorer: Scorer, seconds: float) -> dict[str, Any]:
    """What the footer says of a scorer; device_seconds is what its scores cost."""
    return {
        "fingerprint": scorer.fingerprint,
        "higher_is_better": scorer.higher_is_better,
        "device_seconds": seconds,
    }


def _seconds(path: Path, scorer: Scorer) -> float:
    """Seconds that a file's scores of this very scorer took; 0 for another version."""
    about = parquet_meta(path).get("scorers", {}).get(scorer.name, {})
    return float(about.get("device_seconds", 0.0)) if about.get("fingerprint") == scorer.fingerprint else 0.0


def _bare(path: Path) -> pa.Table:
    return read_parquet(path).replace_schema_metadata(None)


def _blocks(pairs: Iterable[Preference]) -> Iterator[list[Preference]]:
    block: list[Preference] = []
    for pair in pairs:
        block.append(pair)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def _read_cache(paths: Iterable[Path]) -> Cache:
    cache: Cache = {}
    for path in paths:
        for row in read_parquet(path, [field.name for field in SCHEMA]).to_pylist():
            if row["value"] is not None and not math.isnan(row["value"]):
                cache[(row["fingerprint"], row["image_sha256"], row["prompt_sha256"])] = Score(row["value"])
    return cache


def _score_block(
    block: Sequence[Preference], scorers: Sequence[Scorer], cache: Cache, batch_size: int, seconds: dict[str, float]
) -> pa.Table:
    sides: list[tuple[str, int, Item | str]] = []
    for pair in block:
        for side, image in enumerate((pair.image_0, pair.image_1)):
            try:
                digest = sha256_file(image.path) if image.path is not None else sha256_bytes(image.read())
                sides.append((pair.pair_id, side, Item(digest, pair.prompt, prompt_sha256(pair.prompt), image.read)))
            except OSError as error:
                sides.append((pair.pair_id, side, f"the image cannot be read ({error.strerror})"))
            except InputError as error:
                sides.append((pair.pair_id, side, error.what))
    records = []
    for scorer in scorers:
        began = time.perf_counter()
        score_items([item for _, _, item in sides if isinstance(item, Item)], scorer, cache, batch_size=batch_size)
        seconds[scorer.name] += time.perf_counter() - began
        for pair_id, side, item in sides:
            found = cache[(scorer.fingerprint, *item.key)] if isinstance(item, Item) else Score(math.nan, item)
            records.append(
                {
                    "pair_id": pair_id,
                    "side": side,
                    "scorer": scorer.name,
                    "fingerprint": scorer.fingerprint,
                    "value": found.value,
                    "reason": found.reason,
                    "image_sha256": item.image_sha256 if isinstance(item, Item) else "",
                    "prompt_sha256": item.prompt_sha256 if isinstance(item, Item) else "",
                }
            )
    return pa.Table.from_pylist(records, schema=SCHEMA)
