"""What must hold for any votes: names, order and sides change nothing; gaps are bounded and monotone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coded_votes import coded
from drawn import examples
from finepref import Votes, gaps, gaps_both, rate
from finepref.arena.gap import GAPS, expected_gap
from finepref.arena.normal import inverse_mills, truncated_mean
from finepref.arena.online import draw_moments, win_moments
from finepref.core.rng import numpy_generator

PRIORS = st.sampled_from(["normal", "empirical-bayes"])
FEW = examples(25)


@st.composite
def some_votes(draw: Any, images: bool = False) -> Votes:
    """5 to 60 votes between up to 6 models, at least one of them decided between different models."""
    n, m = draw(st.integers(5, 60)), draw(st.integers(2, 6))
    rng = numpy_generator(draw(st.integers(0, 10**6)), "votes")
    left, right, outcome = rng.integers(0, m, n), rng.integers(0, m, n), rng.integers(-1, 2, n)
    left[0], right[0], outcome[0], outcome[1] = 0, 1, 1, -1
    named: dict[str, Any] = {"prompt": rng.integers(0, 4, n)}
    if images:  # image k of a model: 3 per model
        named |= {"left_image": left * 3 + rng.integers(0, 3, n), "right_image": right * 3 + rng.integers(0, 3, n)}
    return coded(left, right, outcome, models=[f"model {k}" for k in range(m)], **named)


def same(first: Any, second: Any, names: tuple[str, ...], within: float) -> None:
    """Two ratings say the same of every name, to 1e-9 and to a share `within` of sigma."""
    a, b = (dict(zip(r.models, zip(r.mu, r.sigma, strict=True), strict=True)) for r in (first, second))
    for name in names:
        assert a[name] == pytest.approx(b[name], abs=1e-9 + within * b[name][1])
    assert first.tie_margin == pytest.approx(second.tie_margin, abs=1e-9 + within)


def no_difference() -> Votes:
    """Votes that say nothing: the evidence of the prior's sd is flat, and its search ends where rounding lets it."""
    left = "023003222012021000301120022301213203312113"
    right = "130332133020220121313120220112222201323203"
    won = "+-+--+-0+0+0+--0-+-0+++-00++++0+--0----000"
    return coded(
        *(np.array([int(c) for c in text]) for text in (left, right)),
        np.array([{"+": 1, "-": -1, "0": 0}[c] for c in won]),
        models=[f"model {k}" for k in range(4)],
    )


@FEW
@given(
    some_votes(),
    st.integers(0, 1000),
    st.sampled_from(["normal", "empirical-bayes"]),
    st.sampled_from(["probit", "logit"]),
)
@example(no_difference(), 0, "empirical-bayes", "probit")
def test_batch_does_not_care_about_order_names_and_sides(votes: Votes, seed: int, prior: str, link: str) -> None:
    """To rounding; with a fitted prior to what its search leaves open (1e-4 of log sd, more where it hardly counts)."""
    within = 1e-3 if prior == "empirical-bayes" else 0.0
    rng = numpy_generator(seed, "permute")
    m, n = len(votes.models), len(votes)
    rows, models, flip = rng.permutation(n), rng.permutation(m), rng.random(n) < 0.5
    plain = rate(votes, prior=prior, link=link, interval="laplace")
    moved = votes.take(rows)
    same(plain, rate(moved, prior=prior, link=link, interval="laplace"), votes.models, within)
    left, right = np.where(flip, votes.right, votes.left), np.where(flip, votes.left, votes.right)
    swapped = replace(votes, left=left, right=right, outcome=np.where(flip, -1, 1) * votes.outcome)
    same(plain, rate(swapped, prior=prior, link=link, interval="laplace"), votes.models, within)
    place = np.argsort(models)
    names = tuple(votes.models[k] for k in models)
    renamed = replace(votes, left=place[votes.left], right=place[votes.right], models=names)
    same(plain, rate(renamed, prior=prior, link=link, interval="laplace"), votes.models, within)


@FEW
@given(some_votes())
def test_ratings_are_finite_and_sigma_is_of_the_centred_mu(votes: Votes) -> None:
    for options in ({}, {"prior": "empirical-bayes"}, {"engine": "online"}, {"interval": "sandwich"}):
        ratings = rate(votes, **options)
        assert np.isfinite(ratings.mu).all()
        assert np.isfinite(ratings.sigma).all()
        if ratings.covariance is not None:  # the level is that of the rated models of the largest component
            inside = ratings.component == 0
            if np.all(ratings.games[inside] >= 0.1 * ratings.games[inside].mean()) and ratings.games.any():
                assert np.abs(ratings.covariance[inside].sum(axis=0)).max() < 1e-8
            assert np.linalg.eigvalsh(ratings.covariance).min() > -1e-8
            assert np.diag(ratings.covariance) == pytest.approx(ratings.sigma**2)


@FEW
@given(some_votes(images=True), st.sampled_from(list(GAPS)), st.sampled_from([None, 0.5]))
def test_gaps_do_not_care_about_sides_and_order(votes: Votes, kind: str, rho: float | None) -> None:
    options: dict[str, Any] = {"rho": rho} if GAPS[kind].rho and rho is not None else {}

    def asked(these: Votes) -> dict[str, Any]:
        scores = [np.sin(12.9898 * codes) for codes in these.images]
        return {"kind": kind, **options, **({"rewards": {"reward": scores}} if GAPS[kind].rewards else {})}

    ratings = rate(votes)
    values = gaps(votes, ratings, **asked(votes))
    assert np.array_equal(np.isnan(values), votes.outcome == 0)
    rows = numpy_generator(0, "rows", len(votes)).permutation(len(votes))
    taken = votes.take(rows)
    assert gaps(taken, ratings, **asked(taken)) == pytest.approx(values[rows], abs=1e-6, nan_ok=True)
    mirrored = replace(
        votes, left=votes.right, right=votes.left, outcome=-votes.outcome, left_image=votes.right_image,
        right_image=votes.left_image,
    )  # fmt: skip
    assert gaps(mirrored, ratings, **asked(mirrored)) == pytest.approx(values, abs=1e-6, nan_ok=True)
    left, right = gaps_both(votes, ratings, **asked(votes))
    other_left, other_right = gaps_both(mirrored, ratings, **asked(mirrored))
    assert left == pytest.approx(other_right, abs=1e-6)
    assert right == pytest.approx(other_left, abs=1e-6)


Z = st.floats(-1e5, 30.0)


@given(Z, Z)
def test_truncated_mean_is_positive_monotone_and_above_both_bounds(a: float, b: float) -> None:
    low, high = sorted((a, b))
    first, second = float(truncated_mean(low)), float(truncated_mean(high))
    assert 0 < first <= second * (1 + 1e-12)
    assert second >= high
    assert np.isfinite(second)


@given(st.floats(-1e5, 30.0))
def test_inverse_mills_bounds(z: float) -> None:
    """lambda > max(0, -z) and, for z < 0, lambda < -z - 1/z."""
    value = float(inverse_mills(z))
    assert value > max(0.0, -z) * (1 - 1e-15)
    if z < -1e-3:
        assert value <= (-z - 1.0 / z) * (1 + 1e-15)


@given(st.floats(-30.0, 30.0), st.floats(0.001, 3.0))
def test_moments_shrink_the_variance(t: float, k: float) -> None:
    """0 < W < 1 for a win, and for a draw (up to rounding); a draw pulls both together."""
    v, w = win_moments(t)
    assert v > 0
    assert 0 < w < 1 or (t > 8 and w >= 0)
    v, w = draw_moments(t, k)
    assert v * t <= 1e-12
    assert 0 < w < 1 + 1e-9


@given(
    arrays.arrays(np.float64, 6, elements=st.floats(-50, 50)),
    arrays.arrays(np.float64, 6, elements=st.floats(1e-3, 20)),
)
def test_gap_exceeds_lead_and_zero(lead: np.ndarray, spread: np.ndarray) -> None:
    found = expected_gap(lead, spread)
    assert np.all(found > 0)
    assert np.all(found >= lead - 1e-12 * np.abs(lead))
    assert np.all(expected_gap(lead, spread * 1.5) >= found - 1e-9)
    assert expected_gap(lead, 0.0) == pytest.approx(np.maximum(lead, 0.0))
