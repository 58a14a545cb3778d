"""ratings.json and leaderboard.csv of an arena folder: the models from best to worst, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.core.errors import InputError
from finepref.core.files import read_json, write_json, write_text
from finepref.formats.records import as_record, csv_text, read_csv, read_record

RATINGS, LEADERBOARD = "ratings.json", "leaderboard.csv"
VERSION = 2
COLUMNS = ("mu", "low", "high", "sigma", "rank_low", "rank_high", "tier", "score", "wins", "losses", "ties")
LARGEST = 1e6  # of a rating: one model's performance has the spread 25/6
REMEDY = "write it with `finepref arena`"


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingSettings:
    """What an engine was told and what it found; None is what it does not have. Ratings are in units of beta = 25/6.

    link to log_likelihood: batch; intervals: "none" where they are impossible, intervals_why says why; clusters: the
    effective number of those that intervals are made from; side: "fit" where the ratings have a side term. preset to
    passes: online; order: "time" where the votes have times. anchor: the model that intervals are measured from.
    drop_voter, merge: votes left out and models renamed before. votes: between two models, the sum of their weights.
    tie_margin: performances that differ by less are a tie. level: of the intervals. seed: where anything was drawn.
    """

    link: str | None = None
    prior: str | None = None
    prior_sd: float | None = None
    intervals: str | None = None
    cluster: str | None = None
    intervals_why: str | None = None
    clusters: float | None = None
    side: str | None = None
    log_likelihood: float | None = None
    preset: str | None = None
    tau: float | None = None
    draw_probability: float | None = None
    order: str | None = None
    passes: int | None = None
    anchor: str | None = None
    drop_voter: tuple[str, ...] | None = None
    merge: Mapping[str, str] | None = None
    ties: str
    votes: float
    seed: int | None = None
    beta: float
    tie_margin: float
    level: float

    def given(self) -> dict[str, Any]:
        """Those that are there."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedModel:
    """A model of ratings.json.

    low, high: interval of mu minus the mean of the rated models of the largest component (or minus the anchor), laid
    around mu; null where it is impossible. rank_low, rank_high: ranks that are possible. tier: 1 where no model is
    surely better, at 5 % over all pairs of models together; else one below the lowest of those that are. wins, losses,
    ties, votes: sums of weights. both_bad: share of its votes that said that neither is good. component: its part.
    """

    name: str
    mu: float
    sigma: float
    low: float | None
    high: float | None
    rank_low: int
    rank_high: int
    wins: float
    losses: float
    ties: float
    score: float
    component: int
    tier: int = 1
    votes: float | None = None
    both_bad: float | None = None


SHOWN = ("name", "mu", "low", "high", "rank_low", "rank_high", "tier", "votes")
"""Fields of a model that a notebook shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRows:
    """A file that votes were read from, and how many rows it has."""

    path: str
    rows: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteCount:
    """Where the votes went (of rankings: all pairs of their items), in rows: read = used + self + those left out.

    used: between two models. self: of a model against itself, which moves no rating. left_out: reason -> rows.
    """

    read: int
    used: int
    self: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    sources: tuple[SourceRows, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SideRecord:
    """What the side is worth: advantage of the left in rating units, and a test of whether it is 0.

    interval, p: null where no interval is possible. cluster: what votes were taken to share. left_wins: share of the
    decided votes that the left wins between equal models. fitted: whether the ratings have the side term. warned:
    whether the bias is sure at the 0.5 % level. beside: model -> mu of the ratings the other way round. most_moved: the
    largest difference of the two among the rated models, each minus its mean over them.
    """

    advantage: float
    interval: tuple[float, float] | None
    p: float | None
    cluster: str | None
    left_wins: float
    fitted: bool
    warned: bool
    most_moved: float
    beside: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementRecord:
    """Krippendorff's alpha over comparisons with two votes or more; unit: what a comparison is."""

    alpha: float
    interval: tuple[float, float] | None
    unit: str
    comparisons: int
    judgements: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingsRecord:
    """What ratings.json holds. models: best first. covariance: of mu, in their order, where the engine has one.

    votes, voters (how many with a name), side, agreement: null where unknown. outcome_words: how each was taken.
    """

    engine: str
    settings: RatingSettings
    models: tuple[RatedModel, ...]
    covariance: list[list[float]] | None
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]
    votes: VoteCount | None = None
    voters: int | None = None
    side: SideRecord | None = None
    agreement: AgreementRecord | None = None
    outcome_words: Mapping[str, str] = field(default_factory=dict)
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
    found = read_record(_in_folder(path), RatingsRecord, version=VERSION, oldest=1, remedy=REMEDY)
    if not all(abs(model.mu) < LARGEST and 0.0 <= model.sigma < LARGEST for model in found.models):
        raise InputError("a rating is out of any range", where=_in_folder(path), remedy=REMEDY)
    size = len(found.models)
    if found.covariance is not None and [*map(len, found.covariance)] != [size] * size:
        what = f"its covariance is not that of its {size} models"
        raise InputError(what, where=_in_folder(path), remedy=REMEDY)
    return found


def write_ratings(path: str | Path, record: RatingsRecord) -> None:
    """Write ratings.json."""
    write_json(path, _tidy({**asdict(record), "settings": record.settings.given()}))


def _tidy(held: Mapping[str, Any]) -> dict[str, Any]:
    """The record with sums of weights as integers where they are whole."""
    settings = {**held["settings"], "votes": as_count(held["settings"]["votes"])}
    weighed = ("wins", "losses", "ties", "votes")
    models = [model | {name: as_count(model[name]) for name in weighed} for model in held["models"]]
    return {**held, "settings": settings, "models": models}


def as_count(value: float | None) -> float | None:
    """A sum of weights as it is written: an integer where it is whole."""
    if value is None:
        return None
    whole = round(value)
    return whole if abs(value - whole) < 1e-9 * max(1.0, abs(value)) else value


def write_leaderboard(path: Path, models: Sequence[RatedModel]) -> None:
    """Write leaderboard.csv, numbers to six places."""
    rows = []
    for rank, model in enumerate(models, start=1):
        values = {name: getattr(model, name) for name in COLUMNS}
        counts = {name: as_count(values[name]) for name in ("wins", "losses", "ties")}
        held = (values | counts).items()
        rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in held}
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
    if not all(abs(model.mu) < LARGEST for model in found.models):
        raise InputError("mu is not a number", where=path, remedy="correct the board")
    return found


def _in_folder(path: str | Path) -> Path:
    return Path(path) / RATINGS if Path(path).is_dir() else Path(path)
