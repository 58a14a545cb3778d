"""What a report is built from: folders recognised by the files in them, as the records of those files. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finepref.arena.ratings import Ratings, load_ratings
from finepref.core.errors import InputError
from finepref.core.files import read_json
from finepref.core.provenance import sha256_file
from finepref.evaluate.sheets import Sheet, read_sheets
from finepref.formats.comparison import COMPARISON, Comparison, read_comparison
from finepref.formats.manifest import LINES, Manifest, read_manifest
from finepref.formats.metrics import read_metrics
from finepref.formats.ratings import RATINGS
from finepref.formats.records import as_record
from finepref.formats.run import RUN, RunRecord, read_run
from finepref.formats.scores import SCORES

SAMPLES = "samples.json"
DEPTH = 2
SKIPPED = frozenset({"images", "checkpoints", "samples", "cache", "unet", "transformer"})

Curve = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """An evaluation folder: its images, its scores as sheets, and its comparison."""

    folder: Path
    manifest: Manifest
    sheets: tuple[Sheet, ...]
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A training run: what `run.json` says, and name -> (steps, values) of its metrics."""

    folder: Path
    record: RunRecord
    curves: Mapping[str, Curve]

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.name


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a report shows, in the order in which it was found."""

    evaluations: tuple[EvaluationFolder, ...]
    runs: tuple[RunFolder, ...]
    arenas: tuple[Ratings, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """What samples.json of a folder of samples lists."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]


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
        tuple(_evaluation(folder) for folder in found if (folder / LINES).is_file()),
        tuple(_run(folder) for folder in found if (folder / RUN).is_file()),
        tuple(load_ratings(folder) for folder in found if (folder / RATINGS).is_file()),
    )
    if not (inputs.evaluations or inputs.runs or inputs.arenas):
        nothing = f"no arena ({RATINGS}), run ({RUN}) or evaluation ({LINES})"
        raise InputError(nothing, where=", ".join(map(str, roots)), remedy="run the stage that writes one")
    return inputs


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and child.name not in SKIPPED and not child.name.startswith("."):
                yield from _walk(child, depth - 1)


def _evaluation(folder: Path) -> EvaluationFolder:
    """Read an evaluation folder that went through `score` and `compare`."""
    for name, command in ((SCORES, "score"), (COMPARISON, "compare")):
        if not (folder / name).is_file():
            raise InputError(f"it has images but no {name}", where=folder, remedy=f"run `finepref {command}` on it")
    comparison = read_comparison(folder)
    inputs = comparison.provenance.get("inputs", {})
    if inputs and sha256_file(folder / SCORES) not in inputs.values():
        what = f"{COMPARISON} is of other scores than {SCORES}"
        raise InputError(what, where=folder, remedy="run `finepref compare` again")
    sheets = read_sheets(folder, force=comparison.forced).sheets
    return EvaluationFolder(folder, read_manifest(folder), sheets, comparison)


def _run(folder: Path) -> RunFolder:
    """Read `run.json` and `metrics.jsonl` of a run folder; a run without metrics has no curves."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for step in read_metrics(folder):
        for name, value in replace(step, by_t=()).numbers().items():
            if math.isfinite(value):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(float(step.step))
                values.append(value)
    return RunFolder(folder, read_run(folder), curves)


def read_samples(folder: Path) -> tuple[tuple[str, ...], int]:
    """The prompts of a folder of samples, and the seed that is shown.

    Raises:
        InputError: its list of prompts is missing.
    """
    found = as_record(Samples, read_json(folder / SAMPLES), where=folder / SAMPLES, remedy="train again")
    if not found.seeds:
        raise InputError("it lists no seeds", where=folder / SAMPLES, remedy="train again")
    return found.prompts, found.seeds[0]
