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

from finepref.core.errors import InputError
from finepref.core.files import atomic_folder, read_json, write_json

FILL = "fill it with `finepref cache -c run.yaml --reference`"


def check_own(folder: Path, record: str) -> None:
    """Refuse to fill a folder that holds something else than the cache whose record it must have.

    Raises:
        InputError: there are files, and the record is not among them.
    """
    if folder.is_dir() and not (folder / record).is_file() and any(folder.iterdir()):
        raise InputError(f"it holds files, but no {record}", where=folder, remedy="name a folder of its own")


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceCache:
    """row: pair id -> row. values: [visits, pairs, 2] float32. device_seconds: what filling it cost."""

    row: dict[str, int]
    values: npt.NDArray[np.float32]
    device_seconds: float

    def errors(self, pair_id: Sequence[str], visit: Sequence[int]) -> Tensor:
        """Reference errors [B,2] (winner, loser) of some draws.

        Raises:
            InputError: a draw that the cache does not hold.
        """
        rows = [self.row.get(pair, -1) for pair in pair_id]
        for pair, row, when in zip(pair_id, rows, visit, strict=True):
            if row < 0 or when >= len(self.values) or not np.isfinite(self.values[when, row]).all():
                raise InputError(
                    f"visit {when} of pair {pair} is not in it", where="train.reference_cache", remedy=FILL
                )
        return torch.from_numpy(self.values[list(visit), rows])


def save_reference(
    folder: str | Path, values: npt.NDArray[np.float32], *, identity: str, pair_id: Sequence[str], about: dict[str, Any]
) -> None:
    """Write a reference cache. about: what it cost to fill, kept beside it."""
    with atomic_folder(folder) as place:
        np.save(place / "errors.npy", values, allow_pickle=False)
        write_json(place / "reference.json", {"identity": identity, "pair_id": list(pair_id), **about})


def load_reference(folder: str | Path, *, identity: str, draws: int) -> ReferenceCache:
    """Read a reference cache.

    Args:
        draws: how many draws of the plan will be asked for.

    Raises:
        InputError: it is not there, it was filled for another seed, data, reference or draw plan, or it does not hold
            them all.
    """
    if not (Path(folder) / "reference.json").is_file():
        raise InputError("there is no reference cache", where=folder, remedy=FILL)
    record, values = _read(Path(folder), identity, remedy=f"{FILL}, or set train.reference_cache to null")
    row = {pair: i for i, pair in enumerate(record["pair_id"])}
    for visit in range(-(-draws // len(row))):
        wanted = min(len(row), draws - visit * len(row))
        held = int(np.isfinite(values[visit]).all(1).sum()) if visit < len(values) else 0
        if held < wanted:
            raise InputError(f"it holds {held} of {wanted} draws of visit {visit}", where=folder, remedy=FILL)
    return ReferenceCache(row=row, values=values, device_seconds=record["device_seconds"])


def held_values(
    folder: str | Path, *, identity: str, pair_id: Sequence[str], visits: int, overwrite: bool
) -> tuple[npt.NDArray[np.float32], float]:
    """(errors [visits or more, pairs, 2] with nan where there is none yet, device seconds spent so far), to fill up.

    Raises:
        InputError: the folder holds errors of another seed, data set, reference or draw plan.
    """
    values = np.full((visits, len(pair_id), 2), np.nan, dtype=np.float32)
    check_own(Path(folder), "reference.json")
    if overwrite or not (Path(folder) / "reference.json").is_file():
        return values, 0.0
    record, held = _read(Path(folder), identity, remedy="name another folder, or --overwrite")
    if len(held) >= visits:
        return held, record["device_seconds"]
    values[: len(held)] = held
    return values, record["device_seconds"]


def _read(folder: Path, identity: str, *, remedy: str) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    record: dict[str, Any] = read_json(folder / "reference.json")
    if record["identity"] != identity:
        raise InputError(
            "it was filled for another seed, data set, reference or draw plan", where=folder, remedy=remedy
        )
    return record, np.load(folder / "errors.npy", allow_pickle=False)
