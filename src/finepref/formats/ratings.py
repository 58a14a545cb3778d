"""ratings.json and leaderboard.csv of an arena folder: the models from best to worst, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError
from finepref.core.files import read_json, write_json, write_text
from finepref.formats.records import as_record, csv_text, read_csv, read_record

RATINGS, LEADERBOARD = "ratings.json", "leaderboard.csv"
VERSION = 1
COLUMNS = ("mu", "low", "high", "sigma", "rank_low", "rank_high", "score", "wins", "losses", "ties")
REMEDY = "write it with `finepref arena`"


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingSettings:
    """What an engine was told and what it found; None is what it does not have. Ratings are in units of beta = 25/6.

    link to log_likelihood: batch. preset to passes: online. tie_margin: performances that differ by less are a tie.
    level: of the intervals. seed: where anything was drawn.
    """

    link: str | None = None
    prior: str | None = None
    prior_sd: float | None = None
    intervals: str | None = None
    cluster: str | None = None
    intervals_why: str | None = None
    log_likelihood: float | None = None
    preset: str | None = None
    tau: float | None = None
    draw_probability: float | None = None
    order: str | None = None
    passes: int | None = None
    ties: str
    votes: int
    seed: int | None = None
    beta: float
    tie_margin: float
    level: float

    def given(self) -> dict[str, Any]:
        """Those that are there."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedModel:
    """A model; low, high: interval of mu. rank_low, rank_high: ranks that are possible. component: connected part."""

    name: str
    mu: float
    sigma: float
    low: float
    high: float
    rank_low: int
    rank_high: int
    wins: int
    losses: int
    ties: int
    score: float
    component: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingsRecord:
    """What ratings.json holds. models: best first. covariance: of mu, in their order, where the engine has one."""

    engine: str
    settings: RatingSettings
    models: tuple[RatedModel, ...]
    covariance: list[list[float]] | None
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]
    version: int = VERSION

    def is_of(self, made: Mapping[str, Any]) -> bool:
        """Whether it was made with the votes and the settings of this provenance."""
        return self.provenance.get("fingerprint") == made["fingerprint"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A model and its rating on a board."""

    name: str
    mu: float


@dataclass(frozen=True, slots=True)
class BoardRecord:
    """A published leaderboard: its models, where it is from, what it is called. A ratings.json is one too."""

    models: tuple[Standing, ...]
    source: str = ""
    name: str = ""

    @property
    def mu(self) -> npt.NDArray[np.float64]:
        """[M] ratings."""
        return np.array([model.mu for model in self.models])


def read_ratings(path: str | Path) -> RatingsRecord:
    """Read ratings.json, or that of a folder.

    Raises:
        InputError: the file is missing, broken or no record of ratings.
    """
    return read_record(_in_folder(path), RatingsRecord, version=VERSION, remedy=REMEDY)


def write_ratings(path: str | Path, record: RatingsRecord) -> None:
    """Write ratings.json."""
    write_json(path, {**asdict(record), "settings": record.settings.given()})


def write_leaderboard(path: Path, models: Sequence[RatedModel]) -> None:
    """Write leaderboard.csv, numbers to six places."""
    rows = []
    for rank, model in enumerate(models, start=1):
        values = {name: getattr(model, name) for name in COLUMNS}
        rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}
        rows.append({"rank": rank, "model": model.name, **rounded})
    write_text(path, csv_text(rows))


def read_board(path: Path) -> BoardRecord:
    """Read ratings.json (or its folder), any JSON with `models: [{name, mu}]`, or a csv like leaderboard.csv.

    Raises:
        InputError: it is none of them, or a rating is not a number.
    """
    if path.is_dir() or path.suffix == ".json":
        path = _in_folder(path)
        held = read_json(path)
    else:
        held = {"models": [{"name": row["model"], "mu": row["mu"]} for row in read_csv(path, ("model", "mu"))]}
    remedy = "give a ratings.json with models: [{name, mu}], or a csv with columns model and mu"
    found = as_record(BoardRecord, held, where=path, remedy=remedy)
    if not all(abs(model.mu) < float("inf") for model in found.models):
        raise InputError("mu is not a number", where=path, remedy="correct the board")
    return found


def _in_folder(path: str | Path) -> Path:
    return Path(path) / RATINGS if Path(path).is_dir() else Path(path)
