"""Gaps from image-level inference, for one or both outcomes of every vote."""

from __future__ import annotations

import numpy as np

from finepref.arena.blocks import image_blocks
from finepref.arena.image import cavities, duels, expected_difference, infer
from finepref.arena.normal import Floats
from finepref.arena.ratings import Ratings, align
from finepref.formats.votes import Votes


def image_gaps(votes: Votes, ratings: Ratings, rho: float, *, out: Floats | None = None) -> Floats:
    """[n] posterior mean of the winner's image minus the loser's, in rating units; nan for ties.

    Runs over blocks of connected images, so memory holds one block. out: [n] array to fill (of a file, say).
    """
    values = np.empty(len(votes)) if out is None else out
    mu = ratings.mu[align(ratings, votes.models)]
    for members in image_blocks(votes):
        block = votes.take(members).with_dense_images()
        fight, rows = duels(block, mu, c=ratings.c)
        mean = infer(fight, rho).mean
        result = np.where(block.outcome == 0, np.nan, 0.0)  # an image against itself differs by nothing
        result[rows] = ratings.c * (mean[fight.winner] - mean[fight.loser])
        values[members] = result
    return values


def image_gaps_both(votes: Votes, ratings: Ratings, rho: float) -> tuple[Floats, Floats]:
    """([n], [n]) gap if the left and if the right image is the winner.

    The side that won has the gap of `image_gaps`; the other what expectation propagation would say with this vote
    turned round and all others as they are (from the cavities). A tie has no vote of its own to turn round.
    """
    left, right = np.empty(len(votes)), np.empty(len(votes))
    mu = ratings.mu[align(ratings, votes.models)]
    for members in image_blocks(votes):
        left[members], right[members] = _both(votes.take(members).with_dense_images(), mu, ratings.c, rho)
    return left, right


def _both(votes: Votes, mu: Floats, c: float, rho: float) -> tuple[Floats, Floats]:
    assert votes.left_image is not None
    assert votes.right_image is not None
    fight, rows = duels(votes, mu, c=c)
    fit = infer(fight, rho)
    pair = np.stack([votes.left_image, votes.right_image])
    m, v = fit.mean[pair], fit.variance[pair]  # of a tie: nothing to leave out
    left_won = votes.outcome[rows] > 0
    cavity_m, cavity_v = cavities(fight, fit)
    m[:, rows] = np.where(left_won, cavity_m, cavity_m[::-1])
    v[:, rows] = np.where(left_won, cavity_v, cavity_v[::-1])
    left, right = c * expected_difference(m, v, rho), c * expected_difference(m[::-1], v[::-1], rho)
    own = c * (fit.mean[fight.winner] - fit.mean[fight.loser])
    left[rows[left_won]] = own[left_won]
    right[rows[~left_won]] = own[~left_won]
    same = votes.left_image == votes.right_image
    left[same] = right[same] = 0.0
    return left, right
