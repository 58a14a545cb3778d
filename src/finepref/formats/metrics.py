"""What a run writes while it goes on: metrics.jsonl (bit-identical after a resume), timing.jsonl (all seconds).

One JSON line an optimiser step; nan and infinity are null in the files and nan when they are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finepref.core.errors import InputError
from finepref.core.files import finite, parse_json, reading, write_text
from finepref.formats.records import as_record, json_lines

METRICS, TIMING, HELDOUT = "metrics.jsonl", "timing.jsonl", "heldout.jsonl"
NAMED = ("step", "pairs", "loss_scale", "overflow", "skipped_pairs")
WORDS = {
    "loss": "Loss (lower is better)",
    "implicit_accuracy": "Pairs of the step that the model ranks as its signal does (a coin: 0.5; higher is better)",
    "u": "Pair logit u (margin taken off)",
    "A_w": "Gain over the reference, winners (A_w)",
    "A_l": "Gain over the reference, losers (A_l)",
    "L_w": "Error of the model, winners (L_w)",
    "L_l": "Error of the model, losers (L_l)",
    "sigmoid_minus_u": "Weight of a pair's gradient",
    "grad_norm": "Gradient norm",
    "lr": "Learning rate",
    "loss_scale": "Loss scale of fp16",
}
REMEDY = "train again, or remove the line"


@dataclass(frozen=True, slots=True)
class BucketMetrics:
    """Means over the pairs of a step that lie in one t-bucket."""

    pairs: int
    means: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """An optimiser step: means over its pairs by name (loss, ...), the same by t-bucket (lowest t first).

    grad_norm: before clipping. lr: learning rate. loss_scale: of fp16, else None; overflow: gradients times it were
    beyond float16, so that the step was left out. skipped_pairs: the suspects where a step was skipped, else None.
    """

    step: int
    means: Mapping[str, float]
    pairs: int
    by_t: tuple[BucketMetrics, ...]
    grad_norm: float
    lr: float
    loss_scale: float | None = None
    overflow: bool = False
    skipped_pairs: tuple[str, ...] | None = None

    def totals(self) -> dict[str, float]:
        """The means, gradient norm, learning rate and loss scale by name; `WORDS` says what they are."""
        scale = {} if self.loss_scale is None else {"loss_scale": self.loss_scale}
        return {**self.means, "grad_norm": self.grad_norm, "lr": self.lr, **scale}

    def brief(self, room: int | None = None) -> str:
        """What stands beside a bar: loss, share of pairs that are ranked as the signal does, and the pair logit; of
        them the first ones, as many as fit into `room` characters.
        """
        names = {"loss": "loss", "implicit_accuracy": "accuracy", "u": "margin"}
        told = [f"{word} {self.means[name]:.3g}" for name, word in names.items() if name in self.means]
        while room is not None and told and len(", ".join(told)) > room:
            told.pop()
        return ", ".join(told)

    def numbers(self) -> dict[str, float]:
        """Everything to draw: `totals`, and those of t-buckets as `NAME/t0`, ..."""
        found = self.totals()
        for number, bucket in enumerate(self.by_t):
            found |= {f"{name}/t{number}": value for name, value in bucket.means.items()}
        return found


@dataclass(frozen=True, slots=True)
class StepTiming:
    """Seconds of an optimiser step, and since the process began to train."""

    step: int
    seconds: float
    since_start: float


def append_metrics(folder: Path, record: StepMetrics) -> None:
    """Append a step to metrics.jsonl."""
    skipped = {} if record.skipped_pairs is None else {"skipped_pairs": record.skipped_pairs}
    by_t = [{"pairs": bucket.pairs, **bucket.means} for bucket in record.by_t]
    head = {"step": record.step, **record.means, "pairs": record.pairs, "by_t": by_t}
    scaled = {} if record.loss_scale is None else {"loss_scale": record.loss_scale, "overflow": record.overflow}
    append_line(folder / METRICS, {**head, "grad_norm": record.grad_norm, **skipped, "lr": record.lr, **scaled})


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record to a file of JSON lines; nan and infinity are null in it."""
    try:
        line = json.dumps(record, allow_nan=False)
    except ValueError:  # a number that is not finite
        line = json.dumps(finite(record), allow_nan=False)
    with path.open("a", encoding="utf-8") as handle:
        handle.write(line + "\n")


def read_metrics(folder: Path) -> tuple[StepMetrics, ...]:
    """The steps in metrics.jsonl, none where the file is missing.

    Raises:
        InputError: a line that is not JSON or not a step.
    """
    return tuple(_as_metrics(line, where) for where, line in _lines(folder / METRICS))


def read_timing(folder: Path) -> tuple[StepTiming, ...]:
    """The steps in timing.jsonl, none where the file is missing.

    Raises:
        InputError: a line that is not JSON or not a step.
    """
    return tuple(as_record(StepTiming, line, where=where, remedy=REMEDY) for where, line in _lines(folder / TIMING))


def cut_after(folder: Path, step: int) -> None:
    """Drop the lines of all logs that belong to steps after `step` (and a last line that was cut short)."""
    for path in (folder / METRICS, folder / TIMING, folder / HELDOUT):
        if not path.exists():
            continue
        with reading(path, "a log of steps"):
            lines = path.read_text(encoding="utf-8").splitlines()
        kept = []
        for number, line in enumerate(lines, start=1):
            try:
                if parse_json(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, TypeError, LookupError, RecursionError):
                if number == len(lines):
                    break
                raise InputError("not a step", where=f"{path}, line {number}", remedy=REMEDY) from None
        write_text(path, "".join(line + "\n" for line in kept))


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    return json_lines(path, remedy="resume the run, which mends it") if path.is_file() else iter(())


def _as_metrics(line: Any, where: str) -> StepMetrics:
    if not isinstance(line, dict):
        raise InputError("not a JSON object", where=where, remedy=REMEDY)
    value: dict[str, Any] = {name: line.pop(name) for name in NAMED if name in line}
    value |= _numbers({name: line.pop(name, None) for name in ("grad_norm", "lr")})
    by_t = line.pop("by_t", [])
    value["by_t"] = [_as_bucket(bucket) for bucket in by_t] if isinstance(by_t, list) else by_t
    return as_record(StepMetrics, value | {"means": _numbers(line)}, where=where, remedy=REMEDY)


def _as_bucket(bucket: object) -> object:
    if not isinstance(bucket, dict):
        return bucket
    return {"pairs": bucket.pop("pairs", 0), "means": _numbers(bucket)}


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """null as nan."""
    return {name: float("nan") if value is None else value for name, value in values.items()}
