"""What votes, ratings and rewards together say of the two images of every vote: which is better, and how surely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr

from finepref.arena.blocks import image_blocks
from finepref.arena.fused import FusedPrior, ScoresBySide, fused_prior
from finepref.arena.image import FINE, Expected, block, cavities, duels, evidence, infer
from finepref.arena.normal import Floats, inverse_mills
from finepref.arena.ratings import Ratings
from finepref.arena.rho import check_rho, estimate_rho
from finepref.formats.votefiles import VoteTable, votes_in
from finepref.formats.votes import Votes


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Of n votes, ties among them.

    difference: [n] posterior mean of the left image minus the right one, in rating units. probability: [n] that the
    left image is the better one. rho: the images' share of the noise. prior: what ratings and rewards said before.
    explained: how much better every decided vote is foretold by all else than by a coin: 1 - log-loss / log 2, its own
    evidence left out. overruled: share of the decided votes whose winner is taken for the worse image.
    """

    difference: Floats
    probability: Floats
    rho: float
    prior: FusedPrior
    explained: float
    overruled: float


def posterior(
    votes: Votes | VoteTable,
    ratings: Ratings,
    *,
    rewards: Mapping[str, ScoresBySide] | None = None,
    rho: float | None = None,
    seed: int = 0,
) -> Posterior:
    """The posterior of the images (module `image`) that starts from ratings and rewards (module `fused`).

    Args:
        votes: n votes that name their images, or what `read_votes` returned. ratings: of their models. rewards: by
            scorer, [n] scores of the left and of the right images, nan where missing; none: ratings and votes alone.
        rho: in (0, 0.95] or 1; None estimates it. seed: of the votes that are drawn for that.

    With rho 1, where the votes cannot tell what belongs to the images, a vote tells of its own two images alone and
    without fault: its winner stays, and the difference is that of a truncated normal.

    Raises:
        InputError: votes without images, or of other models; rewards that say nothing.
    """
    votes = votes_in(votes)
    prior = fused_prior(votes, ratings, rewards or {})
    used = estimate_rho(votes, ratings, prior_mean=prior.mean, seed=seed).rho if rho is None else rho
    check_rho(used)
    difference, probability = np.empty(len(votes)), np.empty(len(votes))
    told = total = 0.0
    expected = Expected(np.zeros(len(votes.models)), prior.mean)
    for members in image_blocks(votes):
        part, mean = block(votes, members, expected)
        found, sure, loglik, count = _of_block(part, mean, used)
        difference[members], probability[members] = ratings.c * found, sure
        told, total = told + loglik, total + count
    decided = votes.outcome != 0
    against = float(np.mean((difference * votes.outcome)[decided] < 0)) if decided.any() else 0.0
    explained = 1.0 + told / (total * np.log(2.0)) if total else 0.0
    return Posterior(difference, probability, used, prior, float(explained), against)


def _of_block(part: Votes, mean: Floats, rho: float) -> tuple[Floats, Floats, float, float]:
    """(difference in c, probability that the left is better, log-likelihood and number of the decided votes)."""
    left, right = part.images
    fight, _ = duels(part, mean)
    count = np.ones(len(fight.winner)) if fight.count is None else fight.count
    if rho == 1.0:
        lead, won = mean[left] - mean[right], part.outcome.astype(np.float64)
        loglik = log_ndtr(mean[fight.winner] - mean[fight.loser])
        found = lead + won * inverse_mills(np.where(won == 0, 0.0, won * lead))
        sure = np.where(won == 0, ndtr(lead), (1.0 + won) / 2.0)
    else:
        fit = infer(fight, rho, tolerance=FINE)
        loglik = log_ndtr(evidence(*cavities(fight, fit), rho))
        found = fit.mean[left] - fit.mean[right]
        sure = ndtr(found / np.sqrt(fit.variance[left] + fit.variance[right]))
    same = left == right
    found, sure = np.where(same, 0.0, found), np.where(same, 0.5, sure)
    return found, sure, float(np.sum(count * loglik)), float(count.sum())
