"""Scores of generated images (`scores.parquet`) and of the images of a preference data set (`rewards.parquet`).

An image is scored once per (scorer fingerprint, image hash, prompt), whoever made it and however often it occurs.
"""

from __future__ import annotations

import functools
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from finepref.core.errors import InputError
from finepref.core.files import parquet_meta, read_parquet, write_parquet
from finepref.core.progress import progress, say
from finepref.core.provenance import provenance, sha256_bytes
from finepref.evaluate.scorers.scorer import Scorer
from finepref.formats.manifest import LINES, ImageRow, read_rows

if TYPE_CHECKING:
    from PIL.Image import Image

SCORES = "scores.parquet"
SAVE_SECONDS = 60.0
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("prompt_set", pa.string()),
        ("prompt_index", pa.int64()),
        ("prompt_sha256", pa.string()),
        ("seed", pa.int64()),
        ("image_sha256", pa.string()),
        ("scorer", pa.string()),
        ("fingerprint", pa.string()),
        ("value", pa.float64()),
        ("reason", pa.string()),
    ]
)

Cache = dict[tuple[str, str, str], "Score"]


@dataclass(frozen=True, slots=True)
class Score:
    """A value, or nan and the reason why there is none."""

    value: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """An image to score: its content hash, its prompt and the prompt's hash, and how to get its encoded bytes."""

    image_sha256: str
    prompt: str
    prompt_sha256: str
    read: Callable[[], bytes]

    @property
    def key(self) -> tuple[str, str]:
        """What a score is a function of, besides the scorer."""
        return (self.image_sha256, self.prompt_sha256)


def decode(data: bytes) -> Image:
    """Decode a whole image; whatever Pillow cannot read is an `InputError`."""
    from PIL import Image as PillowImage

    try:
        with PillowImage.open(io.BytesIO(data)) as image:
            image.load()
            return image.copy()
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise InputError(f"not a readable image ({error})", where="image") from None


def score_items(
    items: Sequence[Item],
    scorer: Scorer,
    cache: Cache,
    *,
    batch_size: int = 16,
    save: Callable[[], None] = lambda: None,
) -> None:
    """Fill `cache` with the scores of the items it does not have a number for.

    Args:
        items: images with prompts; repeated (image, prompt) are scored once.
        scorer: the scorer.
        cache: (fingerprint, image hash, prompt hash) -> `Score`; changed in place.
        batch_size: images per call of the scorer, >= 1.
        save: called about every minute, to keep what is done.

    Raises:
        InputError: the scorer returned another number of scores than images.
    """
    missing = {
        item.key: item
        for item in items
        if math.isnan(cache.get((scorer.fingerprint, *item.key), Score(math.nan)).value)
    }
    todo = list(missing.values())
    batches = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    saved = time.monotonic()
    for batch in progress(batches, f"scores of {scorer.name}", unit="batch"):
        for item, found in zip(batch, _score_batch(batch, scorer), strict=True):
            cache[(scorer.fingerprint, *item.key)] = found
        if time.monotonic() - saved > SAVE_SECONDS:
            save()
            saved = time.monotonic()


def _score_batch(batch: Sequence[Item], scorer: Scorer) -> list[Score]:
    images: list[Image] = []
    found = [Score(math.nan)] * len(batch)
    readable = []
    for position, item in enumerate(batch):
        try:
            data = item.read()
            if sha256_bytes(data) != item.image_sha256:
                raise InputError("the image file changed after it was listed", where="image")
            images.append(decode(data))
            readable.append(position)
        except InputError as error:
            found[position] = Score(math.nan, error.what)
    if images:
        values = np.asarray(scorer.score(images, [batch[position].prompt for position in readable]), dtype=np.float64)
        if values.shape != (len(images),):
            raise InputError(f"it returned shape {values.shape} for {len(images)} images", where=scorer.name)
        for position, value in zip(readable, values.tolist(), strict=True):
            found[position] = Score(value) if math.isfinite(value) else Score(math.nan, f"the scorer returned {value}")
    return found


def score(folder: str | Path, scorers: Iterable[Scorer], *, batch_size: int = 16, overwrite: bool = False) -> Path:
    """Score every image of an evaluation folder with every scorer and write `scores.parquet`.

    Scores that are there stay, whichever scorer made them; a second run scores what is missing. A scorer whose
    fingerprint changed adds rows of the new fingerprint and drops its old ones.

    Args:
        folder: folder with a `manifest.jsonl`.
        scorers: scorers, used one after the other.
        batch_size: images per call, >= 1.
        overwrite: forget the scores of these scorers first.

    Returns:
        Path of `scores.parquet`.

    Raises:
        InputError: no manifest, no scorer, or two scorers of one name.
    """
    folder = Path(folder)
    rows = read_rows(folder)
    path = folder / SCORES
    cache, known = _read_cache(path)
    names = []
    for scorer in scorers:
        if scorer.name in names:
            raise InputError(f"two scorers are named '{scorer.name}'", where="--scorer", remedy="give each once")
        names.append(scorer.name)
        if overwrite:
            cache = {key: value for key, value in cache.items() if key[0] != scorer.fingerprint}
        known[scorer.name] = {"fingerprint": scorer.fingerprint, "higher_is_better": scorer.higher_is_better}
        score_items(
            [_image_item(folder, row) for row in rows],
            scorer,
            cache,
            batch_size=batch_size,
            save=functools.partial(_write, path, rows, cache, known),
        )
        _write(path, rows, cache, known)
        failed = [row for row in rows if math.isnan(_found(cache, scorer.fingerprint, row).value)]
        if failed:
            say(f"{scorer.name}: {len(failed)} of {len(rows)} images have no score, first {failed[0].path}")
    if not names:
        raise InputError("no scorer", where="--scorer", remedy="name at least one")
    return path


def _image_item(folder: Path, row: ImageRow) -> Item:
    def read() -> bytes:
        try:
            return (folder / row.path).read_bytes()
        except OSError as error:
            raise InputError(f"the image cannot be read ({error.strerror})", where=folder / row.path) from None

    return Item(row.image_sha256, row.prompt, row.prompt_sha256, read)


def _read_cache(path: Path) -> tuple[Cache, dict[str, dict[str, Any]]]:
    if not path.is_file():
        return {}, {}
    table = read_parquet(path, [field.name for field in SCHEMA]).to_pylist()
    cache = {
        (row["fingerprint"], row["image_sha256"], row["prompt_sha256"]): Score(
            math.nan if row["value"] is None else row["value"], row["reason"] or ""
        )
        for row in table
    }
    return cache, dict(parquet_meta(path).get("scorers", {}))


def _found(cache: Cache, fingerprint: str, row: ImageRow) -> Score:
    return cache.get((fingerprint, row.image_sha256, row.prompt_sha256), Score(math.nan, "not scored"))


def _write(path: Path, rows: Sequence[ImageRow], cache: Cache, known: Mapping[str, Mapping[str, Any]]) -> None:
    records = []
    for name, about in known.items():
        for row in rows:
            found = _found(cache, about["fingerprint"], row)
            records.append(
                {
                    "model": row.model,
                    "prompt_set": row.prompt_set,
                    "prompt_index": row.prompt_index,
                    "prompt_sha256": row.prompt_sha256,
                    "seed": row.seed,
                    "image_sha256": row.image_sha256,
                    "scorer": name,
                    "fingerprint": about["fingerprint"],
                    "value": found.value,
                    "reason": found.reason,
                }
            )
    meta = {"scorers": dict(known), **provenance(inputs=[path.parent / LINES])}
    write_parquet(path, pa.Table.from_pylist(records, schema=SCHEMA), meta)
