"""Ratings: what an engine found out about the models, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finepref.arena.link import Link, get_link
from finepref.arena.normal import SQRT_2, Floats, quantile
from finepref.core.errors import InputError
from finepref.formats.ratings import RatedModel, RatingSettings, RatingsRecord, read_ratings, write_ratings

MU0 = 25.0
SIGMA0 = 25.0 / 3.0
BETA = 25.0 / 6.0
C = SQRT_2 * BETA  # spread of a performance difference
LEVEL = 0.95
MOST_IN_FILE = 1000  # models whose covariance is written to ratings.json


@dataclass(frozen=True, slots=True)
class Ratings:
    """Ratings of M models, in units where one model's performance has the spread beta = 25/6.

    mu: [M] rating. sigma: [M] its uncertainty; for the batch engine of mu minus its mean over models (the common level
    is unidentified), for the online engine raw. covariance: [M, M] of mu minus its mean, None for the online engine.
    component: [M] connected part. wins, losses, ties: [M]. warnings: sentences for the user.
    """

    models: tuple[str, ...]
    mu: Floats
    sigma: Floats
    covariance: Floats | None
    engine: str
    settings: RatingSettings
    wins: npt.NDArray[np.int64]
    losses: npt.NDArray[np.int64]
    ties: npt.NDArray[np.int64]
    component: npt.NDArray[np.int64]
    warnings: tuple[str, ...] = ()

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
        """[M] lower and [M] upper end of mu -+ z sigma at that confidence level."""
        if not 0.0 < level < 1.0:
            raise InputError(f"the confidence level is {level}", remedy="give one between 0 and 1, such as 0.95")
        reach = quantile(0.5 + 0.5 * level) * self.sigma
        return self.mu - reach, self.mu + reach

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
    def votes(self) -> int:
        """Votes between two models that moved a rating; those of a model against itself are not among them."""
        return int(self.wins.sum() + self.ties.sum() // 2)

    def rank_interval(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """[M] best and [M] worst rank that the votes allow: 1 + models surely better, M - models surely worse."""
        reach = quantile(0.5 + 0.5 * LEVEL) * self.difference_sd()
        lead = np.subtract.outer(self.mu, self.mu)
        best = 1 + np.sum(lead < -reach, axis=1)
        worst = len(self.models) - np.sum(lead > reach, axis=1)
        return best, worst

    def order(self) -> npt.NDArray[np.int64]:
        """[M] model codes from best to worst mu; equal mu by name."""
        return np.asarray(sorted(range(len(self.models)), key=lambda k: (-self.mu[k], self.models[k])))

    def table(self) -> tuple[RatedModel, ...]:
        """The models with all that is known of each, best first."""
        low, high = self.interval()
        best, worst = self.rank_interval()
        columns = self.mu, self.sigma, low, high, best, worst, self.wins, self.losses, self.ties, self.score
        names = [field.name for field in fields(RatedModel)]
        rows = list(zip(self.models, *(column.tolist() for column in (*columns, self.component)), strict=True))
        return tuple(RatedModel(**dict(zip(names, rows[k], strict=True))) for k in self.order())


def save_ratings(path: str | Path, ratings: Ratings, *, provenance: Mapping[str, Any]) -> None:
    """Write ratings.json, models from best to worst."""
    order = ratings.order()
    covariance = None
    if ratings.covariance is not None and len(order) <= MOST_IN_FILE:
        covariance = ratings.covariance[np.ix_(order, order)].tolist()
    record = RatingsRecord(
        engine=ratings.engine, settings=ratings.settings, models=ratings.table(), covariance=covariance,
        warnings=ratings.warnings, provenance=provenance,
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
    covariance = None if record.covariance is None else np.array(record.covariance)
    return Ratings(
        models=tuple(model.name for model in record.models), covariance=covariance, engine=record.engine,
        settings=record.settings, warnings=record.warnings, **columns,
    )  # fmt: skip


def align(ratings: Ratings, models: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """[len(models)] position in `ratings` of each of these models; one that was not rated is an `InputError`."""
    if ratings.models == models:
        return np.arange(len(models))
    position = {name: k for k, name in enumerate(ratings.models)}
    missing = [name for name in models if name not in position]
    if missing:
        raise InputError(f"model {missing[0]!r} has votes but no rating", remedy="rate the same votes first")
    return np.array([position[name] for name in models], dtype=np.int64)
