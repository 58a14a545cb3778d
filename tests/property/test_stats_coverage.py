"""Intervals hold the truth as often as they say, and not when prompts are taken for independent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats as laws

from drawn import examples
from finepref.core.rng import numpy_generator
from finepref.evaluate import stats

PROMPTS, SEEDS, SIMULATIONS = 200, 3, 600
CLUSTER = np.repeat(np.arange(PROMPTS), SEEDS)


def differences(rate: float, icc: float) -> np.ndarray:
    stream = numpy_generator(1, "coverage test", rate, icc)
    common = stream.normal(size=(SIMULATIONS, PROMPTS, 1))
    own = stream.normal(size=(SIMULATIONS, PROMPTS, SEEDS))
    shift = laws.norm.ppf(rate)
    return (shift + np.sqrt(icc) * common + np.sqrt(1 - icc) * own).reshape(SIMULATIONS, -1)


@pytest.mark.parametrize(("rate", "icc"), [(0.3, 0.0), (0.5, 0.5), (0.7, 0.95)])
def test_win_rate_intervals_cover(rate: float, icc: float) -> None:
    found = [stats.win_rate(row, CLUSTER) for row in differences(rate, icc)]
    assert 0.925 <= np.mean([one.low <= rate <= one.high for one in found]) <= 0.975


def test_taking_seeds_for_independent_would_not_cover() -> None:
    rows = differences(0.5, 0.95)
    found = [stats.wilson(float(stats.outcomes(row).sum()), row.size) for row in rows]
    assert np.mean([low <= 0.5 <= high for low, high in found]) < 0.85


@pytest.mark.parametrize("icc", [0.0, 0.95])
def test_bootstrap_intervals_cover(icc: float) -> None:
    rows = differences(0.6, icc)
    found = stats.bootstrap_means(rows.T, CLUSTER, resamples=800)
    truth = laws.norm.ppf(0.6)
    assert 0.925 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.975


@examples(40)
@example(rows=[(0, -2.0), (1, -2.0), (2, -2.0)], level=0.95)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0])), min_size=1, max_size=40),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_properties_of_a_win_rate(rows: list[tuple[int, float]], level: float) -> None:
    cluster = stats.cluster_codes([prompt for prompt, _ in rows])
    values = np.array([value for _, value in rows])
    found = stats.win_rate(values, cluster, level=level)
    if len({prompt for prompt, _ in rows}) == 1:  # one prompt has no interval
        assert np.isnan([found.low, found.high]).all()
        return
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    mirror = stats.win_rate(-values, cluster, level=level)
    assert (mirror.low, mirror.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-12)
    order = np.arange(len(rows))[::-1]
    turned = stats.win_rate(values[order], stats.cluster_codes(cluster[order]), level=level)
    assert (turned.low, turned.high) == pytest.approx((found.low, found.high), abs=1e-12)
    wider = stats.win_rate(values, cluster, level=0.999)
    assert wider.low <= found.low + 1e-12
    assert wider.high >= found.high - 1e-12


@examples(40)
@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=20))
def test_properties_of_holm(p_values: list[float]) -> None:
    adjusted = stats.holm(p_values)
    assert (adjusted >= np.array(p_values) - 1e-15).all()
    assert (adjusted <= 1.0).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    # rejecting at 5 % is Holm's step-down rule
    rejected = 0
    for rank, place in enumerate(order):
        if p_values[place] * (len(p_values) - rank) > 0.05:
            break
        rejected += 1
    assert (adjusted <= 0.05).sum() == rejected
