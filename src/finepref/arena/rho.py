"""rho: how much of the noise of a vote belongs to the images, estimated from images that recur in several votes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import log_ndtr

from finepref.arena.image import Sites, cavities, duels, evidence, infer
from finepref.arena.ratings import Ratings, align
from finepref.arena.votes import Votes
from finepref.rng import numpy_generator

GRID = tuple(round(0.05 * k, 2) for k in range(1, 20))
MOST_VOTES = 50_000
DROP = 2.0  # log-likelihood units


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


def decide(grid: tuple[float, ...], log_likelihood: tuple[float, ...]) -> tuple[float, bool]:
    """The largest rho whose log-likelihood is within 2 of the best; 1 and False if the whole curve is."""
    values = np.array(log_likelihood)
    if values.max() - values.min() < DROP:
        return 1.0, False
    return grid[int(np.flatnonzero(values >= values.max() - DROP)[-1])], True


def estimate_rho(votes: Votes, ratings: Ratings, *, seed: int = 0) -> RhoCurve:
    """Estimate rho from at most 50,000 votes (whole prompts, drawn at random; without prompts, whole groups of images).

    l(rho) = sum over votes of log Phi(t) at the cavities of expectation propagation, on the grid 0.05, 0.10 .. 0.95.
    The rule goes toward 1: with few votes per image the likelihood cannot tell, and rho = 1 is the safe end
    (docs/arena.md).

    Raises:
        InputError: votes without image names.
    """
    sample = _sample(votes, seed)
    mu = ratings.mu[align(ratings, votes.models)]
    fight, rows = duels(sample, mu, c=ratings.c)
    if len(rows) == 0:
        return RhoCurve(GRID, (0.0,) * len(GRID), 1.0, False, 0)
    sites: Sites | None = None
    values = []
    for rho in GRID:
        fit = infer(fight, rho, start=sites)
        sites = fit.sites
        values.append(float(log_ndtr(evidence(*cavities(fight, fit), rho)).sum()))
    rho, identified = decide(GRID, tuple(values))
    return RhoCurve(GRID, tuple(values), rho, identified, len(rows))


def _sample(votes: Votes, seed: int) -> Votes:
    """Whole clusters in random order until there are enough decided votes."""
    decided = np.flatnonzero(votes.outcome != 0)
    if len(decided) <= MOST_VOTES:
        return _compact(votes.take(decided))
    cluster = _clusters(votes)[decided]
    sizes = np.bincount(cluster)
    order = numpy_generator(seed, "rho votes").permutation(len(sizes))
    keep = np.zeros(len(sizes), dtype=bool)
    kept = order[np.cumsum(sizes[order]) <= MOST_VOTES]
    keep[kept if len(kept) else order[:1]] = True
    return _compact(votes.take(decided[keep[cluster]]))


def _clusters(votes: Votes) -> npt.NDArray[np.integer]:
    if votes.prompt is not None:
        return votes.prompt
    return image_components(votes)[0]


def image_components(votes: Votes) -> tuple[npt.NDArray[np.integer], int]:
    """[n] which connected group of images each vote is in, and the number of groups (unused codes count as groups)."""
    assert votes.left_image is not None
    assert votes.right_image is not None
    k = 1 + max(int(votes.left_image.max()), int(votes.right_image.max()))
    graph = coo_matrix((np.ones(len(votes), dtype=np.int8), (votes.left_image, votes.right_image)), shape=(k, k))
    count, label = connected_components(graph, directed=False)
    return label[votes.left_image], int(count)


def _compact(votes: Votes) -> Votes:
    """The same votes with image codes that leave no holes."""
    if votes.left_image is None or votes.right_image is None or len(votes) == 0:
        return votes
    _, codes = np.unique(np.concatenate([votes.left_image, votes.right_image]), return_inverse=True)
    n = len(votes)
    return Votes(
        votes.models,
        votes.left,
        votes.right,
        votes.outcome,
        left_image=codes[:n],
        right_image=codes[n:],
        prompt=votes.prompt,
    )
