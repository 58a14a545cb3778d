"""Ratings: what an engine found out about the models, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit

from finepref.arena.link import Link, get_link
from finepref.arena.normal import SQRT_2, Floats, log_density, quantile
from finepref.core.errors import InputError
from finepref.core.notebook import records_html
from finepref.formats.ratings import (
    SHOWN,
    AgreementRecord,
    RatedModel,
    RatingSettings,
    RatingsRecord,
    SideRecord,
    VoteCount,
    read_ratings,
    write_ratings,
)  # fmt: skip
from finepref.formats.records import to_pandas

MU0 = 25.0
SIGMA0 = 25.0 / 3.0
BETA = 25.0 / 6.0
C = SQRT_2 * BETA  # spread of a performance difference
LEVEL = 0.95
MOST_IN_FILE = 1000  # models whose covariance is written to ratings.json


@dataclass(frozen=True, slots=True)
class Ratings:
    """Ratings of M models, in units where one model's performance has the spread beta = 25/6.

    mu: [M] rating. sigma: [M] its uncertainty; for the batch engine of mu minus the mean over the rated models of the
    largest component (the common level is unidentified), for the online engine raw. covariance: [M, M] of the same,
    None for the online engine; both are those of independent votes where intervals are impossible. component: [M]
    connected part. wins, losses, ties: [M] sums of weights. warnings: sentences for the user. counted, voters, side,
    agreement, both_bad ([M] sums of weights): as in ratings.json, where known.
    """

    models: tuple[str, ...]
    mu: Floats
    sigma: Floats
    covariance: Floats | None
    engine: str
    settings: RatingSettings
    wins: Floats
    losses: Floats
    ties: Floats
    component: npt.NDArray[np.int64]
    warnings: tuple[str, ...] = ()
    counted: VoteCount | None = None
    voters: int | None = None
    side: SideRecord | None = None
    agreement: AgreementRecord | None = None
    both_bad: Floats | None = None

    @property
    def c(self) -> float:
        """Spread of a performance difference, sqrt(2) beta."""
        return SQRT_2 * self.settings.beta

    @property
    def tie_margin(self) -> float:
        """Dead zone m: the vote is a tie when performances differ by less."""
        return self.settings.tie_margin

    @property
    def link(self) -> Link:
        """How a difference becomes a chance; online: probit."""
        return get_link(self.settings.link or "probit")

    @property
    def score(self) -> Floats:
        """[M] conservative score mu - 3 sigma."""
        return self.mu - 3.0 * self.sigma

    def interval(self, level: float = LEVEL) -> tuple[Floats, Floats]:
        """[M] lower and [M] upper end at that confidence level, laid around mu; nan where it is impossible.

        Of mu minus the mean of the rated models of the largest component: mu -+ z sigma; or of mu minus the anchor's.
        z is Student's with E - 1 degrees of freedom, where sigma is from E clusters of votes.
        """
        if not 0.0 < level < 1.0:
            raise InputError(f"the confidence level is {level}", remedy="give one between 0 and 1, such as 0.95")
        sd = self.sigma
        if self.settings.anchor is not None:
            sd = self.difference_sd()[self.models.index(self.settings.anchor)]
        reach = self._reach(quantile(0.5 + 0.5 * level)) * np.where((sd > 0) & self.has_intervals, sd, np.nan)
        return self.mu - reach, self.mu + reach

    def _reach(self, z: float) -> float:
        """As z, from as few clusters of votes as there are: the same tail of Student's distribution."""
        clusters = self.settings.clusters
        return z if clusters is None else float(stdtrit(min(clusters - 1.0, 1e9), ndtr(z)))

    @property
    def has_intervals(self) -> bool:
        """Whether the votes can say how sure the ratings are."""
        return self.settings.intervals != "none"

    def difference_sd(self) -> Floats:
        """[M, M] standard deviation of mu_i - mu_j."""
        if self.covariance is None:
            variance = np.add.outer(self.sigma**2, self.sigma**2)
            np.fill_diagonal(variance, 0.0)
        else:
            diagonal = np.diag(self.covariance)
            variance = np.add.outer(diagonal, diagonal) - 2.0 * self.covariance
        return np.sqrt(np.maximum(variance, 0.0))

    def difference_variance(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> Floats:
        """Variance of mu_i - mu_j for codes i of `first` and j of `second`, of their shape; 0 for i = j."""
        variance = self.sigma[first] ** 2 + self.sigma[second] ** 2
        if self.covariance is not None:
            diagonal = np.diag(self.covariance)
            variance = diagonal[first] + diagonal[second] - 2.0 * self.covariance[first, second]
        return np.where(first == second, 0.0, np.maximum(variance, 0.0))

    def predicted_wins(self, codes: npt.NDArray[np.int64] | None = None) -> Floats:
        """[K, K] predicted share of points of the row's model against the column's: P(win) + P(tie)/2; nan: itself.

        With d = (mu_i - mu_j)/c and the dead zone m of ties in units of c: (1 + F(d - m) - F(-d - m)) / 2.

        Args:
            codes: [K] of which models; None: of all.
        """
        mu = self.mu if codes is None else self.mu[codes]
        d, m = np.subtract.outer(mu, mu) / self.c, self.tie_margin / self.c
        share = 0.5 * (1.0 + np.exp(self.link.win(d - m)[0]) - np.exp(self.link.win(-d - m)[0]))
        np.fill_diagonal(share, np.nan)
        return np.asarray(share)

    @property
    def games(self) -> Floats:
        """[M] votes on each model, against others."""
        return np.asarray(self.wins + self.losses + self.ties)

    @property
    def votes(self) -> float:
        """Votes between two models, the sum of their weights; those of a model against itself are not among them."""
        return float(self.games.sum() / 2)

    @property
    def clear(self) -> float:
        """How many standard deviations of mu_i - mu_j tell two models apart, all pairs tested together at 5 %.

        q / sqrt(2), q the 95 % point of the range of M independent standard normals: at most 5 of 100 boards of equal
        models are split (Tukey and Kramer). 1.96 for two models.
        """
        return self._reach(clear_from(len(self.models)))

    def surely_better(self) -> npt.NDArray[np.bool_]:
        """[M, M] whether the row's model is better than the column's, all pairs tested together."""
        if not self.has_intervals:
            return np.zeros((len(self.models), len(self.models)), dtype=bool)
        return np.asarray(np.subtract.outer(self.mu, self.mu) > self.clear * self.difference_sd())

    def rank_interval(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """[M] best and [M] worst rank that the votes allow: 1 + models surely better, M - models surely worse.

        All of them hold together in 95 of 100 boards (Mogstad et al. 2024, with Tukey's differences). Without intervals
        every rank is possible.
        """
        surely = self.surely_better()
        return 1 + surely.sum(axis=0), len(self.models) - surely.sum(axis=1)

    def tiers(self) -> npt.NDArray[np.int64]:
        """[M] tiers, from 1: one below the lowest tier of the models that are surely better.

        So no two models of a tier can be told apart.
        """
        tier, surely, order = np.ones(len(self.models), dtype=np.int64), self.surely_better(), self.order()
        for place, code in enumerate(order[1:], start=1):
            better = order[:place]
            tier[code] = 1 + int(tier[better[surely[better, code]]].max(initial=0))
        return tier

    def to_pandas(self) -> Any:
        """The models, best first, as a pandas data frame."""
        return to_pandas(self.table())

    def _repr_html_(self) -> str:
        return records_html(self.table(), SHOWN)

    def order(self) -> npt.NDArray[np.int64]:
        """[M] model codes from best to worst mu; equal mu by name."""
        return np.asarray(sorted(range(len(self.models)), key=lambda k: (-self.mu[k], self.models[k])))

    def table(self) -> tuple[RatedModel, ...]:
        """The models with all that is known of each, best first."""
        low, high = self.interval()
        best, worst = self.rank_interval()
        found = self.mu, self.sigma, low, high, best, worst, self.wins, self.losses, self.ties, self.score
        columns: list[npt.NDArray[Any]] = [*found, self.component, self.tiers(), self.games]
        with np.errstate(invalid="ignore", divide="ignore"):
            bad = np.full(len(self.models), np.nan) if self.both_bad is None else self.both_bad / self.games
        names = [field.name for field in fields(RatedModel)]
        values = ([None if value != value else value for value in column.tolist()] for column in (*columns, bad))
        rows = list(zip(self.models, *values, strict=True))
        return tuple(RatedModel(**dict(zip(names, rows[k], strict=True))) for k in self.order())


@lru_cache
def clear_from(models: int) -> float:
    """`Ratings.clear` of so many models, where votes are no clusters."""
    return range_quantile(LEVEL, max(2, models)) / SQRT_2


def range_quantile(p: float, m: int) -> float:
    """The p quantile of the range of m >= 2 independent standard normals.

    P(range < w) = m E[(Phi(x) - Phi(x - w))^(m - 1)], x standard normal.
    """
    x, step = np.linspace(-9.0, 9.0, 4001, retstep=True)
    density = m * np.exp(log_density(x)) * step

    def below(w: float) -> float:
        return float(np.sum(density * (ndtr(x) - ndtr(x - w)) ** (m - 1))) - p

    return float(brentq(below, 1e-3, 20.0))


def save_ratings(
    path: str | Path, ratings: Ratings, *, provenance: Mapping[str, Any], outcome_words: Mapping[str, str] | None = None
) -> None:
    """Write ratings.json, models from best to worst; outcome_words: how each word of the files was taken."""
    order = ratings.order()
    covariance = None
    if ratings.covariance is not None and len(order) <= MOST_IN_FILE:
        covariance = ratings.covariance[np.ix_(order, order)].tolist()
    record = RatingsRecord(
        engine=ratings.engine, settings=ratings.settings, models=ratings.table(), covariance=covariance,
        warnings=ratings.warnings, provenance=provenance, votes=ratings.counted, voters=ratings.voters,
        side=ratings.side, agreement=ratings.agreement, outcome_words=outcome_words or {},
    )  # fmt: skip
    write_ratings(path, record)


def load_ratings(path: str | Path) -> Ratings:
    """Read ratings.json (or the folder that holds it) back to `Ratings`.

    Raises:
        InputError: the file is missing, broken or lacks a field.
    """
    record = read_ratings(path)
    names = ("mu", "sigma", "wins", "losses", "ties", "component")
    columns: Any = {name: np.array([getattr(model, name) for model in record.models]) for name in names}
    shares = [model.both_bad for model in record.models]
    bad = None
    if any(share is not None for share in shares):
        games = columns["wins"] + columns["losses"] + columns["ties"]
        bad = games * np.array([share or 0.0 for share in shares])
    covariance = None if record.covariance is None else np.array(record.covariance)
    return Ratings(
        models=tuple(model.name for model in record.models), covariance=covariance, engine=record.engine,
        settings=record.settings, warnings=record.warnings, counted=record.votes, voters=record.voters,
        side=record.side, agreement=record.agreement, both_bad=bad, **columns,
    )  # fmt: skip


def align(ratings: Ratings, models: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """[len(models)] position in `ratings` of each of these models; one that was not rated is an `InputError`.

    Models that were renamed for the ratings are looked up by their new names.
    """
    if ratings.models == models:
        return np.arange(len(models))
    position = {name: k for k, name in enumerate(ratings.models)}
    for old, new in reversed([*(ratings.settings.merge or {}).items()]):
        if new in position:
            position.setdefault(old, position[new])
    missing = [name for name in models if name not in position]
    if missing:
        raise InputError(f"model {missing[0]!r} has votes but no rating", remedy="rate the same votes first")
    return np.array([position[name] for name in models], dtype=np.int64)
