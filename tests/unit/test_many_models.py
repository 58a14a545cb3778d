"""What many models must not cost: tables of all pairs for a row or a page. The figures: benchmarks/many_models.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from coded_votes import coded
from finepref import Votes, rate
from finepref.arena.batch import inverse_with_gauge
from finepref.arena.counts import count
from finepref.arena.engines import fit_counts
from finepref.arena.ratings import MU0, SIGMA0, C, Ratings
from finepref.arena.settings import DEFAULTS
from finepref.arena.whole import ArenaRequest, run_arena
from finepref.core.rng import numpy_generator
from finepref.report.arena_page import write_page


def simulate(models: int, n: int, *, ties: float = 0.75) -> Votes:
    """Votes at random."""
    rng = numpy_generator(0, "many", models)
    mu = rng.normal(25.0, 4.0, models)
    left = rng.integers(0, models, n)
    right = (left + rng.integers(1, models, n)) % models
    lead = mu[left] - mu[right] + C * rng.standard_normal(n)
    outcome = np.where(np.abs(lead) < ties, 0, np.sign(lead)).astype(np.int8)
    return coded(left, right, outcome, models=[f"m{k}" for k in range(models)])


def test_the_maximum_and_the_inverse_of_its_curvature() -> None:
    """The score by scipy's normal distribution vanishes at 1e-9; the inverse is numpy's, and symmetric."""
    votes = simulate(200, 3000, ties=0.0)
    ratings = rate(votes, interval="laplace")
    won = np.where(votes.outcome > 0, votes.left, votes.right)
    lost = np.where(votes.outcome > 0, votes.right, votes.left)
    d = (ratings.mu[won] - ratings.mu[lost]) / C
    slope = np.exp(norm.logpdf(d) - norm.logcdf(d))
    score = np.bincount(won, slope, 200) - np.bincount(lost, slope, 200)
    score -= (C / SIGMA0) ** 2 * (ratings.mu - MU0) / C
    assert np.abs(score).max() < 1e-9
    hessian = fit_counts(count(simulate(40, 500)), tuple("m" * 40), DEFAULTS).fit.hessian
    assert len(hessian) == 41
    before, gauged = hessian.copy(), hessian.copy()
    gauged[:40, :40] += 1.0 / 40
    inverse = inverse_with_gauge(hessian, 40)
    assert np.abs(inverse - np.linalg.inv(gauged)).max() < 1e-12
    assert np.array_equal(inverse, inverse.T)
    assert np.array_equal(hessian, before)
    with pytest.raises(np.linalg.LinAlgError):
        inverse_with_gauge(-np.eye(3), 3)


def test_a_part_of_the_tables_of_all_pairs() -> None:
    votes = simulate(30, 900)
    ratings, counts, some = rate(votes), count(votes), np.array([7, 29, 0, 11])
    part = np.ix_(some, some)
    for what in ("wins", "ties", "games"):
        assert counts.among(some).matrix(what).tolist() == counts.matrix(what)[part].tolist()
    assert np.array_equal(counts.among(some).observed_wins(), counts.observed_wins()[part], equal_nan=True)
    assert np.array_equal(ratings.predicted_wins(some), ratings.predicted_wins()[part], equal_nan=True)
    first, second = np.array([3, 3, 8]), np.array([3, 4, 1])
    for each in (ratings, rate(votes, engine="online")):
        assert np.sqrt(each.difference_variance(first, second)) == pytest.approx(
            each.difference_sd()[first, second], rel=1e-12
        )


def test_no_table_of_all_pairs_per_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often for 80 models as for 20, and a page that grows by its rows alone."""
    made: list[int] = []
    whole = Ratings.difference_sd
    monkeypatch.setattr(Ratings, "difference_sd", lambda self: (made.append(len(self.models)), whole(self))[1])
    sizes = []
    for models in (20, 80):
        votes = simulate(models, 600)
        words = np.array(["right", "tie", "left"])[votes.outcome + 1]
        lines = [f"m{a},m{b},{w}" for a, b, w in zip(votes.left, votes.right, words, strict=True)]
        (tmp_path / "votes.csv").write_text("\n".join(["left,right,winner", *lines]))
        run_arena([tmp_path / "votes.csv"], tmp_path / f"arena-{models}", ArenaRequest(), page=write_page)
        sizes.append((tmp_path / f"arena-{models}" / "arena.html").stat().st_size)
    assert made.count(20) == made.count(80) < 10
    assert sizes[1] - sizes[0] < 60 * 1500
