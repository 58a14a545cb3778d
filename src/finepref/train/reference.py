"""The reference-loss cache: two scalars a draw, so that runs after the first need no reference network.

Valid only for equal seed, data, reference and draw plan; a cache of anything else is refused. A folder holds one
`errors.npy` float32 [visits, pairs, 2] (winner, loser; nan = not computed) and `reference.json` with its identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finepref.errors import InputError
from finepref.files import atomic_folder, read_json, write_json


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceCache:
    """row: pair id -> row. values: [visits, pairs, 2] float32."""

    row: dict[str, int]
    values: npt.NDArray[np.float32]

    def errors(self, pair_id: Sequence[str], visit: Sequence[int]) -> Tensor:
        """Reference errors [B,2] (winner, loser) of some draws.

        Raises:
            InputError: a draw that the cache does not hold.
        """
        rows = [self.row.get(pair, -1) for pair in pair_id]
        for pair, row, when in zip(pair_id, rows, visit, strict=True):
            if row < 0 or when >= len(self.values) or not np.isfinite(self.values[when, row]).all():
                raise InputError(
                    f"visit {when} of pair {pair} is not in it", where="train.reference_cache", remedy="fill it again"
                )
        return torch.from_numpy(self.values[list(visit), rows])


def save_reference(
    folder: str | Path, values: npt.NDArray[np.float32], *, identity: str, pair_id: Sequence[str], about: dict[str, Any]
) -> None:
    """Write a reference cache. about: what it cost to fill, kept beside it."""
    with atomic_folder(folder) as place:
        np.save(place / "errors.npy", values, allow_pickle=False)
        write_json(place / "reference.json", {"identity": identity, "pair_id": list(pair_id), **about})


def load_reference(folder: str | Path, *, identity: str) -> ReferenceCache:
    """Read a reference cache.

    Raises:
        InputError: it is not there, or it was filled for another seed, data, reference or draw plan.
    """
    record = read_json(Path(folder) / "reference.json")
    if record["identity"] != identity:
        raise InputError(
            "it was filled for another seed, data set, reference or draw plan",
            where=folder,
            remedy="fill it again with `finepref cache --reference`, or set train.reference_cache to null",
        )
    values = np.load(Path(folder) / "errors.npy", allow_pickle=False)
    return ReferenceCache(row={pair: i for i, pair in enumerate(record["pair_id"])}, values=values)
