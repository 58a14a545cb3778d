"""The interval over seeds and prompts: against Student's t where one of them does not vary, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from finepref.core import rng
from finepref.study.contrasts import crossed_mean


@pytest.mark.parametrize("turned", [False, True])
def test_one_kind_of_effect_alone_is_students_t(turned: bool) -> None:
    """Every prompt alike: the one-sample t test of the seed means; every seed alike: that of the prompt means."""
    values = np.array([0.3, -0.1, 0.7, 0.2, 0.4])
    table = np.repeat(values[:, None], 8, axis=1)
    found, p = crossed_mean(table.T if turned else table)
    test = stats.ttest_1samp(values, 0.0)
    limits = test.confidence_interval(0.95)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high), rel=1e-9)
    assert p == pytest.approx(test.pvalue, rel=1e-9)


def test_one_seed_speaks_of_itself() -> None:
    values = np.array([0.3, -0.1, 0.7, 0.2, 0.4])
    found, p = crossed_mean(values[None])
    test = stats.ttest_1samp(values, 0.0)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
    assert p == pytest.approx(test.pvalue, rel=1e-9)


def test_no_spread() -> None:
    assert crossed_mean(np.zeros((3, 4)))[1] == 1.0
    found, p = crossed_mean(np.ones((3, 4)))
    assert (found.low, found.high, p) == (1.0, 1.0, 0.0)


def test_by_hand() -> None:
    """Two seeds, two prompts: 0 1 / 2 5. Means of seeds 0.5 3.5, of prompts 1 3; MS 9, 4, 1; Var = 12 / 4."""
    found, _ = crossed_mean(np.array([[0.0, 1.0], [2.0, 5.0]]))
    freedom = 12**2 / (9**2 + 4**2 + 1**2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(3.0)
    assert (found.value, found.high) == pytest.approx((2.0, 2.0 + half))


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "of_prompts"), [(5, 0.05, 0.1), (10, 0.05, 0.1), (10, 0.0, 0.3), (5, 0.2, 0.0)]
)
def test_coverage(seeds: int, of_seeds: float, of_prompts: float) -> None:
    """95 % intervals hold the truth in 92.5 to 99 % of 1,000 worlds (three binomial standard deviations: 2.1 %)."""
    draw = rng.numpy_generator(1, "crossed", seeds, of_seeds)
    held = 0
    for _ in range(1000):
        table = 0.4 + of_seeds * draw.normal(size=(seeds, 1)) + of_prompts * draw.normal(size=(1, 60))
        found, _ = crossed_mean(table + 0.5 * draw.normal(size=(seeds, 60)))
        held += found.low <= 0.4 <= found.high
    assert 925 <= held <= 990
