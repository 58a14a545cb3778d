"""What a report is built from: folders recognised by the files in them, as records. No torch.

Nothing else in the report knows a key of comparison.json, manifest.json, run.json, ratings.json or metrics.jsonl.
"""

from __future__ import annotations

import json
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
from finepref.formats.scores import SCORES
from finepref.report.wording import is_number, significant

RATINGS, RUN, METRICS, SAMPLES = "ratings.json", "run.json", "metrics.jsonl", "samples.json"
DEPTH = 2
SKIPPED = frozenset({"images", "checkpoints", "samples", "cache", "unet", "transformer"})
HIDDEN = frozenset({"step", "pairs", "epoch", "by_t"})

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
    """A training run: what `run.json` says (None where it does not), and name -> (steps, values) of its metrics."""

    folder: Path
    name: str
    method: str | None
    signal: str
    steps: int | None
    pairs: int | None
    network_calls: int | None
    device_seconds: float | None
    device: str | None
    peak_memory_mb: float | None
    seed: int | None
    curves: Mapping[str, Curve]


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
        tuple(read_run(folder) for folder in found if (folder / RUN).is_file()),
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


def read_run(folder: Path) -> RunFolder:
    """Read `run.json` and `metrics.jsonl` of a run folder; a run without metrics has no curves."""
    about = read_json(folder / RUN)
    calls = [value for value in (about.get("network_calls") or {}).values() if is_number(value)]
    names = ("method", "steps", "pairs", "device_seconds", "device", "peak_memory_mb", "seed")
    return RunFolder(
        folder, folder.name, signal=_signal(about.get("signals")), network_calls=sum(calls) if calls else None,
        curves=_curves(folder / METRICS), **{name: about.get(name) for name in names},
    )  # fmt: skip


def _signal(signals: Mapping[str, Any] | None) -> str:
    """The training signal of a run in words."""
    if not signals:
        return "labels"
    rewards = signals.get("rewards") or []
    rewards = [rewards] if isinstance(rewards, str) else rewards
    return str(signals.get("kind", "–")) + (f" ({', '.join(map(str, rewards))})" if rewards else "")


def _curves(path: Path) -> dict[str, Curve]:
    """Every number that was logged, over the steps."""
    found: dict[str, Curve] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"not valid JSON ({error})", where=f"{path}, line {number}") from None
        for name, value in record.items():
            if "step" in record and name not in HIDDEN and is_number(value):
                for values, added in zip(found.setdefault(name, ([], [])), (record["step"], value), strict=True):
                    values.append(float(added))  # type: ignore[attr-defined]
    return found


def read_samples(folder: Path) -> tuple[tuple[str, ...], int]:
    """The prompts of a folder of samples, and the seed that is shown.

    Raises:
        InputError: its list of prompts is missing.
    """
    found = read_json(folder / SAMPLES)
    if not isinstance(found, dict) or "prompts" not in found or "seeds" not in found:
        raise InputError("it lists no prompts", where=folder / SAMPLES, remedy="train again")
    return tuple(map(str, found["prompts"])), int(found["seeds"][0])
