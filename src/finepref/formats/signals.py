"""The sidecar: one row a pair, keyed by pair_id, with everything that a training run needs of the signal.

Columns: pair_id, winner int8, margin_0, margin_1 float32 (unscaled), weight float32, label_0, label_1 int8 nullable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.core import files
from finepref.core.errors import InputError
from finepref.core.notebook import MOST, table_html
from finepref.core.ownership import has_footer, own_file
from finepref.formats.hashcolumns import joined, packed, repeats, rows_of
from finepref.formats.records import as_record, frame, iterate_columns
from finepref.formats.textcolumn import PIECE, as_arrow

NO_LABEL = -1
REMEDY = "write the signals again with `finepref signals`"
TYPES = {
    "winner": np.int8, "margin_0": np.float32, "margin_1": np.float32, "weight": np.float32, "label_0": np.int8,
    "label_1": np.int8,
}  # fmt: skip
LABELS = ("label_0", "label_1")
COLUMNS = pa.schema([("pair_id", pa.string()), *((name, pa.from_numpy_dtype(kind)) for name, kind in TYPES.items())])
UNSET = {"margin_0": 0.0, "margin_1": 0.0, "weight": 1.0, "label_0": NO_LABEL, "label_1": NO_LABEL}


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """n pairs, no ties. pair_id: [n] str. winner: [n] int8. margin_0, margin_1, weight: [n] float32.

    label_0, label_1: [n] int8, -1 for none. meta: the footer (kinds, engine, rewards, extremes, counts, inputs).
    """

    pair_id: Sequence[str]
    winner: npt.NDArray[np.int8]
    margin_0: npt.NDArray[np.float32]
    margin_1: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    label_0: npt.NDArray[np.int8]
    label_1: npt.NDArray[np.int8]
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.pair_id)

    @property
    def margin(self) -> npt.NDArray[np.float32]:
        """[n] margin of the winner that is used."""
        return np.where(self.winner == 0, self.margin_0, self.margin_1)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that were put together."""
        return tuple(self.meta.get("kinds", ("unknown",)))

    @property
    def rewards(self) -> tuple[str, ...]:
        """The scorers whose rewards are in it."""
        return tuple(self._spent())

    @property
    def device_seconds(self) -> float | None:
        """What scoring cost; None where a scorer's share was not measured."""
        spent = self._spent()
        known = [value for value in spent.values() if value is not None]
        return sum(known) if len(known) == len(spent) else None

    def _spent(self) -> dict[str, float | None]:
        """By scorer: a kind names one (kind.scorer), or a list of them (kind.scorers)."""
        found: dict[str, float | None] = {}
        for key, value in self.meta.items():
            kind, _, name = key.rpartition(".")
            if kind and name == "scorer":
                found[value] = self.meta.get(f"{kind}.device_seconds")
            elif kind and name == "scorers":
                found |= {each["scorer"]: each["device_seconds"] for each in value}
        return found

    def to_pandas(self) -> Any:
        """The pairs as a pandas data frame."""
        return frame({name: getattr(self, name) for name in COLUMNS.names})

    def _repr_html_(self) -> str:
        names = ("pair_id", "winner", "margin", "weight")
        shown = self.take(np.arange(min(len(self), MOST)))
        rows = zip(*(np.asarray(getattr(shown, name)).tolist() for name in names), strict=True)
        return table_html(names, rows, total=len(self))

    def take(self, rows: npt.NDArray[Any]) -> Signals:
        """These rows, in this order."""
        arrays = {name: getattr(self, name)[rows] for name in TYPES}
        return Signals(pair_id=rows_of(self.pair_id, rows), meta=self.meta, **arrays)


def from_columns(pair_id: Sequence[str], columns: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> Signals:
    """The record of these columns [n], by name; one that is not given is `UNSET` (the winner is always given)."""
    held = {name: columns[name] if name in columns else np.full(len(pair_id), UNSET[name]) for name in TYPES}
    arrays = {name: held[name].astype(kind, copy=False) for name, kind in TYPES.items()}
    return Signals(pair_id=pair_id, meta=meta, **arrays)


def write_signals(path: str | Path, signals: Signals, *, provenance: Mapping[str, Any]) -> None:
    """Write the sidecar; its footer holds `signals.meta` and the provenance."""
    arrays = {name: getattr(signals, name) for name in TYPES}
    columns = {name: pa.array(v, mask=v == NO_LABEL if name in LABELS else None) for name, v in arrays.items()}
    table = pa.table({"pair_id": as_arrow(signals.pair_id), **columns})
    files.write_parquet(path, table, {**signals.meta, "provenance": dict(provenance)})


def own_signals(path: Path, *, inputs: Iterable[str | Path]) -> AbstractContextManager[Path]:
    """Hold the place of a sidecar, which is new or an older one."""
    return own_file(path, has_footer(*{*COLUMNS.names} - {*LABELS}, more=LABELS), inputs=inputs, what="signals")


def is_of(path: Path, made: Mapping[str, Any]) -> bool:
    """Whether there is a sidecar that was made with the inputs and the settings of this provenance."""
    known = files.parquet_meta(path).get("provenance") if path.is_file() else None
    return isinstance(known, dict) and all(known.get(name) == made[name] for name in ("inputs", "config_hash"))


def read_signals(path: str | Path) -> Signals:
    """Read and check a sidecar.

    Raises:
        InputError: missing file or column, a pair twice, a winner or label that is none, a margin that is not finite on
            the winner's side, a weight that is negative or not finite.
    """
    ids, arrays = [], {name: np.empty(files.parquet_rows(path), kind) for name, kind in TYPES.items()}
    at = 0
    for table in iterate_columns(path, COLUMNS, optional=LABELS, rows=PIECE):
        here = slice(at, at := at + len(table))
        ids.append(packed(table["pair_id"].chunks))
        for name, values in arrays.items():
            values[here] = table[name].fill_null(NO_LABEL) if name in LABELS else table[name]
    pair_id = joined(ids)
    margin = np.where(arrays["winner"] == 0, arrays["margin_0"], arrays["margin_1"])
    labels = np.concatenate([arrays["label_0"], arrays["label_1"]])
    faults = {
        "a pair id occurs twice": repeats(pair_id),
        "a winner is neither 0 nor 1": not np.isin(arrays["winner"], (0, 1)).all(),
        "a label is none of 0, 1 and null": not np.isin(labels, (NO_LABEL, 0, 1)).all(),
        "a winner's margin is not finite": not np.isfinite(margin).all(),
        "a weight is negative or not finite": not (np.isfinite(arrays["weight"]) & (arrays["weight"] >= 0)).all(),
    }
    for fault, present in faults.items():
        if present:
            raise InputError(fault, where=path, remedy=REMEDY)
    return from_columns(pair_id, arrays, _checked(files.parquet_meta(path), where=path))


def _checked(meta: dict[str, Any], *, where: object) -> dict[str, Any]:
    """The footer, whose entries that are read are of their types; a foreign file has none of them."""
    types = {"kinds": list[str], "scorer": str, "device_seconds": float | None}
    for key, value in meta.items():
        if (kind := types.get(key.rpartition(".")[2])) is not None:
            as_record(kind, value, where=f"{where}, footer, {key}", remedy=REMEDY)  # type: ignore[arg-type]
    return meta
