"""How sure the batch ratings are: Laplace, sandwich over clusters of votes, bootstrap.

All in units of c and before centring. Laplace: V = H^-1, right if votes are independent given the ratings. Sandwich:
V = H^-1 (sum over clusters of g g^T + prior) H^-1, right also if the votes of one cluster (a prompt, a voter, a K-wise
game) go together. Bootstrap: the spread of the ratings when votes or clusters are drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

from finepref.arena.batch import BatchModel, Fit, inverse_with_gauge
from finepref.arena.blocks import slices
from finepref.arena.counts import CHUNK, DENSE_UP_TO, PairCounts
from finepref.arena.link import Link
from finepref.arena.normal import Floats, Ints
from finepref.arena.settings import RatingOptions
from finepref.core.errors import InputError, check_word
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes

INTERVALS = ("auto", "laplace", "sandwich", "bootstrap")
CLUSTERS = ("game", "prompt", "voter")
FEWEST_CLUSTERS = 30
CLUSTERS_PER_MODEL = 4
REPLICATES = 1000
STEPS = 5
MOST_SCORED = 20_000_000  # votes whose scores are added up per cluster
BLOCK = 4_000_000  # numbers in one block of bootstrap replicates


@dataclass(frozen=True, slots=True)
class IntervalPlan:
    """Which interval to compute: "laplace", or another one over these clusters (None: every vote by itself)."""

    method: str
    cluster: str | None
    why: str


def plan(votes: Votes, interval: str, cluster: str | None) -> IntervalPlan:
    """Settle the interval. "auto": sandwich over games, else prompts, else voters, if there are enough; else Laplace.

    Enough is 30, and 4 per model: a covariance from fewer clusters is too small.
    """
    check_word(interval, INTERVALS, "interval")
    if cluster is not None:
        check_word(cluster, CLUSTERS, "cluster")
        if interval == "laplace":
            raise InputError("cluster has no effect with interval 'laplace'", remedy="leave cluster out")
        if getattr(votes, cluster) is None:
            raise InputError(f"the votes name no {cluster}", remedy=f"give the {cluster} column, or another cluster")
        return IntervalPlan("sandwich" if interval == "auto" else interval, cluster, "asked for")
    if interval == "laplace":
        return IntervalPlan("laplace", None, "asked for")
    enough = max(FEWEST_CLUSTERS, CLUSTERS_PER_MODEL * len(votes.models))
    for name in CLUSTERS:
        codes = getattr(votes, name)
        if codes is not None and int(codes.max()) + 1 >= enough and _recurs(codes):
            return IntervalPlan("sandwich" if interval == "auto" else interval, name, f"votes share their {name}")
    if interval == "auto":
        return IntervalPlan("laplace", None, f"no game, prompt or voter column with {enough} groups of several votes")
    return IntervalPlan(interval, None, "every vote by itself")


def _recurs(codes: Ints) -> bool:
    return int(codes.max()) + 1 < len(codes)


def covariance(votes: Votes, model: BatchModel, chosen: IntervalPlan, options: RatingOptions) -> Floats:
    """[M, M] covariance of x, not yet centred."""
    m = model.counts.n_models
    if chosen.method == "bootstrap":
        return _bootstrap(votes, model, chosen.cluster, options.seed)
    bread = inverse_with_gauge(model.fit.hessian, m)
    if chosen.method == "laplace":
        return np.asarray(bread[:m, :m])
    clusters = np.arange(len(votes)) if chosen.cluster is None else getattr(votes, chosen.cluster)
    meat = _meat(votes, clusters, model, options.ties)
    meat[np.arange(m), np.arange(m)] += model.prior_precision  # the prior is one more observation per model
    return np.asarray((bread @ meat @ bread)[:m, :m])


def _scores(link: Link, fit: Fit, difference: Floats, outcome: Any, ties: str) -> tuple[Floats, Floats]:
    """Derivative of a vote's log-likelihood in its difference and in the margin; shapes broadcast."""
    _, up, _ = link.win(difference - fit.margin)
    _, down, _ = link.win(-difference - fit.margin)
    in_d, in_m = np.where(outcome > 0, up, -down), np.where(outcome > 0, -up, -down)
    tied = outcome == 0
    if ties == "fit" and fit.margin > 0:
        _, t_d, t_m, _, _, _ = link.tie(difference, fit.margin)
        return np.where(tied, t_d, in_d), np.where(tied, t_m, in_m)
    rest = 0.5 * (up - down) if ties == "half" else np.zeros_like(up)
    return np.where(tied, rest, in_d), np.zeros_like(in_m)


def _meat(votes: Votes, cluster: Ints, model: BatchModel, ties: str) -> Floats:
    """Sum over clusters of the outer product of the cluster's score, times G/(G - 1).

    Of more than 20 million votes it takes every k-th cluster and counts it k times.
    """
    link, fit = model.link, model.fit
    m, size = len(fit.x), len(fit.hessian)
    every = -(-len(votes) // MOST_SCORED)
    n_clusters = int(cluster.max()) // every + 1
    table: tuple[Floats, Floats] | None = None
    if m <= DENSE_UP_TO:
        grid = np.subtract.outer(fit.x, fit.x)[None]
        table = _scores(link, fit, grid, np.array([-1, 0, 1])[:, None, None], ties)
    total: Any = csr_matrix((n_clusters, size))
    for rows in slices(len(votes), CHUNK):
        left, right = votes.left[rows].astype(np.int64), votes.right[rows].astype(np.int64)
        outcome = votes.outcome[rows]
        if table is None:
            in_d, in_m = _scores(link, fit, fit.x[left] - fit.x[right], outcome, ties)
        else:
            key = ((outcome.astype(np.int64) + 1) * m + left) * m + right
            in_d, in_m = table[0].ravel()[key], table[1].ravel()[key]
        member = np.asarray(cluster[rows], dtype=np.int64)
        counted = (left != right) & (member % every == 0)
        in_d, in_m, left, right = in_d[counted], in_m[counted], left[counted], right[counted]
        values, columns, repeat = [in_d, -in_d], [left, right], 2
        if size > m:
            values, columns, repeat = [*values, in_m], [*columns, np.full(len(left), m)], 3
        owner = np.tile(member[counted] // every, repeat)
        total = total + coo_matrix((np.concatenate(values), (owner, np.concatenate(columns))), shape=(n_clusters, size))
    meat = np.asarray((total.T @ total).todense())
    filled = int((np.diff(csr_matrix(total).indptr) > 0).sum())
    return meat * (every * filled / max(filled - 1, 1))


def _bootstrap(votes: Votes, model: BatchModel, cluster: str | None, seed: int) -> Floats:
    """Covariance of x over 1,000 replicates; the prior's mean is drawn again too, so unseen models stay unsure."""
    rng, counts, prior_precision = numpy_generator(seed, "arena bootstrap"), model.counts, model.prior_precision
    p, m = len(counts.i), counts.n_models
    cells = np.stack([counts.i_wins, counts.j_wins, counts.ties])
    by_cluster = None if cluster is None else _cluster_cells(votes, counts, getattr(votes, cluster), cells)
    block = max(1, BLOCK // max(m * m, 3 * p, 1 if by_cluster is None else by_cluster.shape[0]))
    draws = []
    for start in range(0, REPLICATES, block):
        size = min(block, REPLICATES - start)
        if by_cluster is None:
            total = round(float(cells.sum()))
            drawn = rng.multinomial(total, (cells / cells.sum()).ravel(), size=size).reshape(size, 3, p)
        else:
            groups = by_cluster.shape[0]
            weight = rng.multinomial(groups, np.full(groups, 1.0 / groups), size=size)
            drawn = np.asarray(by_cluster.T.dot(weight.T).T).reshape(size, 3, p)
        centre = rng.normal(size=(size, m)) / np.sqrt(prior_precision) if prior_precision > 0 else np.zeros((size, m))
        draws.append(_refit(model, drawn.astype(np.float64), centre))
    x = np.concatenate(draws)
    x -= x.mean(axis=1, keepdims=True)
    return np.asarray(np.cov(x, rowvar=False)).reshape(m, m)


def _cluster_cells(votes: Votes, counts: PairCounts, cluster: Ints, cells: Floats) -> Any:
    """[G, 3P] sparse: how many votes of each cluster fall in each cell; ties as `cells` has them."""
    m, p = counts.n_models, len(counts.i)
    low, high = np.minimum(votes.left, votes.right).astype(np.int64), np.maximum(votes.left, votes.right)
    keys = counts.i * m + counts.j
    at = np.minimum(np.searchsorted(keys, low * m + high), p - 1)
    sign = np.where(votes.left == low, 1, -1) * votes.outcome
    inside = (votes.left != votes.right) & (keys[at] == low * m + high)
    groups = int(cluster.max()) + 1
    kept_ties = cells[2].sum() > 0
    parts = [(sign > 0, 0, 1.0), (sign < 0, 1, 1.0)]
    if kept_ties:
        parts.append((sign == 0, 2, 1.0))
    elif float(cells.sum()) > float(np.count_nonzero(inside & (sign != 0))) + 0.25:
        parts += [(sign == 0, 0, 0.5), (sign == 0, 1, 0.5)]
    rows, columns, values = [], [], []
    for mask, row, value in parts:
        which = np.flatnonzero(mask & inside)
        rows.append(np.asarray(cluster[which], dtype=np.int64))
        columns.append(row * p + at[which])
        values.append(np.full(len(which), value))
    data = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    table = coo_matrix(data, shape=(groups, 3 * p)).tocsr()
    return table[np.diff(table.indptr) > 0]


def _refit(model: BatchModel, drawn: Floats, centre: Floats) -> Floats:
    """[R, M] maximum for each replicate's counts [R, 3, P], by Newton steps from the fit of all votes."""
    link, fit, prior_precision = model.link, model.fit, model.prior_precision
    r, m, i, j = len(drawn), model.counts.n_models, model.counts.i, model.counts.j
    tied = fit.margin > 0
    x, margin = np.tile(fit.x, (r, 1)), np.full((r, 1), fit.margin)
    size = m + tied
    gauge = 1.0 / m if prior_precision == 0 else 0.0
    up_to = np.zeros((len(i), m))
    up_to[np.arange(len(i)), i], up_to[np.arange(len(i)), j] = 1.0, -1.0
    a, b, t = drawn[:, 0], drawn[:, 1], drawn[:, 2]
    for _ in range(STEPS):
        d = x[:, i] - x[:, j]
        _, up, up2 = link.win(d - margin)
        _, down, down2 = link.win(-d - margin)
        g, h = a * up - b * down, -(a * up2 + b * down2)
        hessian, gradient = np.zeros((r, size, size)), np.zeros((r, size))
        if tied:
            _, t_d, t_m, t_dd, t_dm, t_mm = link.tie(d, margin)  # type: ignore[arg-type]
            g, h = g + t * t_d, h - t * t_dd
            gradient[:, m] = np.sum(t * t_m - a * up - b * down, axis=1)
            hessian[:, m, m] = -np.sum(t * t_mm + a * up2 + b * down2, axis=1)
            hessian[:, m, :m] = hessian[:, :m, m] = (a * up2 - b * down2 - t * t_dm) @ up_to
        gradient[:, :m] = g @ up_to - prior_precision * (x - centre)
        hessian[:, i, j] = hessian[:, j, i] = -h
        hessian[:, np.arange(m), np.arange(m)] = h @ np.abs(up_to) + prior_precision
        hessian[:, :m, :m] += gauge
        if gauge:
            hessian[:, np.arange(m), np.arange(m)] += 1e-9  # a replicate may leave a model without a vote
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        x = x + step[:, :m]
        if tied:
            margin = np.maximum(margin + step[:, m:], 0.2 * margin)
    return x
