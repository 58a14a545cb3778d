"""Scores of both images of every preference, `rewards.parquet`, by any number of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from finepref.core.device import Precision
from finepref.core.errors import InputError
from finepref.core.locks import BUSY
from finepref.core.progress import progress, say
from finepref.core.provenance import hash_config
from finepref.data.hashed import HashedStretch, Side, side_of
from finepref.data.readstretches import Made, Readers, begin, joining, leave, readers, share, unit_name
from finepref.evaluate.scored_items import Cache, Item, cache_of, is_together, release, score_items, scored_by
from finepref.evaluate.scorers.scorer import Scorer
from finepref.evaluate.scorers.scorer_rows import as_scorers
from finepref.formats.joinedparts import joined
from finepref.formats.preferences import Preference, Preferences, Quarantined
from finepref.formats.prompts import prompt_sha256
from finepref.formats.readparts import read_part, write_part
from finepref.formats.rewards import Reward, RewardPart, iterate_rewards, join_rewards, sharing_rewards, write_rewards
from finepref.formats.scores import read_scorers
from finepref.formats.sources import named_inputs, stamp_of
from finepref.formats.stretches import OpenedPairs, Stretch, named, open_stretches
from finepref.formats.tables import Table, version_of

BLOCK = 2048  # pairs in memory that are scored at once


@dataclass(frozen=True, slots=True)
class PairUnit:
    """Pairs that one process scores at once by one scorer: a stretch of tables, or some that are in memory."""

    name: str
    scorer: Scorer
    pairs: Stretch | tuple[Preference, ...]

    @property
    def keys(self) -> list[str]:
        """Its name."""
        return [self.name]


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

    Any number of processes may score one data set into one file at once: each takes a part of the data that no other
    has, and reads that alone. What they made lies in `<out>.parts` until the file is written.

    Args:
        preferences: the pairs; those of `read_preferences` are read part by part, when they are scored.
        scorers: the scorers, or their specs.
        out: the parquet file. What it holds already of equal fingerprint, image and prompt is kept, and what other
            scorers gave the same images.
        inputs: files to hash into the footer.
        precision: no (float32), bf16 or fp16, of scorers on a network.
        batch_size: images per call, >= 1.
        shard: (index, count): of count shares of the data this one alone, where processes cannot see each other. The
            one that finds all others made writes `out`.
        overwrite: score again what is there.

    Returns:
        `out`.

    Raises:
        InputError: no scorer, two of one name, no preference, or a shard outside 0..count-1.
    """
    chosen = as_scorers(scorers, precision)
    for scorer in filter(is_together, chosen):
        what = f"{scorer.name} says how far a model's pictures of one prompt are apart, and nothing of one picture"
        raise InputError(what, where="scorer", remedy="name another for the pictures of pairs")
    out = Path(out)
    share((), shard)
    with sharing_rewards(out, inputs=named_inputs(inputs)) as place:
        hand = readers(place, "rewards")
        if overwrite and shard[1] == 1 and not hand.is_alone():
            raise InputError(BUSY[0], where=out, remedy=BUSY[1])
        work = _work(hand, chosen, preferences, batch_size)
        mine = share(work.units, shard)
        if not work.units:
            raise InputError("no preference to score", where=", ".join(map(str, inputs)) or "preferences")
        again = {unit.name for unit in mine} if overwrite else set()
        whole = work.stamp
        start = partial(work.begin, out, again, {unit.name for unit in mine})
        with hand.at_work(begin=start, leave=lambda: leave(hand, whole)):
            for scorer in chosen:  # one after the other: two may not fit on the device
                todo = [unit for unit in mine if unit.scorer is scorer and not hand.is_made(unit)]
                for _ in progress(hand.work(todo, work.make), f"scores of {scorer.name}", total=len(todo), unit="part"):
                    pass
                if len(chosen) > 1:
                    release(scorer)
            hand.news()
            made = sum(map(hand.is_made, work.units))
            if made < len(work.units):
                say(f"{made} of {len(work.units)} parts are scored; who scores the last of them writes {out}")
                return out
            with joining(hand, whole) as is_first:
                if is_first:
                    work.join(out, inputs, {} if overwrite else work.spent_on(out))
    return out


@dataclass(slots=True)
class _Work:
    """What this process does of a file of rewards. opened, question, quarantine: of `Preferences` that are read by it.

    cache: what is scored already. carried: seconds by scorer that were spent on what is made again.
    """

    hand: Readers
    scorers: Sequence[Scorer]
    batch_size: int
    units: Sequence[PairUnit]
    opened: OpenedPairs | None
    question: str | None
    quarantine: list[Quarantined] | None
    cache: Cache = field(default_factory=dict)
    carried: dict[str, float] = field(default_factory=dict)

    @property
    def stamp(self) -> str:
        """Names all of it."""
        return hash_config({"units": [unit.name for unit in self.units]})

    def begin(self, out: Path, again: set[str], own: set[str]) -> None:
        """Know what is scored, and what others have made; images of the own share that are files are read again.

        again: units that are made anew. own: those of the own share.
        """
        names = {unit.name for unit in self.units}

        def is_kept(name: str) -> bool:
            if name in again or not self._file(name).is_file():
                return False
            is_own = name in own and self.opened is not None
            return not (is_own and read_part(self.hand.parts.place, name).about.files)

        left = sorted(self.hand.parts.place.glob("*.rewards.parquet"))
        if not again:
            held = [path for path in (out, *left) if path.is_file()]
            self.cache = cache_of(row for path in held for row in iterate_rewards(path))
        kept = {*filter(is_kept, names)}
        lost = [path for path in left if self.hand.is_alone() and path.name.split(".")[0] not in kept]
        self.carried = {} if again else _sums(map(self.spent_on, lost))
        anew = own - kept if own < names else ()
        begin(self.hand, kept.__contains__, again=anew, only=None if again else [*names, self.stamp])

    def make(self, unit: PairUnit) -> list[Made]:
        """Score the pairs of a unit."""
        scorer = unit.scorer
        if not isinstance(unit.pairs, Stretch):
            pairs = [(pair, (side_of(pair.image_0), side_of(pair.image_1))) for pair in unit.pairs]
        elif self.opened is not None:
            read = HashedStretch(self.opened, unit.pairs, strict=self.quarantine is None)
            pairs = [(pair, both) for pair, _, both in read.sides()]
            write_part(self.hand.parts.place, unit.name, read.part())
        sides = [(pair.pair_id, number, _item(pair, side)) for pair, both in pairs for number, side in enumerate(both)]
        began = time.perf_counter()
        items = [item for *_, item in sides if isinstance(item, Item)]
        score_items(items, scorer, self.cache, batch_size=self.batch_size, hidden=len(self.units) > len(self.scorers))
        about = {scorer.name: scored_by(scorer, time.perf_counter() - began)}
        write_rewards(self._file(unit.name), [self._reward(scorer, *side) for side in sides], about)
        return [Made(unit.name)]

    def _reward(self, scorer: Scorer, pair_id: str, number: int, item: Item | str) -> Reward:
        key = item.key if isinstance(item, Item) else ("", "")
        value = self.cache[scorer.fingerprint, *key] if isinstance(item, Item) else (math.nan, item)
        return Reward(pair_id, number, scorer.name, scorer.fingerprint, *value, *key)

    def _file(self, name: str) -> Path:
        return self.hand.parts.place / f"{name}.rewards.parquet"

    def spent_on(self, path: Path) -> dict[str, float]:
        """Seconds that a file's scores of these very scorers took; without a file, none."""
        known = read_scorers(path) if path.is_file() else {}
        same = {each.name: known[each.name] for each in self.scorers if each.name in known}
        prints = {each.name: each.fingerprint for each in self.scorers}
        return {name: by.device_seconds or 0.0 for name, by in same.items() if by.fingerprint == prints[name]}

    def join(self, out: Path, inputs: Sequence[str | Path], before: dict[str, float]) -> None:
        """Write the file."""
        parts = [RewardPart(self._file(unit.name), ids) for unit, ids in zip(self.units, self._ids(), strict=True)]
        failed, total = join_rewards(parts, out, _sums((self.carried, before)), inputs=inputs)
        if failed:
            say(f"{failed} of {total} scores are missing; their reasons are in {out}")

    def _ids(self) -> Sequence[list[str] | None]:
        """The final ids of the pairs of every unit; None where they are in it."""
        if self.opened is None:
            return [None] * len(self.units)
        first = [unit for unit in self.units if unit.scorer is self.scorers[0]]
        parts = [read_part(self.hand.parts.place, unit.name) for unit in first]
        whole = joined(parts, where=named(self.opened), question=self.question)
        if self.quarantine is not None:
            self.quarantine.extend(whole.faulty())
        return whole.ids(parts) * len(self.scorers)


def _work(hand: Readers, scorers: Sequence[Scorer], preferences: Iterable[Preference], batch_size: int) -> _Work:
    """The work, in units that have the same names for everyone who scores the same pairs by the same scorers."""
    opened, quarantine, question = None, None, None
    if isinstance(preferences, Preferences) and not isinstance(preferences.data, Table):
        opened = open_stretches(preferences.data, preferences.reading, images=preferences.images)
        data = stamp_of(preferences.data, preferences.reading)
        pairs: Sequence[Stretch | tuple[Preference, ...]] = opened.stretches()
        quarantine, question = preferences.quarantine, preferences.reading.question
    else:
        listed = [*preferences]
        data = hash_config({"pairs": [_version(pair) for pair in listed]})
        pairs = [tuple(listed[at : at + BLOCK]) for at in range(0, len(listed), BLOCK)]
    stamps = [hash_config({"data": data, "scorer": scorer.fingerprint}) for scorer in scorers]
    units = [
        PairUnit(unit_name(stamp, number), scorer, each)
        for stamp, scorer in zip(stamps, scorers, strict=True)
        for number, each in enumerate(pairs)
    ]
    return _Work(hand, scorers, batch_size, units, opened, question, quarantine)


def _version(pair: Preference) -> list[str]:
    """What changes with a pair in memory and with its images."""
    images = (pair.image_0, pair.image_1)
    files = [version_of(i.path) for i in images if i.data is None and i.path is not None and i.path.is_file()]
    return [pair.pair_id, pair.prompt, *(side_of(image).key for image in images if image.data is not None), *files]


def _item(pair: Preference, side: Side) -> Item | str:
    """The image as something to score, or why it cannot be read."""
    return side.fault or Item(side.key, pair.prompt, prompt_sha256(pair.prompt), side.image.read)


def _sums(seconds: Iterable[dict[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in seconds:
        for name, value in each.items():
            found[name] = found.get(name, 0.0) + value
    return found
