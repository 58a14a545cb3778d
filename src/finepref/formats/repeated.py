"""Equal rows of vote files as one row with a count: a billion votes on a few models are a few hundred rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.formats.layout import Layout
from finepref.formats.store import Store
from finepref.formats.tables import Batch

PLAIN = {"left", "right", "winner", "tie", "both_bad", "question", "has_label", "other_label"}
"""Roles of votes of which equal ones are told apart by nothing but their place."""
FEWEST = 4096  # combinations of names up to which even a small batch is counted
MANY = 1 << 18  # rows beyond which those of several batches are joined
Rows = npt.NDArray[np.int64]


def can_repeat(layout: Layout) -> bool:
    """Whether the rows of a file are told apart by nothing but their place."""
    return layout.dialect.flatten is None and not layout.dialect.kwise and layout.columns.keys() <= PLAIN


@dataclass(frozen=True, slots=True, eq=False)
class Once:
    """A batch with equal rows once. `number` of `batch` counts its own rows.

    key: [n] a number for what each row of the whole batch says; rows: which row of `batch` has that number.
    """

    batch: Batch
    key: npt.NDArray[np.integer]
    rows: Rows

    @property
    def became(self) -> Rows:
        """[n] which row of `batch` each row of the whole batch is."""
        return np.asarray(self.rows[self.key])


def _each(batch: Batch) -> Once:
    at = np.arange(batch.columns.num_rows)
    return Once(batch._replace(number=at, repeats=np.ones(len(at), dtype=np.int64)), at, at)


def once(batch: Batch, *, each: bool = False) -> Once:
    """The batch with equal rows once; as it is where there are as many combinations of values as rows.

    each: every row by itself, with its own place: for who lists bad rows.
    """
    if each:
        return _each(batch)
    held, size = [], 1
    most = max(FEWEST, batch.columns.num_rows)
    key = np.zeros(batch.columns.num_rows, dtype=np.int32)
    for column in batch.columns.columns:
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        values = encoded.dictionary
        size *= len(values) + 1
        if size > most:
            return _each(batch)
        codes = encoded.indices.fill_null(len(values)) if encoded.null_count else encoded.indices
        key *= len(values) + 1
        key += codes.to_numpy(zero_copy_only=False)
        held.append(values)
    counts = np.bincount(key, minlength=size)
    met = np.flatnonzero(counts)
    rows = np.empty(size, dtype=np.int64)
    rows[met] = np.arange(len(met))
    codes_of = np.unravel_index(met, [len(values) + 1 for values in held])
    columns = [
        values.take(pa.array(codes, mask=codes == len(values))) for values, codes in zip(held, codes_of, strict=True)
    ]  # fmt: skip
    table = pa.RecordBatch.from_arrays(columns, names=batch.columns.schema.names)
    at = np.arange(len(met))
    return Once(batch._replace(columns=table, at=at, number=at, repeats=counts[met]), key, rows)


def join(store: Store) -> None:
    """Equal rows of all batches so far as one row with the sum of their counts, in the order in which they came."""
    names = [name for name in store.types if name not in ("row", "at", "repeats")]
    held = pa.table({name: store.column(name) for name in (*names, "row", "repeats")})
    grouped = held.group_by(names, use_threads=False).aggregate([("row", "min"), ("repeats", "sum")])
    columns = {name: grouped[name].to_numpy() for name in names}
    row = grouped["row_min"].to_numpy()
    store.replace({**columns, "row": row, "at": row, "repeats": grouped["repeats_sum"].to_numpy()})


def is_full(store: Store) -> bool:
    """Whether it is time to `join`."""
    return store.rows > MANY
