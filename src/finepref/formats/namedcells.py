"""Names as they stand in vote files, where votes hold only codes of them: read again, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from finepref.formats.cells import as_text
from finepref.formats.layout import layout_of
from finepref.formats.reading import AS_IT_IS, Reading
from finepref.formats.sources import Paths, tables
from finepref.formats.votes import Ints

SIDES, ITEM = ("left_image", "right_image"), "image"  # roles of images in votes, and in rankings


def read_cells(paths: Paths, wanted: Mapping[str, Ints], *, reading: Reading = AS_IT_IS) -> dict[str, list[str]]:
    """The text of some cells of vote files, "" where there is none.

    Args:
        paths, reading: as for `read_as`.
        wanted: role -> [n] numbers of rows over all files, in any order.

    Returns:
        Role -> [n] texts.
    """
    found = {role: np.full(len(rows), "", dtype=object) for role, rows in wanted.items()}
    order = {role: np.argsort(rows, kind="stable") for role, rows in wanted.items()}
    offset = 0
    for table in tables(paths, reading):
        table, layout = layout_of(table, reading)
        for batch in table.batches(layout.wanted):
            for role, rows in wanted.items():
                edges = np.searchsorted(rows, (offset, offset + batch.size), sorter=order[role])
                here = order[role][edges[0] : edges[1]]
                name = layout.columns[role]
                place = np.searchsorted(batch.number, rows[here] - offset)
                cells = as_text(batch.columns.column(name).take(pa.array(place)), name=name, where=table.path)
                found[role][here] = cells.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)
            offset += batch.size
    return {role: values.tolist() for role, values in found.items()}
