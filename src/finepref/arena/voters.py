"""Voter checks: who votes against everybody, who clicks one side, who always votes for one model.

Each is a z value: 0 on average for an honest voter, with standard deviation about 1. Decided votes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

from finepref.arena.blocks import slices
from finepref.arena.counts import parts
from finepref.arena.link import p_left_decisive
from finepref.arena.normal import Floats, quantile
from finepref.arena.ratings import Ratings, align
from finepref.formats.votes import Votes

FEWEST_VOTES = 10
FALSE_ALARMS = 0.01  # chance that any honest voter is flagged by one of the checks


@dataclass(frozen=True, slots=True)
class Voter:
    """One voter's z values; votes: decided ones, the sum of their weights.

    agreement: of the log-likelihood (very negative: flips votes). side: of left over expected (always left: high). fan:
    the largest of votes for one model over expected, fan_model its code. reasons: why the voter is flagged.
    """

    code: int
    name: str
    votes: float
    agreement: float
    side: float
    fan: float
    fan_model: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VoterCheck:
    """voters: flagged first, then by votes. checked: those with at least 10 decided votes. limits: of z per check."""

    voters: tuple[Voter, ...]
    checked: int
    total: int
    limits: dict[str, float]

    @property
    def flagged(self) -> tuple[Voter, ...]:
        """Those with a reason."""
        return tuple(voter for voter in self.voters if voter.reasons)


def check_voters(votes: Votes, ratings: Ratings, *, most: int = 200) -> VoterCheck | None:
    """Check every voter against the ratings; the list holds all who are flagged and the busiest, up to `most`.

    p = P(left | decisive). agreement = sum (log p(vote) - E) / sd; side = sum (left - p) / sd; fan = over models,
    sum (vote for it - P) / sd.

    Args:
        votes: with voters; those without a name are passed over. ratings: of their models.

    Returns:
        None where no voter has a name or no vote was decided.
    """
    if votes.voter is None:
        return None
    mu = ratings.mu[align(ratings, votes.models)]
    link = ratings.link
    count = 1 + int(votes.voter.max(initial=-1))
    m = len(votes.models)
    sums = np.zeros((5, count))  # votes, log-likelihood and its variance, side and its variance
    fans: list[Any] = [csr_matrix((count, m)), csr_matrix((count, m))]
    for rows in slices(len(votes)):
        won, lost, _ = parts(votes, rows)
        keep = (won + lost > 0) & (votes.left[rows] != votes.right[rows]) & (votes.voter[rows] >= 0)
        voter, left, right = (np.asarray(column[rows])[keep] for column in (votes.voter, votes.left, votes.right))
        won, lost = won[keep], lost[keep]
        p = p_left_decisive(link, (mu[left] - mu[right]) / ratings.c, ratings.tie_margin / ratings.c)
        p = np.clip(p, 1e-12, 1.0 - 1e-12)
        surprise = np.log(p) - np.log1p(-p)
        variance = (won + lost) * p * (1.0 - p)
        rest = won * (1.0 - p) - lost * p
        # log p(vote) - E log p(vote) = (left - p) log(p/(1-p)), variance p (1-p) log^2
        for row, value in enumerate((won + lost, rest * surprise, variance * surprise**2, rest, variance)):
            sums[row] += np.bincount(voter, value, count)
        who, whom = np.concatenate([voter, voter]), np.concatenate([left, right])
        for at, value in enumerate((np.concatenate([rest, -rest]), np.concatenate([variance, variance]))):
            fans[at] = fans[at] + coo_matrix((value, (who, whom)), shape=(count, m)).tocsr()
    return _verdict(votes, sums, fans[0].tocoo(), fans[1], most) if sums[0].any() else None


def _verdict(votes: Votes, sums: Floats, rest: Any, variance: Any, most: int) -> VoterCheck:
    n, surprise, surprise_var, side, side_var = sums
    enough = n >= FEWEST_VOTES
    checked = max(int(enough.sum()), 1)
    agreement, side_z = (v / np.sqrt(np.maximum(w, 1e-12)) for v, w in ((surprise, surprise_var), (side, side_var)))
    spread = np.asarray(variance[rest.row, rest.col]).ravel() if rest.nnz else np.zeros(0)  # else a matrix comes back
    z = np.where(
        spread > 1.0, rest.data / np.sqrt(np.maximum(spread, 1e-12)), 0.0
    )  # too few votes on a model: no verdict
    fan, fan_model = np.zeros(len(n)), np.zeros(len(n), dtype=np.int64)
    order = np.argsort(z)  # the largest is written last
    fan[rest.row[order]], fan_model[rest.row[order]] = z[order], rest.col[order]
    limits = {
        "agreement": -quantile(1.0 - FALSE_ALARMS / checked),
        "side": quantile(1.0 - 0.5 * FALSE_ALARMS / checked),
        "fan": quantile(1.0 - FALSE_ALARMS / (checked * len(votes.models))),
    }
    bad = {
        "votes against the others": enough & (agreement < limits["agreement"]),
        "clicks one side": enough & (np.abs(side_z) > limits["side"]),
        "votes for one model": enough & (fan > limits["fan"]),
    }
    flagged = np.logical_or.reduce(list(bad.values()))
    busiest = np.lexsort((-n, ~flagged))[: max(most, int(flagged.sum()))]
    names = votes.voters
    voters = tuple(
        Voter(
            int(k), names[k] if names is not None else str(k), float(n[k]), float(agreement[k]), float(side_z[k]),
            float(fan[k]), int(fan_model[k]), tuple(reason for reason, hit in bad.items() if hit[k]),
        )
        for k in busiest if n[k] > 0
    )  # fmt: skip
    return VoterCheck(voters, int(enough.sum()), int((n > 0).sum()), limits)
