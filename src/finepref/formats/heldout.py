"""What a run says of pairs that it does not train on: heldout.jsonl (evaluations), heldout.parquet (its start).

heldout.parquet holds the errors of the network before the first step, so that every later line compares with them,
also after a resume. Shapes: P pairs, D draws of a level and a noise for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.core.errors import InputError
from finepref.core.files import finite, parquet_meta, write_parquet
from finepref.core.interval import Interval
from finepref.formats.metrics import HELDOUT, append_line
from finepref.formats.records import as_record, json_lines, read_columns
from finepref.formats.run import home_of

START = "heldout.parquet"
WORDS = {
    "heldout/accuracy": "Held-out pairs ranked as people did (higher is better)",
    "heldout/lead": "Held-out pairs: lead of winners over losers (higher is better)",
    "heldout/gain_w": "Held-out winners: gain over the start",
    "heldout/gain_l": "Held-out losers: gain over the start",
    "heldout/gain_far": "Held-out winners: gain at high noise",
    "heldout/fit": "Held-out pairs: -log sigmoid of the pair logit (lower is better)",
    "heldout/length": "Length of predictions over that of the start",
}
REMEDY = "put the file back, or train again; a run that is not finished mends it with --resume"
SIDES = ("error_w", "error_l", "power_w", "power_l")
COLUMNS = pa.schema([("pair_id", pa.string()), ("draw", pa.int32()), *((name, pa.float32()) for name in SIDES)])
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldOutBucket:
    """The same of the draws in one part of the noise path, the least noise first."""

    accuracy: float
    gain_w: float
    gain_l: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutMetrics:
    """What the network of a step says of P held-out pairs; A = L_start - L is its gain over the start of the run.

    accuracy: share of pairs with A_w > A_l, ties half; 1/2 for the start. lead: mean of A_w - A_l. gain_w, gain_l: mean
    of A_w and of A_l. gain_far: mean of A_w in the noisier half of the draws, where it is decided what a picture shows.
    fit: mean of -log sigmoid(s (A_w - A_l)), where s is the run's own beta / 2; None without one. Intervals are of
    95 %, over prompts. length: root mean square of the predictions over that of the start's.
    """

    step: int
    pairs: int
    prompts: int
    accuracy: Interval
    lead: Interval
    gain_w: Interval
    gain_l: Interval
    gain_far: float
    fit: float | None
    length: float
    by_t: tuple[HeldOutBucket, ...]

    def numbers(self) -> dict[str, float]:
        """Everything to draw."""
        found = {f"heldout/{name}": getattr(self, name).value for name in ("accuracy", "lead", "gain_w", "gain_l")}
        found |= {"heldout/gain_far": self.gain_far}
        return found | {"heldout/length": self.length} | ({} if self.fit is None else {"heldout/fit": self.fit})


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two voters say the same of a pair of images that both saw: the ceiling of any accuracy.

    pairs: pairs of images that several voters decided. share: probability that two of them agree; nan for none.
    """

    pairs: int
    share: float

    @property
    def ceiling(self) -> float:
        """The accuracy of somebody who always says what most voters would: p with p^2 + (1-p)^2 = share."""
        return (1 + math.sqrt(max(0.0, 2 * self.share - 1))) / 2


def append_heldout(folder: Path, record: HeldOutMetrics) -> None:
    """Append an evaluation to heldout.jsonl."""
    append_line(folder / HELDOUT, asdict(record))


def read_heldout(folder: Path) -> tuple[HeldOutMetrics, ...]:
    """The evaluations in heldout.jsonl, none where the file is missing.

    Raises:
        InputError: a line that is not JSON or not an evaluation.
    """
    path = folder / HELDOUT
    lines = json_lines(path, remedy=REMEDY) if path.is_file() else iter(())
    return tuple(as_record(HeldOutMetrics, _numbers(line), where=where, remedy=REMEDY) for where, line in lines)


def looks_of(folder: Path) -> tuple[HeldOutMetrics, ...]:
    """The evaluations of a run, or those up to the step of a checkpoint of one.

    Raises:
        InputError: as `read_heldout`.
    """
    home, step = home_of(folder)
    return tuple(line for line in read_heldout(home) if step is None or line.step <= step)


def look_of(lines: Sequence[HeldOutMetrics], kept: int | None) -> HeldOutMetrics:
    """The evaluation of the step that a run left: the one that was kept, else the last one."""
    return next((line for line in lines if line.step == kept), lines[-1])


def write_start(
    folder: Path, ids: Sequence[str], values: Floats, agreement: Agreement, signal: Interval | None
) -> None:
    """Keep what the start of a run says. values: [P,D,4], columns `SIDES`. signal: as of `read_signal_share`."""
    pairs, draws, _ = values.shape
    columns = {name: values[:, :, place].ravel().astype(np.float32) for place, name in enumerate(SIDES)}
    table = pa.table(
        {"pair_id": np.repeat(np.array(ids, dtype=object), draws), "draw": np.tile(np.arange(draws), pairs), **columns},
        schema=COLUMNS,
    )
    meta = {"agreement": finite(asdict(agreement)), "signal": None if signal is None else finite(asdict(signal))}
    write_parquet(folder / START, table, meta=meta)


def read_start(folder: Path, ids: Sequence[str], draws: int) -> Floats:
    """What `write_start` kept, [P,D,4].

    Raises:
        InputError: it is of other pairs, or of another number of draws.
    """
    path = folder / START
    table = read_columns(path, COLUMNS)
    if table["pair_id"].to_pylist() != [each for each in ids for _ in range(draws)]:
        remedy = "set them as they were, or train into another folder"
        raise InputError("it is of other held-out pairs, or another validation.draws", where=path, remedy=remedy)
    values = np.stack([table[name].to_numpy() for name in SIDES], axis=1).astype(np.float64)
    return values.reshape(len(ids), draws, len(SIDES))


def read_agreement(folder: Path) -> Agreement | None:
    """How far voters agree on the data of a run; None where its heldout.parquet is not there."""
    path = home_of(folder)[0] / START
    if not path.is_file():
        return None
    return as_record(Agreement, _numbers(parquet_meta(path).get("agreement")), where=path, remedy=REMEDY)


def read_signal_share(folder: Path) -> Interval | None:
    """Share of a run's training pairs that its signal orders as people did; None where the votes are the signal, or
    heldout.parquet is not there.
    """
    path = home_of(folder)[0] / START
    found = parquet_meta(path).get("signal") if path.is_file() else None
    return None if found is None else as_record(Interval, _numbers(found), where=path, remedy=REMEDY)


def start_far(folder: Path) -> float:
    """Mean error of the start on held-out winners in the noisier half of the draws, to hold `gain_far` against; nan
    where heldout.parquet is not there.
    """
    path = home_of(folder)[0] / START
    if not path.is_file():
        return math.nan
    table = read_columns(path, COLUMNS)
    draw, error = table["draw"].to_numpy(), table["error_w"].to_numpy().astype(np.float64)
    return float(error[draw >= (draw.max() + 1) // 2].mean())


def _numbers(value: Any) -> Any:
    """null as nan, but for `fit`, where it means that there is none."""
    if isinstance(value, dict):
        return {name: _numbers(each) if name != "fit" else each for name, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return math.nan if value is None else value
