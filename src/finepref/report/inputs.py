"""What a report is built from: folders recognised by the files in them, as records. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finepref.arena.ratings import Ratings, load_ratings
from finepref.core.errors import InputError
from finepref.core.files import read_json
from finepref.core.provenance import sha256_file
from finepref.evaluate.sheets import Sheet, read_sheets
from finepref.formats.comparison import COMPARISON, GroupRow, Metric, ModelRow, PairRow, read_comparison
from finepref.formats.manifest import LINES, FolderRecord, ImageRow, read_record, read_rows
from finepref.formats.metrics import read_metrics
from finepref.formats.ratings import RATINGS
from finepref.formats.run import RUN, RunRecord, is_finished, read_run
from finepref.formats.scores import SCORES
from finepref.report.wording import significant

SAMPLES = "samples.json"
DEPTH = 2
SKIPPED = frozenset({"images", "checkpoints", "samples", "cache", "unet", "transformer"})

Curve = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Origin:
    """A model of an evaluation: name, where it came from, hash of its weights, pipeline class, sampling in words."""

    name: str
    origin: str
    fingerprint: str
    pipeline: str | None
    sampling: str


@dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """An evaluation folder: its images, scores and comparison.

    models: names, the baseline first. metrics: name -> fingerprints, higher_is_better, used_in_training. scores, pairs,
    groups: rows of comparison.json. protocols: by which the images were made. inputs: file -> hash.
    """

    folder: Path
    images: tuple[ImageRow, ...]
    sheets: tuple[Sheet, ...]
    baseline: str
    models: tuple[str, ...]
    makers: tuple[Origin, ...]
    protocols: frozenset[str]
    prompt_sets: tuple[str, ...]
    metrics: Mapping[str, Metric]
    level: float
    forced: bool
    scores: tuple[ModelRow, ...]
    pairs: tuple[PairRow, ...]
    groups: tuple[GroupRow, ...]
    inputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A training run: what `run.json` says, and name -> (steps, values) of its metrics."""

    folder: Path
    about: RunRecord
    curves: Mapping[str, Curve]

    @property
    def name(self) -> str:
        """That of the folder."""
        return self.folder.name

    @property
    def signal(self) -> str:
        """The training signal in words."""
        signals = self.about.signals
        return signals.kind + (f" ({', '.join(signals.rewards)})" if signals.rewards else "")

    @property
    def network_calls(self) -> int | None:
        """All that were counted."""
        calls = [value for value in self.about.network_calls.values() if value is not None]
        return sum(calls) if calls else None


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a report shows, in the order in which it was found."""

    evaluations: tuple[EvaluationFolder, ...]
    runs: tuple[RunFolder, ...]
    arenas: tuple[Ratings, ...]


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
        tuple(RunFolder(folder, read_run(folder), _curves(folder)) for folder in found if is_finished(folder)),
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


def read_evaluation(folder: Path) -> EvaluationFolder:
    """Read an evaluation folder that went through `score` and `compare`."""
    for name, command in ((SCORES, "score"), (COMPARISON, "compare")):
        if not (folder / name).is_file():
            raise InputError(f"it has images but no {name}", where=folder, remedy=f"run `finepref {command}` on it")
    found, made = read_comparison(folder), read_record(folder)
    inputs = found.provenance.get("inputs", {})
    if inputs and sha256_file(folder / SCORES) not in inputs.values():
        raise InputError(
            f"{COMPARISON} is of other scores than {SCORES}", where=folder, remedy="run `finepref compare` again"
        )
    return EvaluationFolder(
        folder, images=tuple(read_rows(folder)), sheets=read_sheets(folder, force=found.forced).sheets,
        baseline=found.baseline, models=(found.baseline, *(m for m in found.model_names if m != found.baseline)),
        makers=_makers(made), protocols=frozenset(made.protocols.values()), prompt_sets=found.prompt_sets,
        metrics=found.metrics, level=found.level, forced=found.forced, scores=found.models, pairs=found.pairs,
        groups=found.groups, inputs=inputs,
    )  # fmt: skip


def _makers(made: FolderRecord) -> tuple[Origin, ...]:
    sampled = {slot.split("/")[0]: settings for slot, settings in reversed([*made.sampling.items()])}
    return tuple(
        Origin(name, about.origin, about.fingerprint, about.pipeline or None, _sampling(sampled.get(name)))
        for name, about in made.models.items()
    )


def _sampling(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return "–"
    words = [f"{settings['steps']} steps", f"guidance {significant(settings['guidance'], 3)}"]
    words += [str(settings["scheduler"])] if settings.get("scheduler") else []
    return ", ".join(words + (["x".join(map(str, settings["size"]))] if settings.get("size") else []))


def _curves(folder: Path) -> dict[str, Curve]:
    """Every finite number that was logged, over the steps."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for record in read_metrics(folder):
        for name, value in record.totals().items():
            if math.isfinite(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(float(record.step))
                values.append(value)
    return {**found}


def read_samples(folder: Path) -> tuple[tuple[str, ...], int]:
    """The prompts of a folder of samples, and the seed that is shown.

    Raises:
        InputError: its list of prompts is missing.
    """
    found = read_json(folder / SAMPLES)
    if not isinstance(found, dict) or "prompts" not in found or "seeds" not in found:
        raise InputError("it lists no prompts", where=folder / SAMPLES, remedy="train again")
    return tuple(map(str, found["prompts"])), int(found["seeds"][0])
