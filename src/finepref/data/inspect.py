"""What a preference data set holds: counts, ties, models, voters, image sizes, and what is wrong with it. No torch."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.images import Unreadable, decode, dimensions
from finepref.core.progress import progress
from finepref.core.provenance import sha256_bytes
from finepref.formats.preferences import ImageRef, Preference, Quarantined, detect_format, read_preferences


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
    labels: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("image_0", "image_1", "tie", "none"), 0))
    models: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    identical: int = 0
    repeated: int = 0
    contradicted: int = 0
    problems: list[Quarantined] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


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
    tally = _Tally(report, full=full)
    for index, pair in enumerate(progress(itertools.islice(pairs, limit), "read", total=limit, unit="pair")):
        tally.add(pair, row=index + len(rejected))
    report.problems = sorted([*report.problems, *rejected], key=lambda each: each.row)
    tally.finish()
    return report


class _Tally:
    def __init__(self, report: DataReport, *, full: bool) -> None:
        self.report, self.full = report, full
        self.prompts: set[str] = set()
        self.voters: set[str] = set()
        self.sizes: Counter[str] = Counter()
        self.known: dict[str, str] = {}
        self.votes: dict[tuple[str, frozenset[str]], list[str]] = {}

    def add(self, pair: Preference, *, row: int) -> None:
        """Count one pair."""
        report = self.report
        report.pairs += 1
        self.prompts.add(sha256_bytes(pair.prompt.encode()))
        if pair.voter is not None:
            self.voters.add(pair.voter)
        label = "none" if math.isnan(pair.label) else {1.0: "image_0", 0.0: "image_1", 0.5: "tie"}[pair.label]
        report.labels[label] += 1
        self._models(pair, label)
        shas: list[str] = []
        reasons: list[str] = []
        for side, image in enumerate((pair.image_0, pair.image_1)):
            try:
                shas.append(self._image(image))
            except (InputError, Unreadable) as error:
                reasons.append(f"image_{side}: {error}")
        if reasons:
            report.problems.append(Quarantined(row=row, pair_id=pair.pair_id, reason="; ".join(reasons)))
            return
        report.identical += shas[0] == shas[1]
        winner = "tie" if label == "tie" else "" if label == "none" else shas[int(label[-1])]
        self.votes.setdefault((pair.prompt, frozenset(shas)), []).append(winner)

    def finish(self) -> None:
        """Put the totals into the report."""
        report = self.report
        report.prompts, report.voters = len(self.prompts), len(self.voters)
        report.images = sum(1 for reason in self.known.values() if not reason)
        report.sizes = dict(self.sizes.most_common())
        report.repeated = sum(len(votes) > 1 for votes in self.votes.values())
        report.contradicted = sum(len(set(votes) - {""}) > 1 for votes in self.votes.values())
        report.models = dict(sorted(report.models.items(), key=lambda item: -item[1]["shown"]))

    def _models(self, pair: Preference, label: str) -> None:
        for side, model in enumerate((pair.model_0, pair.model_1)):
            if model is None:
                continue
            row = self.report.models.setdefault(model, dict.fromkeys(("shown", "won", "tied", "lost"), 0))
            row["shown"] += 1
            if label == "tie":
                row["tied"] += 1
            elif label != "none":
                row["won" if label == f"image_{side}" else "lost"] += 1

    def _image(self, image: ImageRef) -> str:
        """Content hash of a readable image; each content is opened once."""
        data = image.read()
        sha = sha256_bytes(data)
        if sha not in self.known:
            try:
                width, height = dimensions(data)
                if self.full:
                    decode(data)
                self.sizes[f"{width} x {height}"] += 1
                self.known[sha] = ""
            except Unreadable as error:
                self.known[sha] = str(error)
        if self.known[sha]:
            raise Unreadable(self.known[sha])
        return sha
