"""Checks on voters: tests against scipy and enumeration, hand algebra, edges, what must not matter, calibration."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from finepref.arena.agreement import agreement
from finepref.arena.engines import rate
from finepref.collect import attention, habits
from finepref.collect.answer_columns import GOLD, PLAIN, REPEAT, SKIPPED, UNDECIDED, AnswerColumns
from finepref.collect.checks import VoterChecks, check_answers, pooled_checks
from finepref.collect.quality import Belief, Fights, Quality, belief_without, infer_quality, no_sites, site_sums
from finepref.collect.voter_tests import (
    at_least,
    from_others,
    longest_run,
    run_at_least,
    share_interval,
    sum_at_least,
    trend,
    two_sided,
    whole_weights,
)
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats.voterchecks import CheckResult
from finepref.formats.votes import Votes
from finepref.lab.crowd import Crowd, crowd, vote
from finepref.lab.world import Judgement

NAMES = (
    "gold", "repeat", "side", "speed", "key", "agreement", "agreement over time", "speed over time", "side over time",
)  # fmt: skip


def columns(voter: object, position: object, **others: object) -> AnswerColumns:
    """Plain answers about pictures of two models, one pair each; others: columns in place of these."""
    said = np.asarray(position, dtype=np.int64)
    n = len(said)
    held: dict[str, object] = {
        "voter": voter, "kind": np.full(n, PLAIN), "position": said, "known": np.full(n, UNDECIDED),
        "choices": np.full(n, 2), "left_model": np.zeros(n, int), "right_model": np.ones(n, int),
        "left_image": 2 * np.arange(n), "right_image": 2 * np.arange(n) + 1, "milliseconds": np.full(n, np.nan),
        "loading": np.full(n, np.nan), "keyed": np.ones(n, dtype=bool), "order": np.arange(n), **others,
    }  # fmt: skip
    return AnswerColumns(**{name: np.asarray(value) for name, value in held.items()})  # type: ignore[arg-type]


def simulated(seed: int, kinds: tuple[str, ...], answers: int = 60, spread: float = 1.5) -> AnswerColumns:
    """Voters of the lab's crowd, or bad ones, on pictures of 4 models for 30 prompts."""
    rng = numpy_generator(seed, "voter check tests")
    pairs_of = np.array(list(itertools.combinations(range(4), 2)))
    every = (pairs_of[None] + 4 * np.arange(30)[:, None, None]).reshape(-1, 2)
    quality = spread / math.sqrt(2.0) * rng.standard_normal(120)
    zero = np.zeros(120)
    truth = Judgement(quality, -0.09 * quality, zero, zero, zero)
    people, parts = crowd(seed, voters=len(kinds)), []
    for voter, kind in enumerate(kinds):
        pairs = rng.permuted(every[rng.choice(len(every), answers, replace=False)], axis=1)
        alone = Crowd(*(values[voter : voter + 1] for values in (people.taste, people.noise, people.zone)))
        share = vote(alone, truth, pairs[:, 0], pairs[:, 1], seed=int(rng.integers(2**31)))[1]
        position = np.where(share == 0.5, UNDECIDED, (share < 0.5).astype(int))
        if kind == "random":
            position = rng.integers(0, 2, answers)
        if kind == "one-sided":
            position = np.where(rng.random(answers) < 0.8, 0, 1)
        times = 2500.0 * np.exp(0.3 * rng.standard_normal() + 0.5 * rng.standard_normal(answers))
        parts.append((np.full(answers, voter), position, pairs, times, np.arange(answers)))
    voter, position, pairs, times, order = (np.concatenate(part) for part in zip(*parts, strict=True))
    left, right = pairs.T
    return columns(
        voter, position, left_image=left, right_image=right, left_model=left % 4, right_model=right % 4,
        milliseconds=times, order=order,
    )  # fmt: skip


def named(checked: tuple[VoterChecks, ...], at: int = 0) -> dict[str, CheckResult]:
    return {result.check: result for result in checked[at].results}


def all_of(fights: Fights, found: Quality) -> Belief:
    """What is believed after all answers: nobody has the number -1."""
    return belief_without(fights, found, -1, site_sums(fights, found))


def close(one: CheckResult, other: CheckResult, what: tuple[str, ...] = ("value", "low", "high", "p")) -> None:
    for name in what:
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-6, nan_ok=True), (one, other, name)
    assert (one.check, one.flagged, one.n) == (other.check, other.flagged, other.n)


# Tests


@pytest.mark.parametrize(("count", "n"), [(0, 1), (1, 1), (3, 10), (10, 10), (0, 25), (61, 100)])
def test_binomials_are_scipys(count: int, n: int) -> None:
    found = stats.binomtest(count, n, 0.5)
    interval = found.proportion_ci(0.95, method="exact")
    assert share_interval(count, n) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert two_sided(count, n, 0.5) == pytest.approx(found.pvalue, abs=1e-12)
    assert at_least(count, n, 0.02) == pytest.approx(stats.binomtest(count, n, 0.02, alternative="greater").pvalue)


@pytest.mark.parametrize("chance", [0.5, 1 / 3])
def test_runs_are_those_of_all_sequences(chance: float) -> None:
    n, found = 9, np.zeros(11)
    for sequence in itertools.product((False, True), repeat=n):
        longest = max((len(list(run)) for hit, run in itertools.groupby(sequence) if hit), default=0)
        assert longest_run(np.array(sequence)) == longest
        found[: longest + 1] += math.prod(chance if hit else 1 - chance for hit in sequence)
    assert [run_at_least(length, n, chance) for length in range(11)] == pytest.approx(found.tolist(), abs=1e-12)
    assert run_at_least(40, 99, 0.5) == pytest.approx(2.0**-40 * (1 + 59 / 2), rel=1e-9)  # one run alone is likely


def test_sums_are_those_of_all_outcomes() -> None:
    """And their p is valid at every level: the chance of p <= alpha is at most alpha."""
    rng = numpy_generator(0, "sums")
    n, shares = 9, np.array([0.25, 0.75])
    chance, weight = rng.uniform(0.05, 0.6, (2, n)), rng.integers(0, 6, n)
    outcomes = np.array(list(itertools.product((0, 1), repeat=n)))
    likely = shares @ np.prod(np.where(outcomes, chance[:, None], 1 - chance[:, None]), axis=2)
    sums = outcomes @ weight
    p = {int(total): sum_at_least(chance, weight, int(total), shares) for total in np.unique(sums)}
    for total, found in p.items():
        assert found == pytest.approx(likely[sums >= total].sum(), abs=1e-12)
    of_outcomes = np.array([p[int(total)] for total in sums])
    assert all(likely[of_outcomes <= level].sum() <= level + 1e-12 for level in of_outcomes)


def test_equal_events_are_binomial() -> None:
    chance = np.full((1, 40), 0.1)
    found = sum_at_least(chance, np.ones(40, dtype=np.int64), 9, np.ones(1))
    assert found == pytest.approx(stats.binom.sf(8, 40, 0.1), abs=1e-13)


def test_weights_are_whole_steps() -> None:
    against = np.array([True, False, True])
    assert whole_weights(np.array([0.0, 0.26, 1.0]), against, 0.1).tolist() == [0, 3, 10]
    coarse = whole_weights(np.full(3, 1e4), against, 0.1)
    assert coarse[against].sum() <= 4097


def test_one_more_draw_is_students() -> None:
    others = numpy_generator(0, "others").standard_normal(7)
    t = (2.0 - others.mean()) / (others.std(ddof=1) * math.sqrt(1 + 1 / 7))
    assert from_others(2.0, others, 0.0) == pytest.approx((stats.t.cdf(t, 6), stats.t.sf(t, 6)), abs=1e-12)
    assert from_others(1.0, np.ones(3), 0.0) == (0.5, 0.5)
    assert from_others(2.0, np.ones(3), 0.0) == (1.0, 0.0)
    assert from_others(2.0, np.ones(3), 0.75) == pytest.approx((stats.t.cdf(1, 2), stats.t.sf(1, 2)))


def test_trend_is_regression() -> None:
    values = numpy_generator(0, "trend").standard_exponential(12)
    change, low, high, error, p = trend(values)
    found = stats.linregress(np.linspace(0, 1, 12), values)
    assert (change, error, p) == pytest.approx((found.slope, found.stderr, found.pvalue), abs=1e-12)
    reach = stats.t.ppf(0.975, 10) * error
    assert (low, high) == pytest.approx((change - reach, change + reach), abs=1e-12)
    assert trend(np.ones(5)) == (0.0, 0.0, 0.0, 0.0, 1.0)
    assert trend(np.arange(5.0))[4] == pytest.approx(0.0, abs=1e-12)


def test_trend_agrees_with_permutations() -> None:
    """Of left and right: the p that it has is that of all orders, within what 20,000 of them tell."""
    values = np.array([1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0], dtype=float)
    place = np.arange(len(values)) - 7.5
    rng = numpy_generator(0, "permutations")
    drawn = rng.permuted(np.tile(values, (20_000, 1)), axis=1) @ place
    assert trend(values, 1.0)[4] == pytest.approx(np.mean(np.abs(drawn) >= abs(values @ place) - 1e-9), abs=0.004)


# Pictures and attention


def test_pictures_without_a_voter_are_those_of_the_others() -> None:
    """Taking a voter's sites out comes close to inferring from the others alone."""
    answers = simulated(0, ("honest",) * 8)
    rows = answers.take(np.flatnonzero(answers.position >= 0))
    won = rows.position == 0
    fights = Fights(
        np.where(won, rows.left_image, rows.right_image), np.where(won, rows.right_image, rows.left_image), rows.voter,
        np.arange(120) % 4, 4,
    )  # fmt: skip
    whole = infer_quality(fights, np.full(len(won), 0.9), 0.5, no_sites(fights, 0.5))
    without = belief_without(fights, whole, 3, site_sums(fights, whole))
    kept = fights.voter != 3
    few = replace(fights, winner=fights.winner[kept], loser=fights.loser[kept], voter=fights.voter[kept])
    alone = infer_quality(few, np.full(kept.sum(), 0.9), 0.5, no_sites(few, 0.5))
    others = belief_without(few, alone, -1, site_sums(few, alone))
    assert np.abs(without.mean - others.mean).max() < 0.1
    assert np.corrcoef(without.mean, others.mean)[0, 1] > 0.995
    assert without.variance == pytest.approx(others.variance, rel=0.1)


def test_one_answer_is_the_truncated_normal() -> None:
    """With a = 1 and one model: E[x_w | w won] = v/sqrt(2v + 1 - rho) sqrt(2/pi), v the prior variance."""
    fights = Fights(np.array([0]), np.array([1]), np.array([0]), np.array([0, 0]), 1)
    for rho in (0.2, 0.8):
        found = all_of(fights, infer_quality(fights, np.ones(1), rho, no_sites(fights, rho)))
        v = 0.5 * rho
        expected = v / math.sqrt(2 * v + 1 - rho) * math.sqrt(2 / math.pi)
        assert found.mean == pytest.approx([expected, -expected], abs=0.01)
    half = infer_quality(fights, np.full(1, 0.5), 0.8, no_sites(fights, 0.8))
    assert 0 < all_of(fights, half).mean[0] < expected  # half a coin says less
    assert half.log_evidence == pytest.approx(math.log(0.5))


def test_a_voter_who_was_alone_is_told_nothing() -> None:
    told = attention.foretell(
        attention.JudgedPairs(
            np.zeros(3, int), np.array([0, 2, 4]), np.array([1, 3, 5]), np.ones(3, bool), np.arange(6) % 2, 1, 2,
            np.ones(3, bool),
        ),
        attention.KnownRows(np.zeros(0, int), np.zeros(0, bool)),
    )  # fmt: skip
    assert told.left == pytest.approx(np.full((7, 3), 0.5))
    assert float(attention.SHARES @ told.wrong[:, 0]) == pytest.approx(0.05, abs=1e-4)


def test_noise_is_log_normal() -> None:
    """Nodes and shares integrate as scipy's quadrature does."""
    exact = stats.lognorm(s=attention.DIFFER).expect(lambda s: stats.norm.cdf(-1.5 / s))
    assert attention.SHARES @ stats.norm.cdf(-1.5 / attention.NOISE) == pytest.approx(exact, abs=1e-6)


def test_likelihood_of_attention() -> None:
    against, chance = np.array([True, False]), np.full((7, 2), 0.1)
    found = attention.log_likelihood(against, chance, np.array([-1.0, 0.0, 0.5, 1.0]))
    expected = [0.9 * 0.1, 0.25, 0.3 * 0.7, 0.1 * 0.9]
    assert np.exp(found) == pytest.approx(expected)


# Checks


def test_gold_by_hand() -> None:
    """One voter: 7 of 10 known answers. Without others 1 in 20 is missed at each noise's chance."""
    known = np.array([0, 1] * 5)
    said = known.copy()
    said[[0, 4]], said[7] = 1, UNDECIDED  # two wrong ones, and a tie where there is none
    result = named(check_answers(columns(np.zeros(10, int), said, kind=np.full(10, GOLD), known=known)))["gold"]
    interval = stats.binomtest(7, 10).proportion_ci(method="exact")
    assert (result.value, result.low, result.high) == pytest.approx((0.7, interval.low, interval.high))
    z = 1.6448536269514722 * math.sqrt(1 + attention.DIFFER**2)
    grid = np.linspace(0, 6, 60_001)
    mean = attention.SHARES @ stats.norm.cdf(-grid / attention.NOISE[:, None])
    z = float(grid[np.argmin(np.abs(mean - 0.05))])
    chances = stats.norm.cdf(-z / attention.NOISE)
    assert result.p == pytest.approx(float(attention.SHARES @ stats.binom.sf(2, 10, chances)), rel=1e-3)
    assert (result.n, result.flagged) == (10, False)


def test_gold_that_all_miss_is_nobodys_fault() -> None:
    """A known answer that is wrong is missed by everybody, and nobody is flagged."""
    voter = np.repeat(np.arange(12), 8)
    said = np.where(numpy_generator(0, "gold").random(96) < 0.9, 1, 0)
    checked = check_answers(columns(voter, said, kind=np.full(96, GOLD), known=np.zeros(96, int)))
    assert not any(named(checked, at)["gold"].flagged for at in range(12))


@pytest.mark.parametrize("left", [50, 64, 66, 20])
def test_side_is_the_binomial_test(left: int) -> None:
    said = np.concatenate([np.zeros(left, int), np.ones(100 - left, int)])
    result = named(check_answers(columns(np.zeros(100, int), said)))["side"]
    found = stats.binomtest(left, 100)
    assert (result.p, result.value) == pytest.approx((found.pvalue, left / 100))
    assert result.flagged == (found.pvalue < 0.005)


def test_places_of_more_than_two() -> None:
    said = np.array([0] * 18 + [1] * 4 + [2] * 4 + [3] * 4)
    none = np.full(30, -1)
    answers = columns(
        np.zeros(30, int), said, choices=np.full(30, 4), left_image=none, right_image=none, left_model=none,
        right_model=none,
    )  # fmt: skip
    checked = named(check_answers(answers))
    assert checked["side"].p == pytest.approx(4 * 2 * stats.binom.sf(17, 30, 0.25))
    assert checked["side"].value == pytest.approx(0.6)
    assert "place 1 of 4" in checked["side"].words
    assert math.isnan(checked["agreement"].p)


def test_one_key_and_keys_in_turn() -> None:
    for said, run in ((np.zeros(30, int), 30), (np.arange(30) % 2, 1)):
        result = named(check_answers(columns(np.zeros(30, int), said)))["key"]
        assert result.p == pytest.approx(3 * min(2 * 0.5**29, 0.5 ** (run - 1) if run > 1 else 1.0))
        assert result.flagged
        assert f"longest run of one place {run}" in result.words
    fair = numpy_generator(3, "fair").integers(0, 2, 30)
    assert not named(check_answers(columns(np.zeros(30, int), fair)))["key"].flagged


def test_only_ties_among_voters_who_decide() -> None:
    rng = numpy_generator(1, "ties")
    said = np.where(rng.random((6, 40)) < 0.1, UNDECIDED, rng.integers(0, 2, (6, 40)))
    said[2] = UNDECIDED
    checked = check_answers(columns(np.repeat(np.arange(6), 40), said.ravel()))
    assert [at for at in range(6) if named(checked, at)["key"].flagged] == [2]
    angle = habits.undecided(columns(np.zeros(40, int), np.full(40, UNDECIDED)))
    assert angle == pytest.approx(math.asin(math.sqrt(40.375 / 40.75)))


def test_speed_by_hand() -> None:
    times = np.concatenate([np.full(4, 150.0), np.full(46, 2000.0)])
    result = named(check_answers(columns(np.zeros(50, int), np.arange(50) % 2, milliseconds=times)))["speed"]
    assert result.value == pytest.approx(0.08)
    assert result.p == pytest.approx(2 * stats.binomtest(4, 50, 0.02, alternative="greater").pvalue)
    paces = np.exp(np.linspace(7.5, 8.0, 6))
    paces[3] = 450.0
    times = np.repeat(paces, 20) * np.tile([0.95, 1.05], 60)
    checked = check_answers(columns(np.repeat(np.arange(6), 20), np.arange(120) % 2, milliseconds=times))
    others = np.log(np.delete(paces, 3))
    t = (np.log(450.0) - others.mean()) / (others.std(ddof=1) * math.sqrt(1.2))
    assert named(checked, 3)["speed"].p == pytest.approx(2 * stats.t.cdf(t, 4), rel=1e-6)


def test_times_that_are_not_known() -> None:
    checked = named(check_answers(columns(np.zeros(30, int), np.arange(30) % 2)))
    assert math.isnan(checked["speed"].p)
    assert math.isnan(checked["speed over time"].p)


def test_repeats_need_clear_pictures() -> None:
    """Who turns round on pictures that all others tell apart is found; on like pictures it says nothing."""
    rng = numpy_generator(0, "repeats")
    parts = []
    for voter in range(15):
        better = rng.integers(0, 2, 40)  # the place of the better picture of pairs 0 to 39
        kind, known = np.repeat([PLAIN, REPEAT], [40, 20]), np.full(60, UNDECIDED)
        known[40:] = better[:20]
        said = np.concatenate([better, better[:20]])
        if voter == 4:
            said[40:52] = 1 - said[40:52]
        image = 2 * np.concatenate([np.arange(40), np.arange(20)])
        turned = np.concatenate([better, better[:20]])
        parts.append((np.full(60, voter), said, kind, known, image + turned, image + 1 - turned, np.arange(60)))
    voter, said, kind, known, left, right, order = (np.concatenate(part) for part in zip(*parts, strict=True))
    answers = columns(
        voter, said, kind=kind, known=known, left_image=left, right_image=right, left_model=left * 0,
        right_model=left * 0, order=order,
    )  # fmt: skip
    checked = check_answers(answers)
    assert [at for at in range(15) if named(checked, at)["repeat"].flagged] == [4]
    assert named(checked, 4)["repeat"].value == pytest.approx(8 / 20)
    alone = check_answers(answers.take(np.flatnonzero(answers.voter == 4)))
    assert math.isnan(named(alone)["agreement"].p)


def test_drift_of_one_voter() -> None:
    """A voter who looks for the first half and then presses one key: agreement and side change over time."""
    answers = simulated(5, ("honest",) * 12, answers=120)
    late = (answers.voter == 7) & (answers.order >= 50)
    checked = check_answers(replace(answers, position=np.where(late, 0, answers.position)))
    result = named(checked, 7)
    assert result["side over time"].flagged
    assert result["agreement over time"].value < 0
    slow = np.where(answers.voter == 2, answers.milliseconds * np.exp(-2.5 * answers.order / 120), answers.milliseconds)
    found = check_answers(replace(answers, milliseconds=slow))
    assert [at for at in range(12) if named(found, at)["speed over time"].flagged] == [2]


def votes_of(answers: AnswerColumns) -> Votes:
    outcome = np.array([1, -1, 0])[answers.position]
    names = tuple("abcdef")[: 1 + max(answers.left_model.max(), answers.right_model.max())]
    return Votes(
        names, answers.left_model, answers.right_model, outcome.astype(np.int8), left_image=answers.left_image,
        right_image=answers.right_image, voter=answers.voter,
    )  # fmt: skip


def by_pairs(said: np.ndarray) -> float:
    """Krippendorff's alpha of [voters, units] answers (nan: none), by its definition: all pairs of answers."""
    used = [row[~np.isnan(row)] for row in said.T if np.sum(~np.isnan(row)) > 1]
    every = np.concatenate(used)
    seen = sum(sum(a != b for a, b in itertools.permutations(row, 2)) / (len(row) - 1) for row in used) / len(every)
    by_chance = sum(a != b for a, b in itertools.permutations(every, 2)) / (len(every) * (len(every) - 1))
    return float(1 - seen / by_chance)


def test_alpha_is_krippendorffs() -> None:
    krippendorff = pytest.importorskip("krippendorff")
    rng = numpy_generator(0, "alpha of answers")
    said = rng.choice([0.0, 1.0, -1.0, np.nan], (6, 50), p=[0.4, 0.3, 0.1, 0.2])
    voter, unit = np.nonzero(~np.isnan(said))
    answers = columns(voter, said[voter, unit], left_image=2 * unit, right_image=2 * unit + 1, order=unit)
    votes = votes_of(answers)
    side, pooled = pooled_checks(replace(rate(votes), agreement=agreement(votes)))
    both = np.concatenate(
        [said, np.where(said < 0, said, 1 - said)], axis=1
    )  # either picture of a comparison may be called the first
    assert pooled.value == pytest.approx(krippendorff.alpha(both, level_of_measurement="nominal"), abs=1e-9)
    assert pooled.value == pytest.approx(by_pairs(both), abs=1e-9)
    assert pooled.low < pooled.value < pooled.high
    assert (pooled.n, pooled.flagged) == (len(voter), False)
    assert side.low < side.value < side.high
    assert not side.flagged


def test_a_side_that_all_favour() -> None:
    answers = simulated(6, ("one-sided",) * 8, answers=100)
    side = pooled_checks(rate(votes_of(answers)))[0]
    assert side.flagged
    assert side.low < 0.8 < side.high


# Edges


def test_no_answers() -> None:
    checked = check_answers(columns(np.zeros(0, int), np.zeros(0, int)))
    assert checked == ()
    assert all(math.isnan(result.p) and not result.flagged and result.words for result in pooled_checks(None))


@pytest.mark.parametrize("said", [[0], [UNDECIDED], [SKIPPED], [UNDECIDED] * 40, [SKIPPED] * 40, [0, UNDECIDED]])
def test_too_little_to_say(said: list[int]) -> None:
    """One answer, only ties, only skips: every check is there, says why, and flags nobody."""
    for kind in (PLAIN, GOLD, REPEAT):
        checked = check_answers(columns(np.full(len(said), 3), said, kind=np.full(len(said), kind)))
        assert checked[0].voter == 3
        assert tuple(result.check for result in checked[0].results) == NAMES
        assert checked[0].flagged == ()
        for result in checked[0].results:
            assert result.words
            assert math.isnan(result.p) or result.p > 0.005


def test_one_model_and_one_picture() -> None:
    answers = replace(simulated(1, ("honest",) * 5), left_model=np.zeros(300, int), right_model=np.zeros(300, int))
    checked = check_answers(answers)
    assert not math.isnan(named(checked)["agreement"].p)  # pictures of one model differ too
    same = replace(answers, right_image=answers.left_image)
    assert math.isnan(named(check_answers(same))["agreement"].p)


def test_columns_that_do_not_fit() -> None:
    answers = columns(np.zeros(3, int), [0, 1, 0])
    for name, value, words in (
        ("kind", np.array([0, 1, 7]), "kind is 7"), ("position", np.array([0, 5, 0]), "position is 5"),
        ("choices", np.array([2, 1, 2]), "choices is 1"), ("known", np.zeros(2, int), "known has 2 rows"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            check_answers(replace(answers, **{name: value}))  # type: ignore[arg-type]


# What must not matter


def test_names_and_rows_do_not_matter() -> None:
    answers = simulated(2, ("honest",) * 6 + ("random", "one-sided"))
    checked = check_answers(answers)
    rng = numpy_generator(2, "renaming")
    voters, models, images = rng.permutation(8) + 5, rng.permutation(4) + 9, 3 * rng.permutation(120) + 1
    renamed = replace(
        answers, voter=voters[answers.voter], left_model=models[answers.left_model],
        right_model=models[answers.right_model], left_image=images[answers.left_image],
        right_image=images[answers.right_image],
    )  # fmt: skip
    shuffled = renamed.take(rng.permutation(len(renamed)))
    for other in (renamed, shuffled):
        found = {each.voter: each.results for each in check_answers(other)}
        for each in checked:
            for one, two in zip(each.results, found[int(voters[each.voter])], strict=True):
                close(one, two)


def test_mirrored_sides_change_sides_alone() -> None:
    answers = simulated(3, ("honest",) * 5 + ("random",))
    mirrored = replace(
        answers, position=np.where(answers.position < 0, answers.position, 1 - answers.position),
        left_image=answers.right_image, right_image=answers.left_image, left_model=answers.right_model,
        right_model=answers.left_model,
    )  # fmt: skip
    for one, other in zip(check_answers(answers), check_answers(mirrored), strict=True):
        for first, second in zip(one.results, other.results, strict=True):
            if first.check.startswith("side"):
                close(first, second, ("p",))
            else:
                close(first, second)


def test_excluding_nobody() -> None:
    """Every voter is answered for, flagged or not."""
    checked = check_answers(simulated(4, ("honest",) * 3 + ("one-sided",)))
    assert [each.voter for each in checked] == [0, 1, 2, 3]
    assert "side" in checked[3].flagged


# Calibration


def test_bad_voters_are_found_and_honest_ones_are_not() -> None:
    """10 studies: random and one-sided voters are found; no check flags more than 3 of 100 honest ones.

    At 0.5 % a check flags 4 or more of 100 with the chance 0.0017.
    """
    honest, bad = Counter[str](), []
    for seed in range(10):
        kinds = ("honest",) * 10 + ("random", "one-sided")
        for kind, each in zip(kinds, check_answers(simulated(seed, kinds, answers=80)), strict=True):
            if kind == "honest":
                honest.update(each.flagged)
            else:
                bad.append(bool(each.flagged))
    assert all(count <= 3 for count in honest.values()), honest
    assert np.mean(bad) >= 0.9


def test_p_of_agreement_is_calibrated() -> None:
    """Of 200 honest voters about 1 in 10 has p <= 0.1: not more than 31, which has the chance 0.002 at a tenth."""
    found = []
    for seed in range(20):
        checked = check_answers(simulated(100 + seed, ("honest",) * 10, answers=40))
        found += [named(checked, at)["agreement"].p for at in range(10)]
    assert stats.binomtest(int(np.sum(np.array(found) <= 0.1)), 200, 0.1, alternative="greater").pvalue > 0.002
