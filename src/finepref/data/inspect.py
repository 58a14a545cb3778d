"""What a preference data set holds: counts, ties, models, voters, image sizes, and what is wrong with it. No torch."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finepref.core.errors import InputError
from finepref.core.images import Unreadable, decode, dimensions
from finepref.core.progress import progress
from finepref.core.provenance import sha256_bytes
from finepref.formats.preferences import (
    SAID,
    Preference,
    Quarantined,
    detect_format,
    read_preferences,
    winner_of,
)

RESULTS = {1.0: ("won", "lost"), 0.0: ("lost", "won"), 0.5: ("tied", "tied")}  # what a label says of the two models
NONE = "none"  # said by a pair that nobody voted on


@dataclass(slots=True)
class DataReport:
    """format; pairs that were looked at; labels: image_0, image_1, tie, none -> pairs.

    models: name -> {shown, won, tied, lost}. sizes: "W x H" -> images. problems: unusable rows, each whole pair once.
    repeated: pairs that occur more than once (same prompt and images); identical: both images the same bytes;
    contradicted: repeated pairs whose votes disagree. images: distinct images.
    """

    format: str
    pairs: int = 0
    prompts: int = 0
    voters: int = 0
    images: int = 0
    labels: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*SAID.values(), NONE), 0))
    models: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    identical: int = 0
    repeated: int = 0
    contradicted: int = 0
    problems: list[Quarantined] = field(default_factory=list)


def inspect(
    paths: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    full: bool = False,
    limit: int | None = None,
) -> DataReport:
    """Read a data set once and count what is in it.

    Args:
        full: decode every image to its last byte (validate); else only the headers are read.
        limit: stop after this many pairs; None for all.

    Raises:
        InputError: the tables themselves cannot be read (missing column, unknown label, empty).
    """
    report = DataReport(format=detect_format(paths) if format == "auto" else format)
    rejected: list[Quarantined] = []
    pairs = read_preferences(paths, format=format, columns=columns, quarantine=rejected)
    seen = _Images(full)
    prompts: set[str] = set()
    voters: set[str | None] = {None}
    votes: dict[tuple[str, frozenset[str]], list[str]] = {}
    for index, pair in enumerate(progress(itertools.islice(pairs, limit), "read", total=limit, unit="pair")):
        prompts.add(sha256_bytes(pair.prompt.encode()))
        voters.add(pair.voter)
        _count(report, pair)
        shas, reasons = seen.look(pair)
        if reasons:
            report.problems.append(Quarantined(index + len(rejected), pair.pair_id, "; ".join(reasons)))
            continue
        report.identical += shas[0] == shas[1]
        winner = winner_of(pair.label)
        said = SAID.get(pair.label, NONE) if winner is None else shas[winner]
        votes.setdefault((pair.prompt, frozenset(shas)), []).append(said)
    report.problems = sorted([*report.problems, *rejected], key=lambda each: each.row)
    report.prompts, report.voters = len(prompts), len(voters) - 1
    report.images = sum(not reason for reason in seen.known.values())
    report.sizes = dict(seen.sizes.most_common())
    report.repeated = sum(len(each) > 1 for each in votes.values())
    report.contradicted = sum(len({*each} - {NONE}) > 1 for each in votes.values())
    report.models = dict(sorted(report.models.items(), key=lambda item: -item[1]["shown"]))
    return report


def _count(report: DataReport, pair: Preference) -> None:
    """Count a pair and what it says of its models."""
    report.pairs += 1
    report.labels[SAID.get(pair.label, NONE)] += 1
    for model, result in zip((pair.model_0, pair.model_1), RESULTS.get(pair.label, ("", "")), strict=True):
        if model is not None:
            row = report.models.setdefault(model, dict.fromkeys(("shown", "won", "tied", "lost"), 0))
            for what in filter(None, ("shown", result)):
                row[what] += 1


class _Images:
    """Images by content hash: each content is opened once. known: sha -> why it cannot be used, or nothing."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.known: dict[str, str] = {}
        self.sizes: Counter[str] = Counter()

    def look(self, pair: Preference) -> tuple[list[str], list[str]]:
        """(content hashes, reasons why the pair cannot be used)."""
        shas: list[str] = []
        reasons: list[str] = []
        for side, image in enumerate((pair.image_0, pair.image_1)):
            try:
                data = image.read()
                shas.append(sha256_bytes(data))
                if shas[-1] not in self.known:
                    self.known[shas[-1]] = self._open(data)
                if reason := self.known[shas[-1]]:
                    reasons.append(f"image_{side}: {reason}")
            except InputError as error:
                reasons.append(f"image_{side}: {error}")
        return shas, reasons

    def _open(self, data: bytes) -> str:
        try:
            width, height = dimensions(data)
            if self.full:
                decode(data)
        except Unreadable as error:
            return str(error)
        self.sizes[f"{width} x {height}"] += 1
        return ""
