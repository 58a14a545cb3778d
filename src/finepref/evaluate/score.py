"""Scores of generated images (`scores.parquet`) and of the images of a preference data set (`rewards.parquet`).

An image is scored once per (scorer fingerprint, image hash, prompt), whoever made it and however often it occurs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finepref.core.device import Precision
from finepref.core.errors import InputError
from finepref.core.images import Unreadable, open_rgb
from finepref.core.progress import progress, say
from finepref.core.provenance import sha256_bytes
from finepref.evaluate.diversity import ALONE
from finepref.evaluate.scorers.scorer import Scorer
from finepref.evaluate.scorers.scorer_rows import SCORERS, as_scorers
from finepref.formats.manifest import ImageRow, Key, read_rows
from finepref.formats.rewards import Reward
from finepref.formats.scores import SCORES, Score, ScoredBy, Scores, own_scores, read_scores, write_scores

if TYPE_CHECKING:
    from PIL.Image import Image

SAVE_SECONDS = 60.0
UNSCORED = (math.nan, "not scored")
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


def cache_of(rows: Iterable[Score | Reward]) -> Cache:
    """What is scored already."""
    return {(row.fingerprint, row.image_sha256, row.prompt_sha256): (row.value, row.reason) for row in rows}


def score_items(
    items: Sequence[Item],
    scorer: Scorer,
    cache: Cache,
    *,
    batch_size: int = 16,
    save: Callable[[], object] = lambda: None,
) -> None:
    """Fill `cache` with the scores of the items it does not have a number for.

    Args:
        items: images with prompts; repeated (image, prompt) are scored once.
        scorer: the scorer.
        cache: changed in place.
        batch_size: images per call of the scorer, >= 1.
        save: called about every minute, to keep what is done.

    Raises:
        InputError: the scorer returned another number of scores than images.
    """
    unknown = (math.nan, "")
    missing = {item.key: item for item in items if math.isnan(cache.get((scorer.fingerprint, *item.key), unknown)[0])}
    todo = list(missing.values())
    batches = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    saved = time.monotonic()
    for batch in progress(batches, f"scores of {scorer.name}", unit="batch"):
        for item, found in zip(batch, _score_batch(batch, scorer), strict=True):
            cache[(scorer.fingerprint, *item.key)] = found
        if time.monotonic() - saved > SAVE_SECONDS:
            save()
            saved = time.monotonic()


def _of_groups(found: Scores, images: Sequence[ImageRow]) -> dict[tuple[str, Key], Value]:
    """Scores of scorers that take whole groups, where every picture of the group is still the same."""
    then: dict[Hashable, dict[Key, str]] = {}
    now: dict[Hashable, dict[Key, str]] = {}
    rows = [row for row in found.rows if row.scorer in found.scorers and found.scorers[row.scorer].together]
    for row in rows:
        then.setdefault((row.scorer, row.key[:-1]), {})[row.key] = row.image_sha256
    for image in images:
        now.setdefault(image.key[:-1], {})[image.key] = image.image_sha256
    return {
        (row.scorer, row.key): (row.value, row.reason)
        for row in rows
        if then[row.scorer, row.key[:-1]] == now.get(row.key[:-1])
    }


def score_together(items: Sequence[Item], groups: Sequence[Hashable], scorer: Scorer) -> list[Value]:
    """The scores of items by a scorer that takes whole groups; groups: of every item, what it is scored among."""
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    found: list[Value] = [(math.nan, ALONE)] * len(items)
    for places in progress(list(members.values()), f"scores of {scorer.name}", unit="prompt"):
        values = _score_batch([items[at] for at in places], scorer)
        for place, (value, reason) in zip(places, values, strict=True):
            found[place] = (value, ALONE if reason == NOT_FINITE.format(math.nan) else reason)
    return found


def release(scorer: Scorer) -> None:
    """Let go of a scorer's network where it has one: two at once may not fit on the device."""
    if hasattr(scorer, "release"):
        scorer.release()


def _score_batch(batch: Sequence[Item], scorer: Scorer) -> list[Value]:
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


def score(
    folder: str | Path,
    scorers: Iterable[Scorer | str],
    *,
    precision: Precision = "no",
    batch_size: int = 16,
    overwrite: bool = False,
) -> Scores:
    """Score every image of an evaluation folder with every scorer and write `scores.parquet`.

    Scores that are there stay, whichever scorer made them; a second run scores what is missing. A scorer whose
    fingerprint changed adds rows of the new fingerprint and drops its old ones.

    Args:
        folder: folder with a `manifest.jsonl`.
        scorers: scorers, or specs such as `pickscore` (`finepref scorers list`), used one after the other.
        precision: no (float32), bf16 or fp16; scores of another precision are of another fingerprint.
        batch_size: images per call, >= 1.
        overwrite: forget the scores of these scorers first.

    Returns:
        The scores, as they are in the file.

    Raises:
        InputError: no manifest, no scorer, or two scorers of one name.
    """
    folder = Path(folder)
    images = read_rows(folder)
    made = as_scorers(scorers, precision)
    with own_scores(folder):
        return _score(folder, images, made, batch_size=batch_size, overwrite=overwrite)


def _score(
    folder: Path, images: Sequence[ImageRow], scorers: Sequence[Scorer], *, batch_size: int, overwrite: bool
) -> Scores:
    items = [Item(row.image_sha256, row.prompt, row.prompt_sha256, row.image(folder).read, row.path) for row in images]
    found = read_scores(folder) if (folder / SCORES).is_file() else Scores((), {})
    cache, known = cache_of(found.rows), dict(found.scorers)
    among = _of_groups(found, images)

    def save() -> Scores:
        rows = (
            Score(
                row.model, row.prompt_set, row.prompt_index, row.prompt_sha256, row.seed, row.image_sha256,
                name, about.fingerprint,
                *(among.get((name, row.key), UNSCORED) if about.together else cache.get(
                    (about.fingerprint, *item.key), UNSCORED
                )),
            )
            for name, about in known.items()
            for row, item in zip(images, items, strict=True)
        )  # fmt: skip
        scores = Scores(tuple(rows), dict(known))
        write_scores(folder, scores)
        return scores

    for scorer in scorers:
        if overwrite:
            cache = {key: value for key, value in cache.items() if key[0] != scorer.fingerprint}
        known[scorer.name] = scored_by(scorer)
        if is_together(scorer):
            values = score_together(items, [row.key[:-1] for row in images], scorer)
            among |= {(scorer.name, row.key): value for row, value in zip(images, values, strict=True)}
        else:
            score_items(items, scorer, cache, batch_size=batch_size, save=save)
        if len(scorers) > 1:
            release(scorer)
        found = save()
        lost = {row.key: row.reason for row in found.rows if row.scorer == scorer.name and math.isnan(row.value)}
        failed = [(row.path, lost[row.key]) for row in images if row.key in lost]
        if failed:
            path, reason = failed[0]
            say(f"{scorer.name}: {len(failed)} of {len(images)} images have no score, first {path}: {reason}")
    return found
