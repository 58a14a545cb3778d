"""What a voter who looks would answer, by what all the others answered; and how much each voter looks.

Voters who look differ in their noise s: P(left) = Phi(lead/sqrt(variance + (1 - rho) s^2)), s log-normal, by a quarter.
Pictures are inferred from everybody (`quality`), each voter with his attention; the attention follows from how the
answers fit what the others say of the pictures; and so in turns. What a voter is held against is without his own
answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from finepref.arena.normal import Floats, Ints
from finepref.collect.quality import Fights, Quality, belief_without, infer_quality, no_sites, site_sums

NODES, _SHARES = np.polynomial.hermite_e.hermegauss(7)
DIFFER = 0.25  # voters who look differ in their noise by this much (standard deviation of the logarithm)
NOISE = np.exp(DIFFER * NODES)
SHARES: Floats = _SHARES / _SHARES.sum()  # of the voters who look, by their noise
LEVELS = np.linspace(-1.0, 1.0, 81)  # of attention; below 0: the answers are turned round
COARSE = LEVELS[::4]
LOOK = 0.8  # share of the voters who look, before anything is known
PRIOR = np.where(COARSE == 1.0, LOOK, (1.0 - LOOK) / (len(COARSE) - 1))
GRID = tuple(round(0.1 * k, 1) for k in range(1, 10))  # rho
TURNS = 4
LEAST = 0.02  # attention that a voter is given at least
SLIP = 0.02  # share of the answers of voters who look that are by a coin all the same: a wrong key
KNOWN = (19.0, 1.0)  # known answers are as if 19 of 20 voters who look had agreed with them, before any did


@dataclass(frozen=True, slots=True)
class JudgedPairs:
    """n decided answers to pairs of different pictures, as dense codes, voters rising.

    left_won: [n]. model: [K] of every picture, below `models`. fits: [n] whether pictures are inferred from it.
    """

    voter: Ints
    left: Ints
    right: Ints
    left_won: npt.NDArray[np.bool_]
    model: Ints
    voters: int
    models: int
    fits: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KnownRows:
    """n answers to sets with a known answer: whose (rising), and whether it was another one."""

    voter: Ints
    wrong: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Foretold:
    """What is expected of voters who look, from all other voters.

    left: [S, n] chance that the left one is chosen. again: [S, n] that two looks end alike, of the other rows. wrong:
    [S, V] chance that a known answer is missed. The S kinds of voters differ by their noise and have the shares SHARES.
    """

    left: Floats
    again: Floats
    wrong: Floats


def foretell(pairs: JudgedPairs, known: KnownRows) -> Foretold:
    """Infer pictures and attention in turns, then what every answer would be without the voter's own ones."""
    rows = np.flatnonzero(pairs.fits)
    won, left, right = pairs.left_won[rows], pairs.left[rows], pairs.right[rows]
    fights = Fights(
        np.where(won, left, right), np.where(won, right, left), pairs.voter[rows], pairs.model, pairs.models
    )
    attention, looks = np.full(pairs.voters, 0.9), np.full(pairs.voters, 0.5)
    found = no_sites(fights, 0.3)
    for _ in range(TURNS):
        found = _climb(fights, attention[fights.voter], found)
        lead, variance = _leads(pairs, fights, found)
        wrong = _wrong(known, looks, pairs.voters)
        attention, looks = _attention(pairs, known, _left(lead, variance, found.rho), wrong)
    again, others = np.full((len(SHARES), len(lead)), np.nan), ~pairs.fits
    again[:, others] = _again(lead[others], variance[others], found.rho)
    return Foretold(_left(lead, variance, found.rho), again, _wrong(known, looks, pairs.voters))


def log_likelihood(against: npt.NDArray[np.bool_], chance: Floats, levels: Floats = LEVELS) -> Floats:
    """[A] log-likelihood of every attention in `levels`, the mean over the kinds of voters taken.

    P(against) = 1/2 + a (q - 1/2), q: [S, n] chance of a voter who looks. against: [n].
    """
    if not len(against):
        return np.zeros(len(levels))
    said = np.where(against, chance, 1.0 - chance) - 0.5
    terms = np.empty((len(levels), len(SHARES)))
    for at, level in enumerate(levels):
        terms[at] = np.log(np.maximum(0.5 + level * said, 1e-9)).sum(axis=1)
    top = terms.max(axis=1)
    return np.asarray(top + np.log(np.exp(terms - top[:, None]) @ SHARES))


def _climb(fights: Fights, attention: Floats, start: Quality) -> Quality:
    """The rho under which the answers are likeliest, uphill on its grid from where it was."""
    at = GRID.index(start.rho)
    best = infer_quality(fights, attention, start.rho, start)
    for way in (1, -1):
        while 0 <= at + way < len(GRID):
            other = infer_quality(fights, attention, GRID[at + way], best)
            if other.log_evidence <= best.log_evidence:
                break
            at, best = at + way, other
    return best


def _leads(pairs: JudgedPairs, fights: Fights, found: Quality) -> tuple[Floats, Floats]:
    """([n] mean, [n] variance) of the left picture's lead without the voter's own answers."""
    lead, variance, sums = np.zeros(len(pairs.voter)), np.zeros(len(pairs.voter)), site_sums(fights, found)
    for voter, own in enumerate(_of_voters(pairs.voter, pairs.voters)):
        left, right = pairs.left[own], pairs.right[own]
        belief = belief_without(fights, found, voter, sums)
        lead[own] = belief.mean[left] - belief.mean[right]
        variance[own] = belief.variance[left] + belief.variance[right]
    return lead, variance


def _left(lead: Floats, variance: Floats, rho: float) -> Floats:
    """[S, n] chance that voters who look choose the left one; a share of slips is by a coin."""
    chance = ndtr(lead / np.sqrt(variance + (1.0 - rho) * NOISE[:, None] ** 2))
    return np.asarray((1.0 - SLIP) * chance + 0.5 * SLIP)


def _again(lead: Floats, variance: Floats, rho: float) -> Floats:
    """[S, n] chance that two looks of one voter end on the same side: E[p^2 + (1 - p)^2] over the lead."""
    again = np.zeros((len(SHARES), len(lead)))
    for node, share in zip(NODES, SHARES, strict=True):
        p = ndtr((lead + node * np.sqrt(variance)) / (np.sqrt(1.0 - rho) * NOISE[:, None]))
        again += share * (p * p + (1.0 - p) ** 2)
    return (1.0 - SLIP) * again + 0.5 * SLIP


def _attention(pairs: JudgedPairs, known: KnownRows, left: Floats, wrong: Floats) -> tuple[Floats, Floats]:
    """([V] mean of the attention, below 0 taken as 0, [V] chance that it is 1).

    After all plain and known answers; the chance as if half of the voters looked, so that the misses of those who do
    not are not taken for the pictures'.
    """
    mean, looks = np.ones(pairs.voters), np.ones(pairs.voters)
    every = zip(_of_voters(pairs.voter, pairs.voters), _of_voters(known.voter, pairs.voters), strict=True)
    for voter, (judged, gold) in enumerate(every):
        own = judged[pairs.fits[judged]]
        against = np.concatenate([~pairs.left_won[own], known.wrong[gold]])
        chance = np.concatenate([1.0 - left[:, own], np.repeat(wrong[:, voter : voter + 1], len(gold), axis=1)], axis=1)
        likely = log_likelihood(against, chance, COARSE)
        likely = np.exp(likely - likely.max())
        mean[voter] = max(LEAST, float(PRIOR * likely @ np.maximum(COARSE, 0.0)) / float(PRIOR @ likely))
        looks[voter] = likely[-1] / (likely[-1] + likely[:-1].mean())
    return mean, looks


def _of_voters(voter: Ints, voters: int) -> list[Ints]:
    """The rows of every voter; `voter` rises."""
    return np.split(np.arange(len(voter)), np.searchsorted(voter, np.arange(1, voters)))


def _wrong(known: KnownRows, looks: Floats, voters: int) -> Floats:
    """[S, V] chance that a voter who looks misses a known answer, by the other voters' misses, as far as they look.

    Mean over the kinds: (1 + misses)/(20 + answers); a kind's: Phi(-z/s).
    """
    held = looks[known.voter]
    right, wrong = (np.bincount(known.voter, held * part, voters) for part in (~known.wrong, known.wrong))
    share = (KNOWN[1] + wrong.sum() - wrong) / (sum(KNOWN) + held.sum() - right - wrong)
    z = np.linspace(-6.0, 6.0, 1201)
    mean = SHARES @ ndtr(-z / NOISE[:, None])
    return np.asarray(ndtr(-np.interp(-share, -mean, z) / NOISE[:, None]))
