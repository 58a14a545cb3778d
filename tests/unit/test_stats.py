"""Closed forms, hand cases and scipy for the statistics of a comparison."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.evaluate import stats


@pytest.mark.parametrize(("wins", "n"), [(0, 10), (3, 10), (10, 10), (246, 487), (1616, 3200), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(wins: int, n: int, level: float) -> None:
    expected = scipy_stats.binomtest(wins, n).proportion_ci(confidence_level=level, method="wilson")
    assert stats.wilson(wins, n, level=level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_contains_exactly_the_proportions_the_score_test_keeps() -> None:
    low, high = stats.wilson(37.5, 80.0)
    for limit in (low, high):
        z = (37.5 / 80 - limit) / math.sqrt(limit * (1 - limit) / 80)
        assert abs(z) == pytest.approx(1.959963984540054, abs=1e-12)


@pytest.mark.parametrize(("wins", "n"), [(-1, 10), (11, 10), (0, 0), (math.nan, 10)])
def test_wilson_refuses_what_is_no_proportion(wins: float, n: float) -> None:
    with pytest.raises(InputError, match="not a proportion"):
        stats.wilson(wins, n)


def test_outcomes_count_ties_half() -> None:
    assert stats.outcomes([3.0, -0.1, 0.0, 1e-300]).tolist() == [1.0, 0.0, 0.5, 1.0]


def test_win_rate_of_one_seed_is_wilson_with_students_quantile() -> None:
    differences = np.where(np.arange(400) < 260, 1.0, -1.0)
    found = stats.win_rate(differences, np.arange(400))
    # independent comparisons: V = p(1-p)/(n-1), so n_eff = n-1
    q = scipy_stats.t.ppf(0.975, 399)
    expected = stats.wilson(0.65 * 399, 399, quantile=q)
    assert (found.value, found.low, found.high) == pytest.approx((0.65, *expected), abs=1e-12)


def test_seeds_that_repeat_each_other_add_no_evidence() -> None:
    once = np.where(np.arange(200) % 10 < 6, 1.0, -1.0)
    single = stats.win_rate(once, np.arange(200))
    tripled = stats.win_rate(np.repeat(once, 3), np.repeat(np.arange(200), 3))
    assert (tripled.low, tripled.high) == pytest.approx((single.low, single.high), abs=1e-12)


def test_win_rate_of_unanimous_comparisons_uses_the_number_of_prompts() -> None:
    found = stats.win_rate(np.ones(30), np.repeat(np.arange(10), 3))
    q = scipy_stats.t.ppf(0.975, 9)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(10 / (10 + q * q), abs=1e-12)  # Wilson at p = 1: 1 / (1 + q^2 / n)
    ties = stats.win_rate(np.zeros(30), np.repeat(np.arange(10), 3))
    assert ties.value == 0.5
    assert ties.low < 0.3
    assert ties.high == pytest.approx(1 - ties.low, abs=1e-12)


def test_win_rate_refuses_an_empty_comparison() -> None:
    with pytest.raises(InputError, match="no comparison"):
        stats.win_rate([], np.array([], dtype=np.int64))


def test_a_single_prompt_gives_no_interval() -> None:
    """Of one draw no variance can be told: G - 1 = 0 degrees of freedom."""
    one = np.zeros(3, dtype=np.int64)
    found = stats.win_rate([1.0, 1.0, -1.0], one)
    assert found.value == pytest.approx(2 / 3)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    (mean,) = stats.bootstrap_means([1.0, 2.0, 6.0], one, resamples=100)
    assert (mean.value, math.isnan(mean.low), math.isnan(mean.high)) == (3.0, True, True)
    two = np.array([[1.0, 1.0], [2.0, np.nan], [6.0, np.nan]])  # the second column has values of one prompt alone
    both = stats.bootstrap_means(two, np.array([0, 1, 1]), resamples=100)
    assert both[0].low < both[0].high
    assert math.isnan(both[1].low)


def test_bootstrap_of_independent_values_agrees_with_the_normal_interval() -> None:
    values = numpy_generator(5, "test").normal(size=400)
    (found,) = stats.bootstrap_means(values, np.arange(400), resamples=20_000)
    half = 1.959964 * values.std() / 20
    assert found.value == pytest.approx(values.mean(), abs=1e-15)
    assert found.low == pytest.approx(values.mean() - half, abs=0.004)
    assert found.high == pytest.approx(values.mean() + half, abs=0.004)


def test_bootstrap_matches_scipys_percentile_interval() -> None:
    values = numpy_generator(6, "test").exponential(size=60)
    (found,) = stats.bootstrap_means(values, np.arange(60), resamples=40_000)
    other = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.Generator(np.random.PCG64(1))
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.01)


def test_bootstrap_resamples_whole_prompts_and_skips_missing_values() -> None:
    once = numpy_generator(7, "test").normal(size=50)
    cluster = np.repeat(np.arange(50), 3)
    values = np.stack([np.repeat(once, 3), np.repeat(once, 3)], axis=1)
    values[1::3, 1] = np.nan
    tripled, thinned = stats.bootstrap_means(values, cluster, resamples=2_000)
    (single,) = stats.bootstrap_means(once, np.arange(50), resamples=2_000)
    for found in (tripled, thinned):
        assert (found.value, found.low, found.high) == pytest.approx((single.value, single.low, single.high), abs=1e-12)


def test_bootstrap_is_a_function_of_its_seed() -> None:
    values, cluster = np.arange(20.0), np.arange(20)
    assert stats.bootstrap_means(values, cluster, resamples=200, seed=3) == stats.bootstrap_means(
        values, cluster, resamples=200, seed=3
    )
    assert stats.bootstrap_means(values, cluster, resamples=200, seed=3) != stats.bootstrap_means(
        values, cluster, resamples=200, seed=4
    )


def test_bootstrap_of_a_column_without_values_is_nan() -> None:
    (found,) = stats.bootstrap_means(np.full(4, np.nan), np.arange(4), resamples=200)
    assert math.isnan(found.value)
    assert math.isnan(found.low)


@pytest.mark.parametrize(("wins", "losses", "ties"), [(5, 3, 2), (0, 6, 0), (40, 60, 11), (1, 0, 0)])
def test_sign_test_is_the_exact_binomial_test_without_ties(wins: int, losses: int, ties: int) -> None:
    differences = np.array([1.0] * wins + [-1.0] * losses + [0.0] * ties)
    expected = scipy_stats.binomtest(wins, wins + losses).pvalue
    assert stats.sign_test(differences, np.arange(len(differences))) == pytest.approx(expected, rel=1e-12)


def test_sign_test_lets_a_prompt_vote_once() -> None:
    differences = [1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0, -1.0, 0.0]
    cluster = np.repeat(np.arange(3), 3)
    assert stats.sign_test(differences, cluster) == 1.0  # one prompt for, one against, one tied
    assert stats.sign_test(np.zeros(9), cluster) == 1.0


def test_permutation_test_of_few_prompts_enumerates() -> None:
    differences = np.array([0.3, 1.2, -0.4, 0.9, 2.0])
    observed = abs(differences.sum())
    count = sum(
        abs(float(np.dot(signs, differences))) >= observed - 1e-12 for signs in itertools.product([1, -1], repeat=5)
    )
    assert stats.permutation_tests(differences, np.arange(5)) == count / 32


def test_permutation_test_agrees_with_scipys() -> None:
    differences = numpy_generator(8, "test").normal(0.25, 1.0, size=60)
    expected = scipy_stats.permutation_test(
        (differences, np.zeros(60)),
        lambda a, b: float(np.mean(a - b)),
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.Generator(np.random.PCG64(2)),
    ).pvalue
    assert stats.permutation_tests(differences, np.arange(60), draws=20_000)[0] == pytest.approx(expected, abs=0.02)


def test_columns_of_permutation_tests_are_the_single_tests() -> None:
    table = numpy_generator(9, "test").normal(0.1, 1.0, size=(60, 3))
    table[:5, 2] = np.nan
    cluster = np.repeat(np.arange(20), 3)
    together = stats.permutation_tests(table, cluster, draws=500)
    assert together.tolist() == [float(stats.permutation_tests(table[:, k], cluster, draws=500)[0]) for k in range(3)]
    assert stats.permutation_tests(np.zeros((60, 0)), cluster).shape == (0,)


def test_permutation_test_never_gives_zero() -> None:
    assert stats.permutation_tests(np.ones(100), np.arange(100), draws=999)[0] == pytest.approx(1 / 1000)
    assert stats.permutation_tests(np.zeros(100), np.arange(100), draws=99)[0] == 1.0


def test_binomial_test_against_scipy() -> None:
    for wins, n in [(1616, 3200), (841, 1632), (1523, 3200), (5, 10)]:
        assert stats.binomial_test(wins, n) == pytest.approx(scipy_stats.binomtest(wins, n).pvalue, rel=1e-9)


def test_holm_hand_cases() -> None:
    # Holm 1979 by hand: sorted .01 .02 .03 .04 -> x4 .04, x3 .06, x2 .06, x1 .04 -> monotone .06
    assert stats.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert stats.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert stats.holm([0.01]) == pytest.approx([0.01])
    assert stats.holm([]).shape == (0,)
    # a family at a time: {.01, .04} and {.03}
    assert stats.holm_by(["a", "b", "a"], [0.01, 0.03, 0.04]) == pytest.approx([0.02, 0.03, 0.04])
