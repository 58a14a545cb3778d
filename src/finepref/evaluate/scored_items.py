"""Images and prompts with their scores by one scorer, wherever they come from.

An image is scored once per (scorer fingerprint, image hash, prompt), whoever made it and however often it occurs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finepref.core.errors import InputError
from finepref.core.images import Unreadable, open_rgb
from finepref.core.progress import progress
from finepref.core.provenance import sha256_bytes
from finepref.evaluate.scorers.scorer import Scorer
from finepref.evaluate.scorers.scorer_rows import SCORERS
from finepref.formats.rewards import Reward
from finepref.formats.scores import ScoredBy

if TYPE_CHECKING:
    from PIL.Image import Image

NOT_FINITE = "the scorer returned {}"

Value = tuple[float, str]
"""A number, or nan and the reason why there is none."""
Cache = dict[tuple[str, str, str], Value]
"""By fingerprint of the scorer, hash of the image and hash of the prompt."""


@dataclass(frozen=True, slots=True)
class Item:
    """An image to score: content hash, prompt and the prompt's hash, how to get its encoded bytes, where it is."""

    image_sha256: str
    prompt: str
    prompt_sha256: str
    read: Callable[[], bytes]
    place: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What a score is a function of, besides the scorer."""
        return (self.image_sha256, self.prompt_sha256)


def scored_by(scorer: Scorer, seconds: float | None = None) -> ScoredBy:
    """What the file of its scores says of a scorer."""
    precision = getattr(scorer, "precision", "no")
    return ScoredBy(
        scorer.fingerprint,
        scorer.higher_is_better,
        seconds,
        precision=None if precision == "no" else precision,
        judges_only=True if scorer.name in SCORERS and SCORERS[scorer.name].judges_only else None,
        together=True if is_together(scorer) else None,
    )


def is_together(scorer: Scorer) -> bool:
    """Whether it takes all pictures that a model made of a prompt in one call."""
    return bool(getattr(scorer, "together", False))


def cache_of(rows: Iterable[Reward]) -> Cache:
    """What is scored already."""
    return {(row.fingerprint, row.image_sha256, row.prompt_sha256): (row.value, row.reason) for row in rows}


def score_items(
    items: Sequence[Item], scorer: Scorer, cache: Cache, *, batch_size: int = 16, hidden: bool = False
) -> None:
    """Fill `cache` with the scores of the items it does not have a number for.

    Args:
        items: images with prompts; repeated (image, prompt) are scored once.
        scorer: the scorer.
        cache: changed in place.
        batch_size: images per call of the scorer, >= 1.
        hidden: show no bar.

    Raises:
        InputError: the scorer returned another number of scores than images.
    """
    unknown = (math.nan, "")
    missing = {item.key: item for item in items if math.isnan(cache.get((scorer.fingerprint, *item.key), unknown)[0])}
    todo = list(missing.values())
    batches = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    for batch in progress(batches, f"scores of {scorer.name}", unit="batch", hidden=hidden):
        for item, found in zip(batch, values_of(batch, scorer), strict=True):
            cache[(scorer.fingerprint, *item.key)] = found


def release(scorer: Scorer) -> None:
    """Let go of a scorer's network where it has one: two at once may not fit on the device."""
    if hasattr(scorer, "release"):
        scorer.release()


def values_of(batch: Sequence[Item], scorer: Scorer) -> list[Value]:
    """The scores of one call of the scorer; of an image that cannot be read, or has no number, nan and why."""
    found: list[Value] = [(math.nan, "")] * len(batch)
    images: dict[int, Image] = {}
    for position, item in enumerate(batch):
        try:
            data = item.read()
            if sha256_bytes(data) != item.image_sha256:
                raise InputError("the image file changed after it was listed", where="image")
            images[position] = open_rgb(data)
        except InputError as error:
            found[position] = (math.nan, error.what)
        except Unreadable as error:
            found[position] = (math.nan, f"not a readable image ({error})")
    if images:
        values = np.asarray(scorer.score([*images.values()], [batch[p].prompt for p in images]), dtype=np.float64)
        if values.shape != (len(images),):
            raise InputError(f"it returned shape {values.shape} for {len(images)} images", where=scorer.name)
        for position, value in zip(images, values.tolist(), strict=True):
            found[position] = (value, "") if math.isfinite(value) else (math.nan, NOT_FINITE.format(value))
    return found
