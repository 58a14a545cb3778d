"""What a report is built from: folders recognised by the files in them, as the records of those files. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from finepref.arena.agreement import agreement
from finepref.arena.engines import rate
from finepref.arena.ratings import Ratings, load_ratings
from finepref.core.errors import InputError
from finepref.core.files import read_json
from finepref.core.provenance import sha256_file
from finepref.evaluate.sheets import Sheet, read_sheets
from finepref.formats.collection import is_study, read_study
from finepref.formats.comparison import COMPARISON, Comparison, Metric, read_comparison
from finepref.formats.heldout import read_heldout
from finepref.formats.ksortresult import KSORT, KSortRecord, is_ksort, read_ksort
from finepref.formats.manifest import LINES, Manifest, read_manifest
from finepref.formats.metrics import METRICS, read_metrics
from finepref.formats.ratings import RATINGS
from finepref.formats.records import as_record
from finepref.formats.rounds import ROUNDS, RoundsRecord, read_rounds, round_folder
from finepref.formats.run import CHECKPOINTS, RUN, RunRecord, at_step, home_of, is_finished, read_run
from finepref.formats.scores import SCORES
from finepref.formats.studyvotes import voted_on
from finepref.formats.votefiles import read_votes

SAMPLES = "samples.json"
DEPTH = 2
SKIPPED = frozenset({"images", CHECKPOINTS, "samples", "cache", "unet", "transformer"})

Curve = tuple[Sequence[float], Sequence[float]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """An evaluation folder: its images, its scores as sheets and its comparison, as far as they are there.

    missing: model -> how many of its listed images are not there.
    """

    name: str
    folder: Path
    manifest: Manifest
    missing: Counter[str]
    metrics: Mapping[str, Metric]
    sheets: tuple[Sheet, ...]
    comparison: Comparison | None

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models that have images; those of the comparison first, and of them the baseline."""
        compared = self.comparison.in_order if self.comparison else ()
        return tuple(dict.fromkeys([*compared, *(row.model for row in self.manifest.rows)]))

    @property
    def baseline(self) -> str | None:
        """The model that the others are compared with."""
        return self.comparison.baseline if self.comparison else None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A training run: what `run.json` says if it is finished, and name -> (steps, values) of its metrics.

    until: the step of the checkpoint that was asked for; None for all of the run.
    """

    name: str
    folder: Path
    record: RunRecord | None
    curves: Mapping[str, Curve]
    until: int | None = None

    @property
    def step(self) -> int:
        """The last step of what is shown."""
        if self.record is not None:
            return self.record.steps
        return self.until or max((int(steps[-1]) for steps, _ in self.curves.values()), default=0)


@dataclass(frozen=True, slots=True)
class ArenaFolder:
    """The ratings of an arena folder, or of one question of a study."""

    name: str
    ratings: Ratings


@dataclass(frozen=True, slots=True)
class KSortFolder:
    """The result of a K-Sort evaluation."""

    name: str
    record: KSortRecord


@dataclass(frozen=True, slots=True)
class RoundsFolder:
    """A folder of rounds."""

    name: str
    folder: Path
    record: RoundsRecord


@dataclass(frozen=True, slots=True)
class VotesFolder:
    """A study of votes. boards: a question each, none before two models met."""

    name: str
    folder: Path
    boards: tuple[ArenaFolder, ...]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a report shows, in the order in which it was found."""

    evaluations: tuple[EvaluationFolder, ...]
    runs: tuple[RunFolder, ...]
    arenas: tuple[ArenaFolder, ...]
    ksorts: tuple[KSortFolder, ...] = ()
    rounds: tuple[RoundsFolder, ...] = ()
    studies: tuple[VotesFolder, ...] = ()


@dataclass(frozen=True, slots=True)
class Samples:
    """What samples.json of a folder of samples lists."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]


def find_inputs(folders: Iterable[str | Path]) -> Inputs:
    """Look for arena, run and evaluation folders in these folders and up to two levels below.

    Every stage is shown as far as it went: images without scores, a run that is not finished, or a checkpoint of it.

    Raises:
        InputError: a folder is missing, nothing was recognised, or a file of a recognised folder cannot be read.
    """
    roots = [Path(at_step(folder)) for folder in folders]
    found: dict[Path, None] = {}
    for root in roots:
        if not root.is_dir():
            raise InputError("no such folder", where=root, remedy="give folders that the other commands wrote")
        for folder in _walk(root, DEPTH):
            found.setdefault(folder.resolve(), None)
    studies = _read(_study, [folder for folder in found if is_study(folder)])
    inputs = Inputs(
        _read(_evaluation, [folder for folder in found if (folder / LINES).is_file()]),
        _read(_run, [folder for folder in found if _is_run(folder)]),
        (
            *_read(_arena, [folder for folder in found if (folder / RATINGS).is_file()]),
            *(board for study in studies for board in study.boards),
        ),
        _read(_ksort, [folder for folder in found if is_ksort(folder)]),
        _read(_rounds, [folder for folder in found if (folder / ROUNDS).is_file()]),
        studies,
    )
    if not any(getattr(inputs, name) for name in Inputs.__slots__):
        nothing = (
            f"no arena ({RATINGS}), run ({RUN}, {METRICS}), evaluation ({LINES}), K-Sort evaluation ({KSORT}), rounds "
            f"({ROUNDS}) or study of votes"
        )
        raise InputError(nothing, where=", ".join(map(str, roots)), remedy="run the stage that writes one")
    return inputs


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if (folder / ROUNDS).is_file():  # of its rounds the runs, and the last one's board and pictures
        rounds = [round_folder(folder, played.number) for played in read_rounds(folder).rounds]
        yield from (each / "run" for each in rounds)
        yield from (rounds[-1] / name for name in ("board", "eval") if rounds)
    elif depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and child.name not in SKIPPED and not child.name.startswith("."):
                yield from _walk(child, depth - 1)


def _read(read: Callable[[str, Path], T], folders: Sequence[Path]) -> tuple[T, ...]:
    """What is in these folders, each called by its own name, with its parent's where two have the same.

    Raises:
        InputError: a file that cannot be read, and how to go on without its folder.
    """
    twice = Counter(folder.name for folder in folders)
    found = []
    for folder in folders:
        name = folder.name if twice[folder.name] == 1 else f"{folder.parent.name}/{folder.name}"
        try:
            found.append(read(name, folder))
        except InputError as error:
            remedy = "; ".join(filter(None, (error.remedy, f"or name the other folders, without {folder}")))
            raise InputError(error.what, where=error.where, remedy=remedy) from None
    return tuple(found)


def _evaluation(name: str, folder: Path) -> EvaluationFolder:
    """Read an evaluation folder, which `score` and `compare` may still have to see."""
    manifest = read_manifest(folder)
    missing = Counter(row.model for row in manifest.rows if not (folder / row.path).is_file())
    scored, compared = (folder / SCORES).is_file(), (folder / COMPARISON).is_file()
    comparison = read_comparison(folder) if compared else None
    inputs = comparison.provenance.get("inputs", {}) if comparison else {}
    if comparison and not (scored and (not inputs or sha256_file(folder / SCORES) in inputs.values())):
        what = f"{COMPARISON} is of other scores than {SCORES}" if scored else f"{COMPARISON} is there, {SCORES} is not"
        raise InputError(what, where=folder, remedy="run `finepref score` and `finepref compare` again")
    sheets = read_sheets(folder, force=comparison is None or comparison.forced) if scored else None
    shown, metrics = (sheets.sheets, sheets.metrics) if sheets else ((), {})
    return EvaluationFolder(name, folder, manifest, missing, metrics, shown, comparison)


def _is_run(folder: Path) -> bool:
    """Whether it is a run folder, of a run that began to train at least, or a checkpoint of one."""
    here = any((folder / name).is_file() for name in (RUN, METRICS))
    return here or home_of(folder)[1] is not None


def _run(name: str, folder: Path) -> RunFolder:
    """Read a run folder, or the run of a checkpoint up to its step; a run without metrics has no curves."""
    run, until = home_of(folder)
    steps_taken = [(line.step, replace(line, by_t=()).numbers()) for line in read_metrics(run)]
    looks = [(line.step, line.numbers()) for line in read_heldout(run)]
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for number, numbers in (*steps_taken, *looks):
        for key, value in numbers.items():
            if math.isfinite(value) and (until is None or number <= until):
                steps, values = curves.setdefault(key, ([], []))
                steps.append(float(number))
                values.append(value)
    if until is not None:
        record = read_run(folder) if is_finished(folder) else None
        return RunFolder(f"{run.name}@{until}", run, record, curves, until)
    return RunFolder(name, run, read_run(run) if is_finished(run) else None, curves)


def _arena(name: str, folder: Path) -> ArenaFolder:
    return ArenaFolder(name, load_ratings(folder))


def _study(name: str, folder: Path) -> VotesFolder:
    found, questions, voted = [], read_study(folder).questions, voted_on(folder)
    for question in (questions[place] for place in sorted(voted)):
        table = read_votes(folder, question=question.name)
        if len(table.votes.models) > 1:
            ratings = replace(rate(table), agreement=agreement(table.votes))
            found.append(ArenaFolder(name if len(questions) == 1 else f"{name}: {question.name}", ratings))
    return VotesFolder(name, folder, tuple(found))


def _rounds(name: str, folder: Path) -> RoundsFolder:
    return RoundsFolder(name, folder, read_rounds(folder))


def _ksort(name: str, folder: Path) -> KSortFolder:
    return KSortFolder(name, read_ksort(folder))


def read_samples(folder: Path) -> tuple[tuple[str, ...], int]:
    """The prompts of a folder of samples, and the seed that is shown.

    Raises:
        InputError: its list of prompts is missing.
    """
    found = as_record(Samples, read_json(folder / SAMPLES), where=folder / SAMPLES, remedy="train again")
    if not found.seeds:
        raise InputError("it lists no seeds", where=folder / SAMPLES, remedy="train again")
    return found.prompts, found.seeds[0]
