"""Smoothed preference and reward margins: bounds, symmetry, monotony, invariance of scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn import examples
from finepref.formats.rewards import Rewards
from finepref.signals import parts
from finepref.signals.smooth import smoothed

score = st.floats(0.1, 0.3)


@given(first=score, second=score, gamma=st.floats(0, 50), scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
@examples(60)
def test_smoothed(first: float, second: float, gamma: float, scale: float, shift: float) -> None:
    """Weight in [0, gamma tanh(1/2)], symmetric in the two images, unchanged when scores and extremes are rescaled."""
    one = smoothed([first], [second], low=0.1, high=0.3, gamma=gamma)
    two = smoothed([second], [first], low=0.1, high=0.3, gamma=gamma)
    assert one.weight[0] == two.weight[0]
    assert 0 <= one.weight[0] <= gamma * np.tanh(0.5) * (1 + 1e-12)
    assert 0.5 <= one.p_win[0] <= 1 / (1 + np.exp(-1)) + 1e-12
    assert first == second or one.winner[0] == 1 - two.winner[0]
    stretched = smoothed(
        [scale * first + shift],
        [scale * second + shift],
        low=scale * 0.1 + shift,
        high=scale * 0.3 + shift,
        gamma=gamma,
    )
    assert stretched.weight[0] == pytest.approx(one.weight[0], rel=1e-6, abs=1e-9 * (1 + 1 / scale))


@given(scores=st.lists(score, min_size=3, max_size=3, unique=True))
def test_larger_difference_larger_weight(scores: list[float]) -> None:
    """Against the same loser the better winner gets the larger weight."""
    low, middle, high = sorted(scores)
    found = smoothed([high, middle], [low, low], low=0.1, high=0.3)
    assert found.weight[0] >= found.weight[1]


@given(values=st.lists(st.tuples(score, score), min_size=2, max_size=20))
def test_reward_margin_is_antisymmetric(values: list[tuple[float, float]]) -> None:
    """margin_0 = -margin_1, and swapping the images swaps them."""
    first, second = (np.array(side) for side in zip(*values, strict=True))
    if np.concatenate([first, second]).std() == 0:
        return
    none = [None] * len(first)
    votes = parts.SignalVotes(
        pair_id=none, label=np.ones(len(first)), model_0=none, model_1=none, image_0=none, image_1=none
    )
    one, two = (
        parts.reward_margin(votes, rewards=Rewards(*sides, scorer="", fingerprint=""))
        for sides in ((first, second), (second, first))
    )
    assert one.margin_0 is not None
    assert one.margin_1 is not None
    assert (one.margin_0 == -one.margin_1).all()
    np.testing.assert_allclose(one.margin_0, two.margin_1, rtol=1e-9)
