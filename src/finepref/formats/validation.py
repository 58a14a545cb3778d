"""validation.json of an arena folder: how well engines predict votes that they have not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finepref.core.files import write_json

VALIDATION = "validation.json"


@dataclass(frozen=True, slots=True)
class Bin:
    """Held-out votes whose predicted chance of the left side falls together: its mean, how often left won, how many."""

    predicted: float
    observed: float
    votes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Scores per engine, each the mean over `fold_seeds` draws of the folds.

    log_loss, brier: of p(left | decisive) over the n decisive held-out votes. log_loss_3way: with ties as an outcome,
    over all held-out votes, for engines with a tie margin; None without ties. calibration: of the chosen engine.
    """

    log_loss: Mapping[str, float]
    brier: Mapping[str, float]
    n: int
    log_loss_3way: Mapping[str, float] | None
    folds: int
    fold_seeds: int
    chosen: str
    calibration: tuple[Bin, ...]


def write_validation(path: Path, found: Validation, *, provenance: Mapping[str, Any]) -> None:
    """Write validation.json; three-way scores are left out where no vote was a tie."""
    held = {name: value for name, value in asdict(found).items() if value is not None}
    write_json(path, {**held, "version": 1, "provenance": provenance})
