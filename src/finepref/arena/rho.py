"""rho: how much of the noise of a vote belongs to the images, estimated from images that recur in several votes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from finepref.arena.blocks import clusters, slices
from finepref.arena.image import Sites, block, cavities, duels, evidence, expected, infer
from finepref.arena.normal import Floats
from finepref.arena.ratings import Ratings
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Votes

GRID = tuple(round(0.05 * k, 2) for k in range(1, 20))
MOST_VOTES = 50_000
DROP = 2.0  # log-likelihood units
MOST_RHO = 0.95


@dataclass(frozen=True, slots=True)
class RhoCurve:
    """What the votes say about rho.

    grid, log_likelihood: the leave-one-out log-likelihood of the votes at each rho. identified: whether it differs by
    more than 2 anywhere; if not, rho is 1. votes: how many were used.
    """

    grid: tuple[float, ...]
    log_likelihood: tuple[float, ...]
    rho: float
    identified: bool
    votes: int


def check_rho(rho: float) -> None:
    """Refuse a share of the noise that inference cannot take.

    Raises:
        InputError: it is neither in (0, 0.95] nor 1.
    """
    if not (0.0 < rho <= MOST_RHO or rho == 1.0):
        raise InputError(f"rho is {rho}", remedy=f"give one above 0 and up to {MOST_RHO}, or 1 for the truncated gap")


def decide(grid: tuple[float, ...], log_likelihood: tuple[float, ...]) -> tuple[float, bool]:
    """The largest rho whose log-likelihood is within 2 of the best; 1 and False if the whole curve is."""
    values = np.array(log_likelihood)
    if values.max() - values.min() < DROP:
        return 1.0, False
    return grid[int(np.flatnonzero(values >= values.max() - DROP)[-1])], True


def estimate_rho(votes: Votes, ratings: Ratings, *, prior_mean: Floats | None = None, seed: int = 0) -> RhoCurve:
    """Estimate rho from at most 50,000 votes (whole prompts, drawn at random; without prompts, whole groups of images).

    l(rho) = sum over votes of log Phi(t) at the cavities of expectation propagation, on the grid 0.05, 0.10 .. 0.95.
    The rule goes toward 1: with few votes per image the likelihood cannot tell, and rho = 1 is the safe end
    (docs/arena.md). prior_mean: [K] of every image, in c; None: its model's rating.

    Raises:
        InputError: votes without image names.
    """
    prior = expected(votes, ratings, prior_mean)
    fight, rows = duels(*block(votes, _sample(votes, seed), prior))
    weight = 1.0 if fight.count is None else fight.count
    if len(rows) == 0:
        return RhoCurve(GRID, (0.0,) * len(GRID), 1.0, False, 0)
    sites: Sites | None = None
    values = []
    for rho in GRID:
        fit = infer(fight, rho, start=sites)
        sites = fit.sites
        values.append(float(np.sum(weight * log_ndtr(evidence(*cavities(fight, fit), rho)))))
    rho, identified = decide(GRID, tuple(values))
    return RhoCurve(GRID, tuple(values), rho, identified, len(rows))


def _sample(votes: Votes, seed: int) -> npt.NDArray[np.int64]:
    """Whole clusters in random order until there are enough decided votes; looked at block by block."""
    cluster_of = clusters(votes)
    sizes = np.zeros(1, dtype=np.int64)
    for rows in slices(len(votes)):
        found = np.bincount(cluster_of(rows)[votes.outcome[rows] != 0], minlength=len(sizes))
        found[: len(sizes)] += sizes
        sizes = found
    keep = np.ones(len(sizes), dtype=bool)
    if sizes.sum() > MOST_VOTES:
        order = numpy_generator(seed, "rho votes").permutation(len(sizes))
        inside = order[np.cumsum(sizes[order]) <= MOST_VOTES]
        keep[:] = False
        keep[inside if sizes[inside].sum() > 0 else order[:1]] = True
    chosen = [
        rows.start + np.flatnonzero((votes.outcome[rows] != 0) & keep[np.minimum(cluster_of(rows), len(keep) - 1)])
        for rows in slices(len(votes))
    ]
    return np.concatenate(chosen)
