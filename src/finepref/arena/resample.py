"""The bootstrap of batch ratings: clusters of votes, and votes without one, are drawn again and the model refitted."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_matrix

from finepref.arena.batch import BatchModel
from finepref.arena.counts import PairCounts, count, parts
from finepref.arena.normal import Floats, Ints
from finepref.arena.settings import RatingOptions
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes

REPLICATES = 1000
STEPS = 5
BLOCK = 4_000_000  # numbers in one block of bootstrap replicates


def bootstrap(votes: Votes, model: BatchModel, cluster: str | None, options: RatingOptions) -> Floats:
    """[M, M] covariance of x over 1,000 replicates; the prior's mean is drawn again too, so unseen models stay unsure.

    cluster: name of what votes share; those without one, or all for None, are drawn one by one.
    """
    rng, counts, prior_precision = numpy_generator(options.seed, "arena bootstrap"), model.counts, model.prior_precision
    p, m = len(counts.i), counts.n_models
    codes = None if cluster is None else getattr(votes, cluster)
    named = None if codes is None else _cluster_cells(votes, counts, codes, options.ties)
    alone = votes if codes is None else votes.take(np.flatnonzero(codes < 0))
    cells = _aligned(count(alone).with_ties(options.ties), counts)
    groups, singles = 0 if named is None else named.shape[0], float(cells.sum())
    units = groups + (max(1, round(singles)) if singles > 0 else 0)
    block = max(1, BLOCK // max(m * m, 3 * p, groups))
    draws = []
    for start in range(0, REPLICATES, block):
        size = min(block, REPLICATES - start)
        drawn = np.zeros((size, 3, p))
        by_one = rng.binomial(units, (units - groups) / units, size=size)
        if named is not None and groups:
            weight = rng.multinomial(units - by_one, np.full(groups, 1.0 / groups))
            drawn += np.asarray(named.T.dot(weight.T).T).reshape(size, 3, p)
        if units > groups:
            drawn += rng.multinomial(by_one, (cells / singles).ravel()).reshape(size, 3, p)
        centre = rng.normal(size=(size, m)) / np.sqrt(prior_precision) if prior_precision > 0 else np.zeros((size, m))
        draws.append(_refit(model, drawn, centre))
    x = np.concatenate(draws)
    x -= x.mean(axis=1, keepdims=True)
    return np.asarray(np.cov(x, rowvar=False)).reshape(m, m)


def _aligned(part: PairCounts, counts: PairCounts) -> Floats:
    """[3, P] wins of i, of j and ties of some of the votes, in the cells of all."""
    at = np.searchsorted(counts.i * counts.n_models + counts.j, part.i * counts.n_models + part.j)
    cells = np.zeros((3, len(counts.i)))
    cells[:, at] = part.i_wins, part.j_wins, part.ties
    return cells


def _cluster_cells(votes: Votes, counts: PairCounts, cluster: Ints, ties: str) -> Any:
    """[G, 3P] sparse: how many votes of each named cluster fall in each cell."""
    m, p = counts.n_models, len(counts.i)
    rows = np.flatnonzero((votes.left != votes.right) & (cluster >= 0))
    held = votes.take(rows)
    left, right = held.left.astype(np.int64), held.right.astype(np.int64)
    at = np.searchsorted(counts.i * m + counts.j, np.minimum(left, right) * m + np.maximum(left, right))
    at = np.minimum(at, p - 1)  # a row of weight 0 may be of a pair that has no cell
    won, lost, tied = parts(held)
    half = 0.5 * tied if ties == "half" else 0.0
    turned = left > right
    tied = tied if ties == "fit" else 0.0 * tied
    cells = np.where(turned, lost, won) + half, np.where(turned, won, lost) + half, tied
    owner, member = np.unique(cluster[rows], return_inverse=True)
    column = np.concatenate([row * p + at for row in range(3)])
    data = np.concatenate(cells), (np.tile(member, 3), column)
    table = coo_matrix(data, shape=(len(owner), 3 * p)).tocsr()
    table.eliminate_zeros()
    return table[np.flatnonzero(np.bincount(member, sum(parts(held)), len(owner)))]  # some have only weights of 0


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
