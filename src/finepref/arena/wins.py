"""Win rates between models: what was seen, and what the ratings predict."""

from __future__ import annotations

import numpy as np

from finepref.arena.counts import PairCounts
from finepref.arena.normal import Floats
from finepref.arena.ratings import Ratings


def votes_rated(ratings: Ratings) -> int:
    """Votes between two models that moved a rating; those of a model against itself are not among them."""
    return int(ratings.wins.sum() + ratings.ties.sum() // 2)


def predicted_wins(ratings: Ratings) -> Floats:
    """[M, M] predicted share of points of the row's model against the column's: P(win) + P(tie)/2; nan on the diagonal.

    With d = (mu_i - mu_j)/c and the dead zone m of ties in units of c: (1 + F(d - m) - F(-d - m)) / 2.
    """
    link = ratings.link
    d, m = np.subtract.outer(ratings.mu, ratings.mu) / ratings.c, ratings.tie_margin / ratings.c
    share = 0.5 * (1.0 + np.exp(link.win(d - m)[0]) - np.exp(link.win(-d - m)[0]))
    np.fill_diagonal(share, np.nan)
    return np.asarray(share)


def observed_wins(counts: PairCounts) -> Floats:
    """[M, M] observed share of points of the row's model against the column's, a tie half a point; nan: never met."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((counts.matrix("wins") + 0.5 * counts.matrix("ties")) / counts.matrix("games"))
