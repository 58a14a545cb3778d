"""Scores of generated images: `scores.parquet` of an evaluation folder, which any number of processes fill together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finepref.core.device import Precision
from finepref.core.locks import collect
from finepref.core.progress import progress, say
from finepref.core.provenance import sha256_bytes
from finepref.data.sharing import Hand
from finepref.evaluate.diversity import ALONE
from finepref.evaluate.scored_items import NOT_FINITE, Item, Value, is_together, release, scored_by, values_of
from finepref.evaluate.scorers.scorer import Scorer
from finepref.evaluate.scorers.scorer_rows import as_scorers
from finepref.formats.manifest import ImageRow, Key, read_rows
from finepref.formats.scores import (
    SCORES,
    PartScore,
    Score,
    ScoredBy,
    Scores,
    own_scores,
    parts_of,
    read_scores,
    write_scores,
)

UNIT = 64  # images that one process scores at once, in calls of the batch size
UNSCORED = (math.nan, "not scored")

ScoreKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class ScoreUnit:
    """Images that are scored by one process. among: what they are scored among, hashed; else empty."""

    fingerprint: str
    items: tuple[Item, ...]
    among: str = ""

    @property
    def keys(self) -> list[ScoreKey]:
        """What scores are a function of."""
        return [(self.fingerprint, *item.key, self.among) for item in self.items]


@dataclass(slots=True)
class _Folder:
    """An evaluation folder while it is scored. among: of every image, the hash of its group. told: by the file."""

    hand: Hand[PartScore]
    images: Sequence[ImageRow]
    items: Sequence[Item]
    among: Sequence[str]
    told: dict[ScoreKey, Value] = field(default_factory=dict)

    def key(self, place: int, about: ScoredBy) -> ScoreKey:
        """What the score of an image is a function of."""
        return (about.fingerprint, *self.items[place].key, self.among[place] if about.together else "")

    def read(self) -> dict[str, ScoredBy]:
        """The scorers of the file, whose scores are told from now on."""
        found = read_scores(self.hand.folder) if (self.hand.folder / SCORES).is_file() else Scores((), {})
        groups = _groups_of([(row.key, row.image_sha256) for row in found.rows])
        for row in found.rows:
            about = found.scorers.get(row.scorer)
            among = groups[row.key] if about is not None and about.together else ""
            self.told[row.fingerprint, row.image_sha256, row.prompt_sha256, among] = (row.value, row.reason)
        return dict(found.scorers)

    def write(self, scorers: dict[str, ScoredBy]) -> Scores:
        """Write what is known of the scores of these and of the file's scorers."""
        with own_scores(self.hand.folder):
            known = {**self.read(), **scorers}
            made = {
                key: (math.nan if row.value is None else row.value, row.reason) for key, row in self.hand.known.items()
            }
            rows = (
                Score(
                    row.model, row.prompt_set, row.prompt_index, row.prompt_sha256, row.seed, row.image_sha256,
                    name, about.fingerprint, *made.get(key, self.told.get(key, UNSCORED)),
                )
                for name, about in known.items()
                for place, row in enumerate(self.images)
                for key in (self.key(place, about),)
            )  # fmt: skip
            scores = Scores(tuple(rows), known)
            write_scores(self.hand.folder, scores)
            prints = {about.fingerprint for about in known.values()}
            self.told |= {row.key: made[row.key] for row in self.hand.known.values() if row.fingerprint in prints}
        return scores


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
    fingerprint changed adds rows of the new fingerprint and drops its old ones. Any number of processes may score one
    folder at once: each takes images that no other has.

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
    items = [Item(row.image_sha256, row.prompt, row.prompt_sha256, row.image(folder).read, row.path) for row in images]
    groups = _groups_of([(row.key, row.image_sha256) for row in images])
    hand = Hand(folder, "scores", parts_of(folder), lambda row: row.key)
    work = _Folder(hand, images, items, [groups[row.key] for row in images])
    prints = {scorer.fingerprint for scorer in made} if overwrite else set()

    def begin() -> None:
        with own_scores(folder):
            work.read()
            if hand.is_alone():  # what a killed process left
                left = [row for row in hand.parts.rows() if row.value is not None and row.fingerprint not in prints]
                hand.parts.replace(left)
            hand.begin_with(
                PartScore(key[0], key[1], key[2], value, reason, key[3])
                for key, (value, reason) in work.told.items()
                if key[0] not in prints and not math.isnan(value)
            )

    def leave() -> None:
        if hand.is_alone():  # what a process that was killed or refused has made stays
            hand.parts.replace([row for row in hand.parts.rows() if row.key not in work.told])

    with hand.at_work(begin=begin, leave=leave):
        for scorer in made:
            found = _score(work, scorer, batch_size)
            if len(made) > 1:
                release(scorer)
    collect(folder)
    return found


def _score(work: _Folder, scorer: Scorer, batch_size: int) -> Scores:
    """Score what is missing of a scorer, and write the file."""
    units = _units(work, scorer)
    missing = [unit for unit in units if not work.hand.is_made(unit)]

    def make(unit: ScoreUnit) -> list[PartScore]:
        todo = [item for item, key in zip(unit.items, unit.keys, strict=True) if key not in work.hand.known]
        size = batch_size
        if unit.among:
            todo, size = list(unit.items), len(unit.items)
        values = [found for at in range(0, len(todo), size) for found in values_of(todo[at : at + size], scorer)]
        if unit.among:
            values = [(value, ALONE if reason == NOT_FINITE.format(math.nan) else reason) for value, reason in values]
        return [
            PartScore(unit.fingerprint, *item.key, None if math.isnan(value) else value, reason, unit.among)
            for item, (value, reason) in zip(todo, values, strict=True)
        ]

    for _ in progress(work.hand.work(missing, make), f"scores of {scorer.name}", total=len(missing), unit="unit"):
        pass
    with work.hand.writing():
        found = work.write({scorer.name: scored_by(scorer)})
    lost = {row.key: row.reason for row in found.rows if row.scorer == scorer.name and math.isnan(row.value)}
    failed = [(row.path, lost[row.key]) for row in work.images if row.key in lost]
    if failed:
        path, reason = failed[0]
        say(f"{scorer.name}: {len(failed)} of {len(work.images)} images have no score, first {path}: {reason}")
    return found


def _units(work: _Folder, scorer: Scorer) -> list[ScoreUnit]:
    """The images of the folder, each once: blocks of them, or all of a group for a scorer of groups."""
    if is_together(scorer):
        groups: dict[tuple[Hashable, str], list[Item]] = {}
        for row, item, among in zip(work.images, work.items, work.among, strict=True):
            groups.setdefault((row.key[:-1], among), []).append(item)
        return [ScoreUnit(scorer.fingerprint, tuple(held), among) for (_, among), held in groups.items()]
    once = [*{item.key: item for item in work.items}.values()]
    return [ScoreUnit(scorer.fingerprint, tuple(once[at : at + UNIT])) for at in range(0, len(once), UNIT)]


def _groups_of(images: Sequence[tuple[Key, str]]) -> dict[Key, str]:
    """Of every image, the hash of all images that its model made of its prompt."""
    members: dict[Hashable, dict[Key, str]] = {}
    for key, digest in images:
        members.setdefault(key[:-1], {})[key] = digest
    names = {group: sha256_bytes("".join(sorted(held.values())).encode()) for group, held in members.items()}
    return {key: names[key[:-1]] for key, _ in images}
