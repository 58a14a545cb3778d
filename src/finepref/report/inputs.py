"""What a report is built from: folders recognised by the files in them. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finepref.arena.ratings import Ratings, load_ratings
from finepref.core.errors import InputError
from finepref.core.files import read_json
from finepref.core.provenance import sha256_file
from finepref.evaluate.sheets import Sheets, read_sheets
from finepref.formats.comparison import COMPARISON, read_comparison
from finepref.formats.manifest import LINES, ImageRow, read_record, read_rows
from finepref.formats.scores import SCORES

RATINGS, RUN = "ratings.json", "run.json"
DEPTH = 2
SKIPPED = frozenset({"images", "checkpoints", "samples", "cache", "unet", "transformer"})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation folder: its images, scores and comparison."""

    folder: Path
    rows: tuple[ImageRow, ...]
    record: Mapping[str, Any]
    scores: Sheets
    comparison: Mapping[str, Any]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, the baseline first."""
        names = tuple(self.comparison["model_names"])
        first = self.comparison["baseline"]
        return (first, *(name for name in names if name != first))


@dataclass(frozen=True, slots=True)
class Run:
    """A training run: its `run.json` and the records of its `metrics.jsonl`."""

    folder: Path
    name: str
    about: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Arena:
    """An arena folder: ratings, and the gaps of the votes where they are there."""

    folder: Path
    ratings: Ratings
    gaps: Path | None
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a report shows, in the order in which it was found."""

    evaluations: tuple[Evaluation, ...]
    runs: tuple[Run, ...]
    arenas: tuple[Arena, ...]


def find_inputs(folders: Iterable[str | Path]) -> Inputs:
    """Look for arena, run and evaluation folders in these folders and up to two levels below.

    Raises:
        InputError: a folder is missing, nothing was recognised, or a recognised folder is not finished.
    """
    roots = [Path(folder) for folder in folders]
    found: dict[Path, None] = {}
    for root in roots:
        if not root.is_dir():
            raise InputError("no such folder", where=root, remedy="give folders that the other commands wrote")
        for folder in _walk(root, DEPTH):
            found.setdefault(folder.resolve(), None)
    inputs = Inputs(
        tuple(read_evaluation(folder) for folder in found if (folder / LINES).is_file()),
        tuple(read_run(folder) for folder in found if (folder / RUN).is_file()),
        tuple(read_arena(folder) for folder in found if (folder / RATINGS).is_file()),
    )
    if not (inputs.evaluations or inputs.runs or inputs.arenas):
        raise InputError(
            "no arena (ratings.json), run (run.json) or evaluation (manifest.jsonl)",
            where=", ".join(str(root) for root in roots),
            remedy="run the stage that writes one",
        )
    return inputs


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and child.name not in SKIPPED and not child.name.startswith("."):
                yield from _walk(child, depth - 1)


def read_evaluation(folder: Path) -> Evaluation:
    """Read an evaluation folder that went through `score` and `compare`."""
    for name, command in ((SCORES, "score"), (COMPARISON, "compare")):
        if not (folder / name).is_file():
            raise InputError(f"it has images but no {name}", where=folder, remedy=f"run `finepref {command}` on it")
    comparison = asdict(read_comparison(folder))
    known = comparison.get("provenance", {}).get("inputs", {}).values()
    if known and sha256_file(folder / SCORES) not in known:
        raise InputError(
            f"{COMPARISON} is of other scores than {SCORES}", where=folder, remedy="run `finepref compare` again"
        )
    scores = read_sheets(folder, force=bool(comparison.get("forced")))
    return Evaluation(folder, tuple(read_rows(folder)), asdict(read_record(folder)), scores, comparison)


def read_run(folder: Path) -> Run:
    """Read `run.json` and `metrics.jsonl` of a run folder; a run without metrics has no curves."""
    path = folder / "metrics.jsonl"
    records = []
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"not valid JSON ({error})", where=f"{path}, line {number}") from None
    return Run(folder, folder.name, read_json(folder / RUN), tuple(records))


def read_arena(folder: Path) -> Arena:
    """Read `ratings.json` and remember where `gaps.parquet` is."""
    gaps = folder / "gaps.parquet"
    provenance = read_json(folder / RATINGS).get("provenance", {})
    return Arena(folder, load_ratings(folder), gaps if gaps.is_file() else None, provenance)
