"""How sure the batch ratings are: Laplace, sandwich over clusters of votes, bootstrap.

All in units of c and before centring. Laplace: V = H^-1, right if votes are independent given the ratings. Sandwich:
V = H^-1 (sum over clusters of g g^T + prior) H^-1, right also if the votes of one cluster (a prompt, a voter, a K-wise
game) go together; a model whose votes are from fewer than 10 clusters is at least as unsure as by Laplace. Bootstrap:
the spread of the ratings when votes or clusters are drawn again (`resample`).
A row of weight n without a named cluster stands for n independent votes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix

from finepref.arena.batch import BatchModel, Fit, centred, inverse_with_gauge
from finepref.arena.blocks import slices
from finepref.arena.clusters import NO_INTERVAL, IntervalPlan, few_clusters
from finepref.arena.counts import DENSE_UP_TO, PairCounts, count_sides, is_weighted, parts
from finepref.arena.link import Link
from finepref.arena.normal import Floats, Ints
from finepref.arena.resample import bootstrap
from finepref.arena.settings import RatingOptions
from finepref.formats.votes import Votes

NARROW = 0.5  # of Laplace's standard deviation
NOTHING = 1e-9  # of Laplace's variance: rounding alone
MOST_SCORED = 20_000_000  # votes whose scores are added up per cluster


@dataclass(frozen=True, slots=True)
class Gradients:
    """Derivatives of the log-likelihood of some rows, in the difference of the two ratings and in the tie margin.

    left, right: [k] codes. owner: [k] clusters. in_difference, in_margin: [k].
    """

    left: Ints
    right: Ints
    owner: Ints
    in_difference: Floats
    in_margin: Floats

    def along(self, direction: Floats, fit: Fit) -> Floats:
        """[k] derivative along a direction of all unknowns."""
        m = len(fit.x)
        lead = direction[self.left] - direction[self.right] + (direction[-1] if fit.sided else 0.0)
        return np.asarray(self.in_difference * lead + (self.in_margin * direction[m] if fit.margin > 0 else 0.0))

    def table(self, fit: Fit, clusters: int) -> Any:
        """[clusters, unknowns] sparse: sums of derivatives in every unknown."""
        m, size = len(fit.x), len(fit.hessian)
        values, columns = [self.in_difference, -self.in_difference], [self.left, self.right]
        if fit.margin > 0:
            values, columns = [*values, self.in_margin], [*columns, np.full(len(self.left), m)]
        if fit.sided:
            values, columns = [*values, self.in_difference], [*columns, np.full(len(self.left), size - 1)]
        owner = np.tile(self.owner, len(values))
        return coo_matrix((np.concatenate(values), (owner, np.concatenate(columns))), shape=(clusters, size)).tocsr()


@dataclass(frozen=True, slots=True)
class Settled:
    """The plan as it could be carried out, the centred [M, M] covariance of x, and what a reader must be told."""

    plan: IntervalPlan
    covariance: Floats
    told: tuple[str, ...] = ()


def settled(
    votes: Votes, model: BatchModel, chosen: IntervalPlan, options: RatingOptions, *, core: npt.NDArray[np.bool_]
) -> Settled:
    """The covariance of the ratings minus the mean of those in `core` [M], or why there can be none.

    Votes of a cluster that cancel each other (a voter who always clicks left, with every pair in both orders) would
    make the ratings look far surer than as many independent votes. Under "auto", where a rated model is less than half
    as unsure as by Laplace, the board is Laplace's if it is the wider one on the whole; else such models are as unsure
    as by Laplace.
    """
    plain = centred(inverse_with_gauge(model.fit.hessian, len(core))[: len(core), : len(core)], core)
    if model.counts.total == 0 and chosen.method != NO_INTERVAL:
        return Settled(IntervalPlan(NO_INTERVAL, None, "every vote is a tie, and ties are dropped"), plain)
    if chosen.method not in ("sandwich", "bootstrap"):
        return Settled(chosen, plain)
    found = centred(covariance(votes, model, chosen, options), core)
    rated = model.counts.record().sum(axis=1) > 0
    variance, independent = np.diag(found)[rated], np.diag(plain)[rated]
    narrow = variance < NARROW**2 * independent
    if not narrow.any():
        return Settled(chosen, found)
    group = f"the votes of a {chosen.cluster} cancel each other" if chosen.cluster else "the votes are too much alike"
    if options.interval == "auto":
        if variance.sum() < independent.sum():
            why = f"{group}: by them the ratings would be less than half as unsure as by independent votes"
            told = f"Intervals are those of independent votes: {why}."
            return Settled(IntervalPlan("laplace", None, why), plain, (told,))
        at = np.flatnonzero(rated)[narrow]
        found[at, at] = np.diag(plain)[at]
        return Settled(chosen, found)
    if (variance <= NOTHING * independent).any():
        return Settled(IntervalPlan(NO_INTERVAL, chosen.cluster, f"{group}, and leave no spread"), plain)
    told = f"The intervals are less than half as wide as those of independent votes: {group}."
    return Settled(chosen, found, (told,))


def covariance(votes: Votes, model: BatchModel, chosen: IntervalPlan, options: RatingOptions) -> Floats:
    """[M, M] covariance of x, not yet centred; where no interval can be given, that of independent votes."""
    m = model.counts.n_models
    if chosen.method == "bootstrap":
        return bootstrap(votes, model, chosen.cluster, options)
    bread = inverse_with_gauge(model.fit.hessian, m)
    if chosen.method != "sandwich":
        return np.asarray(bread[:m, :m])
    meat = _meat(votes, model, chosen, options.ties)
    meat[np.arange(len(meat)), np.arange(len(meat))] += model.prior_on_all  # the prior is one more vote per unknown
    found = np.asarray((bread @ meat @ bread)[:m, :m])
    if chosen.cluster is not None:  # the score of a cluster that fixes a model alone is 0 there, and says nothing
        thin = few_clusters(votes, getattr(votes, chosen.cluster))
        level = model.counts.record().sum(axis=1) / (2.0 * model.counts.total)
        lacking = np.maximum(_around(bread[:m, :m], level) - _around(found, level), 0.0)
        found[np.arange(m), np.arange(m)] += np.where(thin, lacking, 0.0)
    return found


def _around(covariance: Floats, level: Floats) -> Floats:
    """[M] variance of each x minus the mean of x with the weights `level` [M]."""
    with_level = covariance @ level
    return np.asarray(np.diag(covariance) - 2.0 * with_level + level @ with_level)


def _meat(votes: Votes, model: BatchModel, chosen: IntervalPlan, ties: str) -> Floats:
    """Sum over clusters of the outer product of the cluster's score, times E/(E - 1), E the effective number.

    Of more than 20 million votes it takes every k-th named cluster and counts it k times.
    """
    fit = model.fit
    meat = np.zeros((len(fit.hessian),) * 2)
    together, alone, every, clusters = score_sums(votes, model, chosen.cluster, ties)
    total: Any = csr_matrix((clusters, len(meat)))
    for scores in together:
        total = total + scores.table(fit, clusters)
    meat += every * np.asarray((total.T @ total).todense())
    single = alone.table(fit, len(alone.owner))
    meat += np.asarray((single.T @ single).todense())
    return meat * (chosen.effective / max(chosen.effective - 1.0, 1e-9))


def variance_along(
    votes: Votes, model: BatchModel, chosen: IntervalPlan, direction: Floats, *, ties: str
) -> float:  # fmt: skip
    """The sandwich along one direction [unknowns] of the inverse curvature: direction^T meat direction."""
    together, alone, every, clusters = score_sums(votes, model, chosen.cluster, ties)
    sums = np.zeros(clusters)
    for scores in together:
        sums += np.bincount(scores.owner, scores.along(direction, model.fit), clusters)
    found = every * float(sums @ sums) + float(np.sum(alone.along(direction, model.fit) ** 2))
    factor = chosen.effective / max(chosen.effective - 1.0, 1e-9)
    return factor * found + float(model.prior_on_all @ direction**2)


def score_sums(
    votes: Votes, model: BatchModel, cluster: str | None, ties: str
) -> tuple[Iterator[Gradients], Gradients, int, int]:
    """(scores of votes in named clusters, of those that stand alone, every how many clusters, number of owners).

    The scores that stand alone are one row per pair and outcome, times the root of their number.
    """
    codes = None if cluster is None else getattr(votes, cluster)
    unnamed = votes if codes is None else votes.take(np.flatnonzero(codes < 0))
    alone = _alone(count_sides(unnamed), model.link, model.fit, ties)
    if codes is None:
        return iter(()), alone, 1, 1
    every = -(-len(votes) // MOST_SCORED)
    return _together(votes, codes, model, ties, every), alone, every, int(codes.max()) // every + 1


def _alone(counts: PairCounts, link: Link, fit: Fit, ties: str) -> Gradients:
    lead = fit.x[counts.i] - fit.x[counts.j]
    found = [_scores(link, fit, lead, np.array(said), ties) for said in (1, -1, 0)]
    root = np.sqrt(np.concatenate([counts.i_wins, counts.j_wins, counts.ties]))
    in_d, in_m = (root * np.concatenate(column) for column in zip(*found, strict=True))
    left, right = np.tile(counts.i, 3), np.tile(counts.j, 3)
    return Gradients(left, right, np.arange(len(left)), in_d, in_m)


def _together(votes: Votes, codes: Ints, model: BatchModel, ties: str, every: int) -> Iterator[Gradients]:
    link, fit, plain = model.link, model.fit, not is_weighted(votes)
    m = len(fit.x)
    table: tuple[Floats, Floats] | None = None
    if m <= DENSE_UP_TO:
        grid = np.subtract.outer(fit.x, fit.x)[None]
        table = _scores(link, fit, grid, np.array([-1, 0, 1])[:, None, None], ties)

    def of(left: Ints, right: Ints, said: Any) -> tuple[Floats, Floats]:
        if table is None:
            return _scores(link, fit, fit.x[left] - fit.x[right], said, ties)
        key = ((said + 1) * m + left) * m + right
        return table[0].ravel()[key], table[1].ravel()[key]

    for rows in slices(len(votes)):
        left, right = votes.left[rows].astype(np.int64), votes.right[rows].astype(np.int64)
        if plain:
            in_d, in_m = of(left, right, votes.outcome[rows].astype(np.int64))
        else:
            in_d, in_m = np.zeros(len(left)), np.zeros(len(left))
            for said, part in zip((1, -1, 0), parts(votes, rows), strict=True):
                one_d, one_m = of(left, right, np.int64(said))
                in_d, in_m = in_d + part * one_d, in_m + part * one_m
        member = np.asarray(codes[rows], dtype=np.int64)
        kept = (left != right) & (member >= 0) & (member % every == 0)
        yield Gradients(left[kept], right[kept], member[kept] // every, in_d[kept], in_m[kept])


def _scores(link: Link, fit: Fit, lead: Floats, outcome: Any, ties: str) -> tuple[Floats, Floats]:
    """Derivative of a vote's log-likelihood in its difference and in the margin; shapes broadcast."""
    difference = lead + fit.side
    _, up, _ = link.win(difference - fit.margin)
    _, down, _ = link.win(-difference - fit.margin)
    in_d, in_m = np.where(outcome > 0, up, -down), np.where(outcome > 0, -up, -down)
    tied = outcome == 0
    if ties == "fit" and fit.margin > 0:
        _, t_d, t_m, _, _, _ = link.tie(difference, fit.margin)
        return np.where(tied, t_d, in_d), np.where(tied, t_m, in_m)
    rest = 0.5 * (up - down) if ties == "half" else np.zeros_like(up)
    return np.where(tied, rest, in_d), np.zeros_like(in_m)
