"""The rules that the choice of the next set is measured against: ASAP against its published example and brute force."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.special import ndtr

from finepref.arena.image import Duels, infer
from finepref.collect.openorders import pair_gains

EXAMPLE = np.array([[0, 1, 2, 3, 1], [1, 0, 2, 3, 1], [1, 2, 0, 3, 1], [1, 2, 3, 0, 1], [1, 2, 3, 1, 0]], dtype=float)
"""How often each of five was chosen over each other, in the readme of github.com/gfxdisp/asap @ 06289f4."""


@pytest.fixture(scope="module")
def rules() -> Any:
    """benchmarks/next_set.py."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import next_set
    finally:
        sys.path.remove(folder)
    return next_set


def posterior(wins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    winner, loser = np.nonzero(wins)
    found = infer(Duels(winner, loser, np.zeros(len(wins)), wins[winner, loser]), 0.5, tolerance=1e-10)
    return found.mean, found.variance


def test_expected_information_gain_of_asap(rules: Any) -> None:
    """One sweep after the added vote: within 15 % of expectation propagation that is run to its end, for every vote."""
    mean, variance = posterior(EXAMPLE)
    wanted = np.zeros((5, 5))
    for i, j in np.argwhere(~np.eye(5, dtype=bool)):
        after = EXAMPLE.copy()
        after[i, j] += 1.0
        m, v = posterior(after)
        told = np.sum(np.log(variance / v) + (v + (m - mean) ** 2) / variance - 1.0)
        wanted[i, j] = 0.5 * told * ndtr((mean[i] - mean[j]) / np.sqrt(variance[i] + variance[j] + 0.5))
    np.testing.assert_allclose(rules.information_gains(EXAMPLE, exact=True), wanted + wanted.T, rtol=0.15)
    np.testing.assert_allclose(np.argsort(wanted + wanted.T)[:, -1], [4, 0, 0, 4, 0])


@pytest.mark.parametrize(
    ("skipped", "published"),
    [
        ([(3, 4)], [(0, 4), (0, 1), (0, 2), (0, 3)]),  # the Matlab code
        ([(3, 4), (0, 2)], [(0, 4), (2, 4), (0, 1), (0, 3)]),  # the Python code
    ],
)
def test_published_example_of_asap(
    rules: Any, skipped: list[tuple[int, int]], published: list[tuple[int, int]]
) -> None:
    """Its trees; the code that printed them leaves pairs out by chance, and says that its output may differ."""
    gains = np.triu(rules.information_gains(EXAMPLE, exact=True))
    for pair in skipped:
        gains[pair] = 0.0
    tree = minimum_spanning_tree(np.divide(1.0, gains, out=np.zeros_like(gains), where=gains > 0)).tocoo()
    assert {*zip(tree.row.tolist(), tree.col.tolist(), strict=True)} == {*published}


@pytest.mark.parametrize("size", [2, 4])
def test_our_rule_in_the_simulation_is_the_product_rule(rules: Any, size: int) -> None:
    """The first set of each look is the one whose models tell most by `pair_gains`; the next ones count it as out."""
    rng = np.random.default_rng(2)
    mu, root = 25.0 + 2.0 * rng.standard_normal((3, 7)), rng.standard_normal((3, 7, 7))
    covariance = root @ root.transpose(0, 2, 1) / 4.0 + 0.2 * np.eye(7)
    found = rules.ours(3, 7, size, rng)(np.arange(3), mu, covariance, 2)
    share = 1.0 if size == 2 else 0.6
    for run in range(3):
        x, now = (mu[run] - 25.0) / rules.C, covariance[run] / rules.C**2
        told = share * rules.informs(x)
        for sets in range(2):
            gains = pair_gains(x, now, told, certain=rules.certain_from(7))
            chosen = found[run, sets]
            assert gains[chosen[0], chosen[1]] == pytest.approx(gains.max())
            among = np.zeros((7, 7))
            among[np.ix_(chosen, chosen)] = told[np.ix_(chosen, chosen)]
            now = np.linalg.inv(np.linalg.inv(now) + rules.laplacian(among))
