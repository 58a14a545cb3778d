"""gaps.parquet of an arena folder: one row a vote, one column a kind of gap (nan for ties)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finepref.core.files import FOOTER, atomic_file, finite, parquet_meta, sealed_parquet
from finepref.core.ownership import has_footer

GAPS = "gaps.parquet"


@dataclass(frozen=True, slots=True, eq=False)
class GapChunk:
    """Some votes in file order.

    row: number of each vote's row. other_row: of the right item's row, for K-wise votes. vote_id: where known. gaps: by
    kind.
    """

    row: npt.NDArray[np.int64]
    other_row: npt.NDArray[np.int64] | None
    vote_id: pa.Array | None
    gaps: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GapsRecord:
    """What the footer says beside the provenance.

    engine, settings: of the ratings. layout: how the votes were read. rho: by kind that has one. normalise, divided_by:
    what every kind was divided by.
    """

    engine: str
    settings: Mapping[str, Any]
    layout: Mapping[str, Any]
    rho: Mapping[str, float]
    normalise: str
    divided_by: Mapping[str, float]
    version: int = 1


def is_gaps(path: Path) -> bool:
    """Whether we wrote a file of gaps: its columns are those of the kinds that its footer names."""
    kinds = parquet_meta(path)["divided_by"]
    return has_footer("row", *kinds, more=("other_row", "vote_id"))(path)


def write_gaps(path: Path, chunks: Iterable[GapChunk], record: GapsRecord, *, provenance: Mapping[str, Any]) -> None:
    """Write gaps.parquet chunk by chunk, a group of rows each; there is at least one chunk."""
    footer = {FOOTER: json.dumps(finite({**provenance, **asdict(record)}), ensure_ascii=False).encode()}
    writer = None
    with atomic_file(path) as temporary, ExitStack() as stack:
        for chunk in chunks:
            columns = {"row": chunk.row, "other_row": chunk.other_row, "vote_id": chunk.vote_id, **chunk.gaps}
            table = pa.table({name: values for name, values in columns.items() if values is not None}, metadata=footer)
            if writer is None:
                writer = stack.enter_context(sealed_parquet(temporary, table.schema))
            writer.write_table(table)
