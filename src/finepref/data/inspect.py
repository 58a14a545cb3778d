"""What a preference data set holds: counts, ties, models, voters, image sizes, and what is wrong with it. No torch."""

from __future__ import annotations

import itertools
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finepref.core.images import Unreadable, check_aspect, decode, plain_size
from finepref.core.outfolders import own_folder
from finepref.core.progress import progress
from finepref.core.provenance import hash_config
from finepref.data.hashed import HashedStretch
from finepref.data.readstretches import Made, ReadUnit, begin, joining, leave, read_parts, read_units, readers, share
from finepref.formats.folders import READ
from finepref.formats.joinedparts import joined
from finepref.formats.preferences import SAID, Quarantined, said_of, winner_of
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.readparts import ReadImage, ReadPart, ReadRow, images_in, read_part, rows_of, write_part
from finepref.formats.sources import named_inputs, stamp_of
from finepref.formats.stretches import OpenedPairs, named, open_stretches, total_rows

RESULTS = dict(zip(SAID, (("won", "lost"), ("lost", "won"), ("tied", "tied")), strict=False))  # of the two models
NONE = SAID[-1]


@dataclass(slots=True)
class DataReport:
    """format; pairs that were looked at; labels: image_0, image_1, tie, none -> pairs.

    models: name -> {shown, won, tied, lost}. sizes: "W x H" (upright) -> images. conversions: change on the way to
    sRGB (`core.images`) -> images. problems: unusable rows, each whole pair once. shares: rows whose label is a share
    of several votes.
    repeated: pairs that occur more than once (same prompt and images); identical: both images the same bytes;
    contradicted: repeated pairs whose votes disagree. images: distinct images. sources: file -> rows, of those read to
    the end. outcome_words: word -> how it was taken. notes: what was read otherwise than it stands.
    """

    format: str
    pairs: int = 0
    prompts: int = 0
    voters: int = 0
    images: int = 0
    labels: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SAID, 0))
    models: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    conversions: dict[str, int] = field(default_factory=dict)
    shares: int = 0
    identical: int = 0
    repeated: int = 0
    contradicted: int = 0
    problems: list[Quarantined] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)
    outcome_words: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def decided(self) -> int:
        """Pairs of which one picture won."""
        return self.labels[SAID[0]] + self.labels[SAID[1]]


def inspect(
    paths: str | Path | Sequence[str | Path],
    *,
    reading: Reading = AS_IT_IS,
    full: bool = False,
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> DataReport:
    """Read a data set once and count what is in it.

    Args:
        full: decode every image to its last byte (validate); else only those whose header shows that they are changed
            on the way to sRGB, so that the changes can be counted.
        limit: stop after this many pairs; None for all.
        shard: (index, count): of count shares of the data this one alone; a pair that recurs in another share is not
            seen to.

    Raises:
        InputError: the tables themselves cannot be read (missing column, unknown label, empty).
    """
    opened = open_stretches(paths, reading)
    mine = share(opened.stretches(), shard)
    parts = [HashedStretch(opened, stretch) for stretch in mine]
    found = (each for part in parts for each in _look(part, full=full))
    for _ in progress(itertools.islice(found, limit), "read", total=limit or total_rows(mine), unit="pair"):
        pass
    counts = None if shard[1] == 1 else opened.row_counts()
    return report_of(opened, [part.part() for part in parts], reading, counts=counts)


def inspect_together(
    paths: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    reading: Reading = AS_IT_IS,
    full: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> DataReport | None:
    """`inspect` by any number of processes, each of which takes a part of the data that no other has.

    Args:
        folder: where they leave what they read; the last one empties it.
        shard: (index, count): of count shares this one alone. Without it images that are files are read again where a
            process was killed, for they may have changed.

    Returns:
        The report of the whole data set; None where a share of it is still to be read.
    """
    inputs, stamp = named_inputs(paths), hash_config({"stamp": stamp_of(paths, reading), "full": full})
    with own_folder(folder, READ, inputs=inputs, part=uuid.uuid4().hex[:12]) as place:
        hand, opened = readers(place, "read"), open_stretches(paths, reading)
        units = read_units(opened, stamp)
        names = {unit.name for unit in units}

        def make(unit: ReadUnit) -> list[Made]:
            part = HashedStretch(opened, unit.stretch)
            for _ in _look(part, full=full):
                pass
            write_part(hand.parts.place, unit.name, part.part())
            return [Made(unit.name)]

        def is_kept(name: str) -> bool:  # pictures may have changed; those of other shares are not looked at again
            part = hand.parts.place / f"{name}.pairs.parquet"
            return part.is_file() and not (name in own and read_part(part.parent, name).about.files)

        def start() -> None:
            kept = {*filter(is_kept, names)}
            begin(hand, kept.__contains__, again=own - kept if own < names else (), only=[stamp])

        own = {unit.name for unit in share(units, shard)}
        with hand.at_work(begin=start, leave=lambda: leave(hand, stamp)):
            mine = [unit for unit in share(units, shard) if not hand.is_made(unit)]
            for _ in progress(hand.work(mine, make), "read", total=len(mine), unit="part"):
                pass
            hand.news()
            if not all(map(hand.is_made, units)):
                return None
            with joining(hand, stamp):  # each process makes a report
                found = report_of(opened, read_parts(place, units), reading)
    return found


def _look(part: HashedStretch, *, full: bool) -> Iterator[None]:
    """Open every image of a stretch, pair by pair."""
    for *_, images in part.read():
        for sha, (_, content) in images.items():
            if sha not in part.images:
                part.images[sha] = _open(content, full=full)
        yield


def report_of(
    opened: OpenedPairs, parts: Sequence[ReadPart], reading: Reading, *, counts: Mapping[int, int] | None = None
) -> DataReport:
    """What parts of a data set hold. counts: rows of every table, where these are not all parts."""
    whole = joined(parts, where=named(opened), question=reading.question, counts=counts)
    report = DataReport(format=opened.sources[0].dialect.name, problems=whole.left_out)
    _count_pairs(report, rows_of(whole.usable()))
    _count_images(report, images_in(whole.images))
    votes: dict[tuple[str, frozenset[str]], list[str]] = {}
    left_out = {each.row for each in whole.left_out}
    for each in rows_of(whole.usable()):
        if each.row not in left_out:
            shas, winner = (each.image_0, each.image_1), winner_of(each.label)
            said = said_of(each.label) if winner is None else shas[winner]
            votes.setdefault((each.prompt_sha256, frozenset(shas)), []).append(said)
            report.identical += shas[0] == shas[1]
    report.repeated = sum(len(each) > 1 for each in votes.values())
    report.contradicted = sum(len({*each} - {NONE}) > 1 for each in votes.values())
    account = whole.account
    report.sources, report.outcome_words, report.notes = account.sources, account.words, list(account.notes)
    return report


def _count_pairs(report: DataReport, pairs: Iterable[ReadRow]) -> None:
    """Count pairs, their labels, and what those say of their models."""
    prompts, voters = set[str](), set[str | None]()
    for pair in pairs:
        report.pairs += 1
        prompts.add(pair.prompt_sha256)
        voters.add(pair.voter)
        said = said_of(pair.label)
        report.labels[said] += 1
        report.shares += pair.label not in (0.0, 0.5, 1.0) and pair.label == pair.label
        for model, result in zip((pair.model_0, pair.model_1), RESULTS.get(said, ("", "")), strict=True):
            if model is not None:
                row = report.models.setdefault(model, dict.fromkeys(("shown", "won", "tied", "lost"), 0))
                for what in filter(None, ("shown", result)):
                    row[what] += 1
    report.prompts, report.voters = len(prompts), len(voters - {None})
    report.models = dict(sorted(report.models.items(), key=lambda item: -item[1]["shown"]))


def _count_images(report: DataReport, images: Iterable[ReadImage]) -> None:
    """Count images that can be used, their sizes, and what is changed in all."""
    sizes, changes = Counter[str](), Counter[str]()
    for image in images:
        changes.update(json.loads(image.changes))
        sizes.update([] if image.fault else [image.size])
    report.images = sizes.total()
    report.sizes, report.conversions = dict(sizes.most_common()), dict(changes.most_common())


def _open(data: bytes, *, full: bool) -> tuple[str, str, str]:
    """(why an image cannot be used or nothing, its size, what is changed in it as JSON)."""
    changes: Sequence[str] = ()
    try:
        size = plain_size(data)
        if full or size is None:
            decoded = decode(data)
            size, changes = decoded.image.size, decoded.changes
        check_aspect(*size)
    except Unreadable as error:
        return str(error), "", json.dumps([*changes])
    return "", f"{size[0]} x {size[1]}", json.dumps([*changes])
