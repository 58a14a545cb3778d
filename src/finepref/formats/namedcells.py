"""Names as they stand in vote files, where votes hold only codes of them: read again, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from finepref.formats.dialects import layout_of
from finepref.formats.sources import Paths, tables
from finepref.formats.votes import Ints

SIDES, ITEM = ("left_image", "right_image"), "image"  # roles of images in votes, and in rankings


def read_cells(
    paths: Paths, wanted: Mapping[str, Ints], *, columns: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """The text of some cells of vote files, "" where there is none.

    Args:
        paths, columns: as for `read_votes`.
        wanted: role -> [n] numbers of rows over all files, in any order.

    Returns:
        Role -> [n] texts.
    """
    found = {role: np.full(len(rows), "", dtype=object) for role, rows in wanted.items()}
    order = {role: np.argsort(rows, kind="stable") for role, rows in wanted.items()}
    offset = 0
    for table in tables(paths):
        table, layout = layout_of(table, dict(columns or {}))
        for batch in table.batches(layout.wanted):
            for role, rows in wanted.items():
                edges = np.searchsorted(rows, (offset, offset + batch.num_rows), sorter=order[role])
                here = order[role][edges[0] : edges[1]]
                cells = batch.column(layout.columns[role]).take(pa.array(rows[here] - offset))
                found[role][here] = cells.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)
            offset += batch.num_rows
    return {role: values.tolist() for role, values in found.items()}
