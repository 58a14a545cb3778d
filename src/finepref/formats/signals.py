"""The sidecar: one row a pair, keyed by pair_id, with everything that a training run needs of the signal.

Columns: pair_id, winner int8, margin_0, margin_1 float32 (unscaled), weight float32, label_0, label_1 int8 nullable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.core import files
from finepref.core.errors import InputError

COLUMNS = ("pair_id", "winner", "margin_0", "margin_1", "weight", "label_0", "label_1")
NO_LABEL = -1


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """n pairs, no ties. pair_id: [n] str. winner: [n] int8. margin_0, margin_1, weight: [n] float32.

    label_0, label_1: [n] int8, -1 for none. meta: the footer (kinds, engine, rewards, extremes, counts, inputs).
    """

    pair_id: tuple[str, ...]
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
        return tuple(dict.fromkeys(self.meta[f"{kind}.scorer"] for kind in self._scored()))

    @property
    def device_seconds(self) -> float | None:
        """What scoring cost; None where a scorer's share was not measured."""
        spent = {self.meta[f"{kind}.scorer"]: self.meta.get(f"{kind}.device_seconds") for kind in self._scored()}
        known = [value for value in spent.values() if value is not None]
        return sum(known) if len(known) == len(spent) else None

    def _scored(self) -> list[str]:
        return [key.removesuffix(".scorer") for key in self.meta if key.endswith(".scorer")]

    def take(self, rows: npt.NDArray[Any]) -> Signals:
        """These rows, in this order."""
        arrays = {name: getattr(self, name)[rows] for name in COLUMNS[1:]}
        return Signals(pair_id=tuple(self.pair_id[row] for row in rows.tolist()), meta=self.meta, **arrays)


def write_signals(path: str | Path, signals: Signals, *, provenance: Mapping[str, Any]) -> None:
    """Write the sidecar; its footer holds `signals.meta` and the provenance."""
    labels = {}
    for name in ("label_0", "label_1"):
        values = getattr(signals, name)
        labels[name] = pa.array(values, mask=values == NO_LABEL)
    table = pa.table(
        {
            "pair_id": pa.array(signals.pair_id, pa.string()),
            "winner": signals.winner,
            "margin_0": signals.margin_0,
            "margin_1": signals.margin_1,
            "weight": signals.weight,
            **labels,
        }
    )
    files.write_parquet(path, table, {**signals.meta, "provenance": dict(provenance)})


def read_signals(path: str | Path) -> Signals:
    """Read and check a sidecar.

    Raises:
        InputError: missing file or column, a pair twice, a winner or label that is none, a margin that is not finite on
            the winner's side, a weight that is negative or not finite.
    """
    table = files.read_parquet(path, list(COLUMNS))
    arrays = {name: table[name].to_numpy() for name in ("winner", "margin_0", "margin_1", "weight")}
    for name in ("label_0", "label_1"):
        arrays[name] = table[name].fill_null(NO_LABEL).to_numpy()
    pair_id = tuple(table["pair_id"].to_pylist())
    margin = np.where(arrays["winner"] == 0, arrays["margin_0"], arrays["margin_1"])
    labels = np.concatenate([arrays["label_0"], arrays["label_1"]])
    faults = {
        "a pair id is missing or occurs twice": None in pair_id or len(set(pair_id)) != len(pair_id),
        "a winner is neither 0 nor 1": not np.isin(arrays["winner"], (0, 1)).all(),
        "a label is none of 0, 1 and null": not np.isin(labels, (NO_LABEL, 0, 1)).all(),
        "a winner's margin is not finite": not np.isfinite(margin).all(),
        "a weight is negative or not finite": not (np.isfinite(arrays["weight"]) & (arrays["weight"] >= 0)).all(),
    }
    for fault, present in faults.items():
        if present:
            raise InputError(fault, where=path, remedy="write the signals again with `finepref signals`")
    return Signals(
        pair_id=pair_id,
        winner=arrays["winner"].astype(np.int8),
        margin_0=arrays["margin_0"].astype(np.float32),
        margin_1=arrays["margin_1"].astype(np.float32),
        weight=arrays["weight"].astype(np.float32),
        label_0=arrays["label_0"].astype(np.int8),
        label_1=arrays["label_1"].astype(np.int8),
        meta=files.parquet_meta(path),
    )
