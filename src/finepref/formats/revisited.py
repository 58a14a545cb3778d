"""A second look at vote files of which equal votes were read as one row: which row each vote became."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from finepref.core.errors import InputError
from finepref.formats.cells import Gathered
from finepref.formats.layout import layout_of
from finepref.formats.reading import Reading
from finepref.formats.repeated import once
from finepref.formats.sources import Paths, tables
from finepref.formats.store import Store
from finepref.formats.votebatch import take_batch
from finepref.formats.votefiles import VoteTable
from finepref.formats.votes import Ints, Rows


def places(paths: Paths, reading: Reading, read: VoteTable, *, skip_bad_rows: bool) -> Iterator[tuple[Rows, Rows]]:
    """Batch by batch, the number of every vote's row over all files, and which row of `read` the vote is.

    Args:
        paths, reading, skip_bad_rows: as of `votefiles.read_as`. read: what that returned, with `Votes.repeats`.

    Raises:
        InputError: the files changed in between.
    """
    votes, offset = read.votes, 0
    known = _keys(votes.left, votes.right, votes.outcome, len(votes.models))
    order = np.argsort(known)
    books = {"model": votes.models, "voter": (), "question": votes.questions or ()}
    for number, table in enumerate(tables(paths, reading)):
        table, layout = layout_of(table, reading, number=number)
        for batch in table.batches(layout.wanted):
            seen = once(batch, each=skip_bad_rows)
            held = {book: {name: code for code, name in enumerate(names)} for book, names in books.items()}
            gathered = Gathered(Store(None), skip_bad_rows, held)
            take_batch(seen.batch, layout, gathered, table, reading=reading, offset=0)
            store = gathered.store
            left, right, outcome = (store.column(name) for name in ("left", "right", "outcome"))
            keys = _keys(left, right, outcome, len(votes.models))
            at = order[np.minimum(np.searchsorted(known, keys, sorter=order), len(order) - 1)]
            if len(held["model"]) > len(votes.models) or (known[at] != keys).any():
                raise InputError("the file changed while it was read", where=table.path, remedy="run it again")
            place = np.full(len(seen.batch.at), -1, dtype=np.int64)
            place[store.column("row")] = at
            taken = place[seen.became]
            kept = slice(None) if len(at) == len(place) else taken >= 0
            yield (batch.number + offset)[kept], taken[kept]
            offset += batch.size


def _keys(left: Ints, right: Ints, outcome: Ints, models: int) -> Rows:
    """[n] one number for what each vote says."""
    return np.asarray((left.astype(np.int64) * models + right) * 3 + outcome + 1)
