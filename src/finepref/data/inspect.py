"""What a preference data set holds: counts, ties, models, voters, image sizes, and what is wrong with it. No torch."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finepref.core.images import Unreadable, check_aspect, decode, plain_size
from finepref.core.progress import progress
from finepref.data.hashed import HashedPairs
from finepref.formats.preferences import (
    SAID,
    Preference,
    Preferences,
    Quarantined,
    detect_format,
    said_of,
    winner_of,
)
from finepref.formats.prompts import prompt_sha256
from finepref.formats.reading import AS_IT_IS, Reading

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
) -> DataReport:
    """Read a data set once and count what is in it.

    Args:
        full: decode every image to its last byte (validate); else only those whose header shows that they are changed
            on the way to sRGB, so that the changes can be counted.
        limit: stop after this many pairs; None for all.

    Raises:
        InputError: the tables themselves cannot be read (missing column, unknown label, empty).
    """
    report = DataReport(format=detect_format(paths, reading))
    read, prompts = HashedPairs([]), set[str]()
    voters: set[str | None] = {None}
    pairs = Preferences(data=paths, reading=reading, quarantine=read.rejected)

    def counted() -> Iterator[Preference]:
        for pair in progress(itertools.islice(pairs, limit), "read", total=limit, unit="pair"):
            _count(report, pair)
            prompts.add(prompt_sha256(pair.prompt))
            voters.add(pair.voter)
            yield pair

    known: dict[str, str] = {}  # content hash -> why the image cannot be used, or nothing
    sizes: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    for *_, images in read.read(counted()):
        for sha, (_, content) in images.items():
            if sha not in known:
                known[sha] = _open(content, sizes, changes, full=full)
    good, report.problems = read.sorted_out({sha: reason for sha, reason in known.items() if reason})
    votes: dict[tuple[str, frozenset[str]], list[str]] = {}
    for each in good:
        shas, winner = (each.image_0, each.image_1), winner_of(each.label)
        said = said_of(each.label) if winner is None else shas[winner]
        votes.setdefault((each.prompt_sha256, frozenset(shas)), []).append(said)
        report.identical += shas[0] == shas[1]
    account = pairs.account
    report.sources, report.outcome_words, report.notes = account.sources, account.words, list(account.notes)
    report.prompts, report.voters = len(prompts), len(voters) - 1
    report.images = sum(not reason for reason in known.values())
    report.sizes, report.conversions = dict(sizes.most_common()), dict(changes.most_common())
    report.repeated = sum(len(each) > 1 for each in votes.values())
    report.contradicted = sum(len({*each} - {NONE}) > 1 for each in votes.values())
    report.models = dict(sorted(report.models.items(), key=lambda item: -item[1]["shown"]))
    return report


def _count(report: DataReport, pair: Preference) -> None:
    """Count a pair and what it says of its models."""
    report.pairs += 1
    said = said_of(pair.label)
    report.labels[said] += 1
    report.shares += pair.label not in (0.0, 0.5, 1.0) and pair.label == pair.label
    for model, result in zip((pair.model_0, pair.model_1), RESULTS.get(said, ("", "")), strict=True):
        if model is not None:
            row = report.models.setdefault(model, dict.fromkeys(("shown", "won", "tied", "lost"), 0))
            for what in filter(None, ("shown", result)):
                row[what] += 1


def _open(data: bytes, sizes: Counter[str], changes: Counter[str], *, full: bool) -> str:
    """Count the size of an image and what is changed in it; why it cannot be used, or nothing."""
    try:
        size = plain_size(data)
        if full or size is None:
            decoded = decode(data)
            size = decoded.image.size
            changes.update(decoded.changes)
        check_aspect(*size)
    except Unreadable as error:
        return str(error)
    sizes[f"{size[0]} x {size[1]}"] += 1
    return ""
