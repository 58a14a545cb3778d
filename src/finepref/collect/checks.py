"""Checks on voters: known answers, repeats, sides, keys, speed, agreement with the others, change over time.

Each check is a number with an interval and a p that is calibrated for voters who look: at most 0.5 % of them are
flagged by one check. Nothing is excluded. `habits` has the checks that need no pictures, `attention` says what a voter
who looks would answer.

Agreement: an answer against what the others foretell with the chance q weighs log((1 + 1/(2q))/(1 + 1/(2 - 2q))), the
evidence for half of the answers being a coin's; p is the exact chance of this sum of weights or a larger one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from finepref.arena.link import p_left_decisive
from finepref.arena.normal import Floats, Ints
from finepref.arena.ratings import C, Ratings
from finepref.arena.sides import ERROR_RATE
from finepref.collect import habits
from finepref.collect.answer_columns import (
    GOLD,
    PLAIN,
    REPEAT,
    SKIPPED,
    AnswerColumns,
    check_columns,
    too_little,
)
from finepref.collect.attention import LEVELS, SHARES, Foretold, JudgedPairs, KnownRows, foretell, log_likelihood
from finepref.collect.voter_tests import share_interval, sum_at_least, trend, whole_weights
from finepref.formats.voterchecks import CheckResult

COIN = 0.5  # share of answers by a coin that agreement is most sensitive to
STEP = 0.1  # of the weights
TOLD = 1e-3  # mean (2p - 1)^2 below which the others foretell nothing
LIKELY = 0.5 * 3.841458820694124  # drop of the log-likelihood at the 95 % limits


@dataclass(frozen=True, slots=True)
class VoterChecks:
    """All checks on one voter; voter: the code."""

    voter: int
    results: tuple[CheckResult, ...]

    @property
    def flagged(self) -> tuple[str, ...]:
        """Names of the checks that flag the voter."""
        return tuple(result.check for result in self.results if result.flagged)


@dataclass(frozen=True, slots=True)
class _Voter:
    """A voter's answers in order, and what is known of them: [m] rows of `own`, columns of `left` [S, m] and so on."""

    own: AnswerColumns
    pairs: Ints
    left: Floats
    again: Floats
    wrong: Floats
    company: bool


def check_answers(answers: AnswerColumns) -> tuple[VoterChecks, ...]:
    """Check every voter, by code.

    Args:
        answers: of one question.

    Raises:
        InputError: columns that do not fit together.
    """
    check_columns(answers)
    if not len(answers):
        return ()
    codes, voter = np.unique(answers.voter, return_inverse=True)
    dense = replace(answers, voter=voter.astype(np.int64)).take(np.lexsort((answers.order, voter)))
    people = _people(dense, len(codes))
    angles, paces, changes = (
        np.array([of(each.own) for each in people])
        for of in (habits.undecided, habits.pace, lambda own: habits.pace_trend(own)[0])
    )
    found = []
    for at, each in enumerate(people):
        others = np.arange(len(people)) != at
        results = (
            check_gold(each), check_repeat(each), habits.check_side(each.own, _left(each)),
            habits.check_speed(each.own, paces[others]), habits.check_key(each.own, angles[others]),
            check_agreement(each), check_agreement_trend(each), habits.check_pace_trend(each.own, changes[others]),
            habits.check_side_trend(each.own),
        )  # fmt: skip
        found.append(VoterChecks(int(codes[at]), results))
    return tuple(found)


def _people(answers: AnswerColumns, voters: int) -> list[_Voter]:
    """Every voter with what the others foretell; `answers` by voter and in order."""
    pairs = np.flatnonzero(answers.is_pair & (answers.position >= 0) & (answers.kind != GOLD))
    gold = np.flatnonzero((answers.kind == GOLD) & (answers.position != SKIPPED))
    used = answers.take(pairs)
    images, both = np.unique(np.concatenate([used.left_image, used.right_image]), return_inverse=True)
    models, of_both = np.unique(np.concatenate([used.left_model, used.right_model]), return_inverse=True)
    model = np.zeros(len(images), dtype=np.int64)
    model[both] = of_both
    rows = JudgedPairs(
        used.voter, both[: len(pairs)], both[len(pairs) :], used.position == 0, model, voters, len(models),
        used.kind == PLAIN,
    )  # fmt: skip
    known = KnownRows(answers.voter[gold], answers.position[gold] != answers.known[gold])
    told = foretell(rows, known)
    fitted = np.bincount(rows.voter[rows.fits], minlength=voters)
    return [_voter(answers, at, pairs, told, bool(fitted.sum() > fitted[at])) for at in range(voters)]


def _voter(answers: AnswerColumns, at: int, pairs: Ints, told: Foretold, company: bool) -> _Voter:
    rows = np.arange(*np.searchsorted(answers.voter, [at, at + 1]))
    mine = np.flatnonzero(answers.voter[pairs] == at)
    expected = told.left[:, mine], told.again[:, mine], told.wrong[:, at]
    return _Voter(answers.take(rows), pairs[mine] - int(rows[0]), *expected, company)


def _gold_rows(each: _Voter) -> Ints:
    return np.flatnonzero((each.own.kind == GOLD) & (each.own.position != SKIPPED))


def _left(each: _Voter) -> float:
    """The share of the left that the others foretell."""
    return float((SHARES @ each.left).mean()) if each.company and len(each.pairs) else math.nan


def check_gold(each: _Voter) -> CheckResult:
    """The share of known answers that were given; p: of so many misses, by how often others who look miss them."""
    rows = _gold_rows(each)
    n = len(rows)
    missed = int(np.sum(each.own.position[rows] != each.own.known[rows]))
    chance, weight = np.repeat(each.wrong[:, None], n, axis=1), np.ones(n, dtype=np.int64)
    if n == 0 or sum_at_least(chance, weight, n, SHARES) > ERROR_RATE:
        return too_little("gold", n, f"{n} sets with a known answer are too few", value=_share(n - missed, n))
    p, (low, high) = sum_at_least(chance, weight, missed, SHARES), share_interval(n - missed, n)
    words = f"{n - missed} of {n} known answers given; of voters who look {1.0 - float(SHARES @ each.wrong):.0%} are"
    return CheckResult("gold", (n - missed) / n, low, high, p, p < ERROR_RATE, n, words)


def check_repeat(each: _Voter) -> CheckResult:
    """The share of repeated sets answered as before, decided both times; p: of so many changes by a voter who looks."""
    held = (each.own.kind[each.pairs] == REPEAT) & (each.own.known[each.pairs] >= 0)
    rows, chance = each.pairs[held], 1.0 - each.again[:, held]
    n, weight = len(rows), np.ones(len(rows), dtype=np.int64)
    changed = int(np.sum(each.own.position[rows] != each.own.known[rows]))
    if n == 0 or sum_at_least(chance, weight, n, SHARES) > ERROR_RATE:
        words = f"{n} repeated sets, decided both times, are too few for pictures so alike"
        return too_little("repeat", n, words, value=_share(n - changed, n))
    p, (low, high) = sum_at_least(chance, weight, changed, SHARES), share_interval(n - changed, n)
    expected = 1.0 - float((SHARES @ chance).mean())
    words = f"{n - changed} of {n} repeated sets answered as before; of voters who look {expected:.0%} are"
    return CheckResult("repeat", (n - changed) / n, low, high, p, p < ERROR_RATE, n, words)


def _share(count: int, n: int) -> float:
    return count / n if n else math.nan


def _foretold(each: _Voter) -> tuple[npt.NDArray[np.bool_], Floats]:
    """([m] whether an answer is against what is foretold, [S, m] the chance of that), of plain and of known sets."""
    plain = each.own.kind[each.pairs] == PLAIN
    left, chosen = each.left[:, plain], each.own.position[each.pairs[plain]] == 0
    favours_left = SHARES @ left > 0.5
    rows = _gold_rows(each)
    against = np.concatenate([chosen != favours_left, each.own.position[rows] != each.own.known[rows]])
    known = np.repeat(each.wrong[:, None], len(rows), axis=1)
    return against, np.concatenate([np.where(favours_left, 1.0 - left, left), known], axis=1)


def check_agreement(each: _Voter) -> CheckResult:
    """Attention: 1 as voters who look, 0 a coin, below 0 the other way round; limits by the likelihood ratio."""
    against, chance = _foretold(each)
    n, q = len(against), SHARES @ chance
    weight = np.log1p(-COIN + 0.5 * COIN / q) - np.log1p(-COIN + 0.5 * COIN / (1.0 - q))
    weight = np.maximum(weight, 0.0)
    if not each.company or np.exp(np.log(chance[:, weight > 0]).sum(axis=1)) @ SHARES > ERROR_RATE:
        return too_little("agreement", n, f"{n} answers to pictures that others judged are too few")
    whole = whole_weights(weight, against, STEP)
    p = sum_at_least(chance, whole, int(whole[against].sum()), SHARES)
    found = log_likelihood(against, chance)
    likely = LEVELS[found >= found.max() - LIKELY]
    value = float(LEVELS[np.argmax(found)])
    words = (
        f"{np.mean(~against):.0%} of {n} answers as foretold from the others, of voters who look {1.0 - q.mean():.0%}: "
        f"attention {value:.2f} (1: as they, 0: a coin)"
    )
    return CheckResult("agreement", value, float(likely[0]), float(likely[-1]), p, p < ERROR_RATE, n, words)


def check_agreement_trend(each: _Voter) -> CheckResult:
    """How attention changes from the first answer to the last.

    With p the chance of what is foretold, y = 1 if it was answered and -1 if not: y (2p - 1)/mean (2p - 1)^2 is the
    attention of one answer; its trend is tested.
    """
    plain = each.own.kind[each.pairs] == PLAIN
    chosen = each.own.position[each.pairs[plain]] == 0
    lead = 2.0 * (SHARES @ each.left[:, plain]) - 1.0
    n = len(lead)
    if n < habits.FEWEST_IN_TREND or not each.company or float(np.mean(lead**2)) < TOLD:
        return too_little("agreement over time", n, f"{n} answers to pictures that others judged are too few")
    value, low, high, _, p = trend(np.where(chosen, lead, -lead) / float(np.mean(lead**2)))
    words = f"attention changes by {value:+.2f} from the first answer to the last"
    return CheckResult("agreement over time", value, low, high, p, p < ERROR_RATE, n, words)


def pooled_checks(ratings: Ratings | None) -> tuple[CheckResult, CheckResult]:
    """All voters together: the left's share between equal models, with its test; Krippendorff's alpha (no test).

    ratings: the board of the question, with its agreement; None: no votes.
    """
    return _side_of_all(ratings), _alpha(ratings)


def _side_of_all(ratings: Ratings | None) -> CheckResult:
    side = None if ratings is None else ratings.side
    if ratings is None or side is None or side.interval is None or side.p is None:
        n = 0 if ratings is None else int(ratings.votes)
        return too_little("side of all", n, f"{n} votes are too few, or rankings, to tell a side that all favour")
    low, high = p_left_decisive(ratings.link, np.array(side.interval) / C, ratings.tie_margin / C)
    words = f"the left wins {side.left_wins:.0%} of the decided answers between equal models"
    n = int(ratings.votes)
    return CheckResult("side of all", side.left_wins, float(low), float(high), side.p, side.warned, n, words)


def _alpha(ratings: Ratings | None) -> CheckResult:
    found = None if ratings is None else ratings.agreement
    if found is None:
        return too_little("alpha", 0, "no two voters judged the same two pictures, or all said the same")
    low, high = (math.nan, math.nan) if found.interval is None else found.interval
    words = f"Krippendorff's alpha of {found.comparisons} pairs of pictures (1: always the same, 0: as by chance)"
    return CheckResult("alpha", found.alpha, low, high, math.nan, False, int(found.judgements), words)
