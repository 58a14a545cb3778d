"""One posterior from votes, ratings and rewards: integration, optimisers, repeated rows, rewards that tell nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from finepref import Votes, gaps, gaps_both, posterior, rate
from finepref.arena.fused import fused_prior
from finepref.arena.image import image_gaps, model_means
from finepref.core.errors import InputError

C = math.sqrt(2.0) * 25 / 6


def world(seed: int, *, prompts: int = 150, models: int = 5, votes: int = 900, reward: float = 1.0) -> Any:
    """(votes, true quality of the images, a reward of them): an image a prompt and model."""
    rng = np.random.default_rng(seed)
    model = np.tile(np.arange(models), prompts)
    quality = rng.normal(0, 0.4, models)[model] + rng.normal(0, 0.5, len(model))
    prompt = rng.integers(0, prompts, votes)
    a = rng.integers(0, models, votes)
    b = (a + rng.integers(1, models, votes)) % models
    left, right = prompt * models + a, prompt * models + b
    outcome = np.sign(quality[left] - quality[right] + rng.normal(0, 0.7, votes)).astype(np.int8)
    names = tuple(f"model {k}" for k in range(models))
    made = Votes(names, a, b, outcome, left_image=left, right_image=right, prompt=prompt)
    return made, quality, quality + rng.normal(0, reward, len(model))


def sides(votes: Votes, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left, right = votes.images
    return score[left], score[right]


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("outcome", ["left", "right"])
def test_one_vote_and_one_reward_are_exact(rho: float, outcome: str) -> None:
    """Three images: one vote between two, a tie that tells nothing with the third."""
    votes = Votes.from_columns(
        left=["a", "a"], right=["b", "a"], outcome=[outcome, "tie"], left_image=["x", "x"], right_image=["y", "z"]
    )
    ratings = rate(votes)
    rewards = {"r": (np.array([0.3, 0.3]), np.array([0.9, -0.4]))}
    told = posterior(votes, ratings, rewards=rewards, rho=rho)
    left, right = votes.images
    lead = float(told.prior.mean[left[0]] - told.prior.mean[right[0]])
    sign = 1.0 if outcome == "left" else -1.0

    def density(x: float) -> float:  # of x_left - x_right, times the probability of the vote
        vote = float(x * sign > 0) if rho == 1.0 else stats.norm.cdf(x * sign / math.sqrt(1.0 - rho))
        return stats.norm.pdf(x, lead, math.sqrt(rho)) * vote

    low, high = lead - 12.0, lead + 12.0
    kinks = {"points": [0.0], "limit": 400, "epsabs": 1e-12, "epsrel": 1e-12}
    mass = integrate.quad(density, low, high, **kinks)[0]
    mean = integrate.quad(lambda x: x * density(x), low, high, **kinks)[0] / mass
    assert told.difference[0] / C == pytest.approx(mean, abs=1e-6)
    given = gaps(votes, ratings, kind="fused", rho=rho, rewards=rewards)
    assert given[0] == pytest.approx(sign * told.difference[0], abs=1e-7)
    assert np.isnan(given[1])
    if rho < 1.0:  # half of what the pair moves goes to each image, which have equal variances
        moved = (mean - lead) / 2
        third = told.prior.mean[left[1]] + moved - told.prior.mean[right[1]]
        assert told.difference[1] / C == pytest.approx(third, abs=1e-6)


def test_coefficients_are_the_optimisers() -> None:
    """At the ridge that was found, scipy's maximum of the same posterior; and no other ridge has more evidence."""
    votes, _, reward = world(1)
    ratings = rate(votes)
    prior = fused_prior(votes, ratings, {"r": sides(votes, reward)})
    model = np.tile(np.arange(5), 150)
    used = np.unique(np.concatenate(votes.images))
    value = np.zeros(len(reward))
    for k in range(5):
        of_model = used[model[used] == k]
        value[of_model] = reward[of_model] - reward[of_model].mean()
    value /= value[used].std()
    lead = model_means(votes, ratings)
    (left, right), won = votes.images, votes.outcome
    x = np.stack([won * (f[left] - f[right]) for f in (lead, value[: len(lead)])], axis=1)

    def loss(w: np.ndarray, ridge: float) -> float:
        return float(-stats.norm.logcdf(x @ w).sum() + 0.5 * (w[0] - 1.0) ** 2 + 0.5 * ridge * w[1] ** 2)

    found = optimize.minimize(
        loss, [1.0, 0.0], args=(prior.ridge["r"],), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    assert [prior.coefficient["rating"], prior.coefficient["r"]] == pytest.approx(found.x.tolist(), abs=1e-6)

    def evidence(log_ridge: float) -> float:  # Laplace's, up to a constant
        ridge = math.exp(log_ridge)
        best = optimize.minimize(loss, found.x, args=(ridge,), method="BFGS")
        t = x @ best.x
        mills = np.exp(stats.norm.logpdf(t) - stats.norm.logcdf(t))
        curvature = (x * (mills * (mills + t))[:, None]).T @ x + np.diag([1.0, ridge])
        return -best.fun + 0.5 * log_ridge - 0.5 * np.linalg.slogdet(curvature)[1]

    here = math.log(prior.ridge["r"])
    assert evidence(here) >= max(evidence(here - 0.1), evidence(here + 0.1)) - 1e-6
    t = x @ np.array([prior.coefficient["rating"], prior.coefficient["r"]])
    mills = np.exp(stats.norm.logpdf(t) - stats.norm.logcdf(t))
    inverse = np.linalg.inv((x * (mills * (mills + t))[:, None]).T @ x)
    slopes = mills[:, None] * x
    sums = np.array([slopes[votes.prompt == prompt].sum(axis=0) for prompt in np.unique(votes.prompt)])
    assert prior.error["r"] == pytest.approx(math.sqrt((inverse @ sums.T @ sums @ inverse)[1, 1]), rel=1e-5)


def r2(gap: np.ndarray, truth: np.ndarray) -> float:
    scale = max(0.0, float(gap @ truth) / float(gap @ gap))
    return 1.0 - float(np.sum((truth - scale * gap) ** 2) / np.sum((truth - truth.mean()) ** 2))


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_reward_that_tells_nothing_changes_nothing(seed: int) -> None:
    """Dealt to other images its coefficient is 0 within two errors, and R2 that of kind `image`; its own is of use."""
    votes, quality, reward = world(seed, votes=1200, reward=0.4)
    ratings, (left, right) = rate(votes), votes.images
    truth = votes.outcome * (quality[left] - quality[right])
    dealt = np.random.default_rng(seed).permutation(reward)
    own, other = (sides(votes, score) for score in (reward, dealt))
    prior = fused_prior(votes, ratings, {"own": own, "dealt": other})
    assert abs(prior.coefficient["dealt"]) <= 2 * prior.error["dealt"]
    assert prior.interval("own")[0] > 0.1
    plain, nothing, fused = (
        r2(gaps(votes, ratings, kind=kind, **rest), truth)
        for kind, rest in (("image", {}), ("fused", {"rewards": {"r": other}}), ("fused", {"rewards": {"r": own}}))
    )
    assert nothing == pytest.approx(plain, abs=0.01)
    assert fused > plain + 0.05
    told = posterior(votes, ratings, rewards={"own": own})
    assert told.explained > posterior(votes, ratings, rewards={"dealt": other}).explained > 0
    right_sign = np.mean((told.difference > 0) == (quality[left] > quality[right]))
    assert right_sign > np.mean((votes.outcome > 0) == (quality[left] > quality[right])) + 0.03
    assert told.overruled == pytest.approx(np.mean(told.difference * votes.outcome < 0))


@pytest.mark.parametrize("kind", ["image", "fused"])
def test_a_row_of_several_votes_is_as_many_rows(kind: str) -> None:
    """Weights and shares: 3 votes in a row, and 1 of 4 for the left; also in what rho is read from."""
    votes, _, reward = world(5, votes=400)
    kinds = np.random.default_rng(0).integers(0, 3, len(votes))  # one vote, three equal ones, four of which one is left
    weight, share = np.choose(kinds, [1.0, 3.0, 4.0]), np.where(kinds == 2, 0.25, np.nan)
    outcome = np.where(kinds == 2, -1, votes.outcome).astype(np.int8)
    counted = replace(votes, weight=weight, share=share, outcome=outcome)
    rows = np.repeat(np.arange(len(votes)), weight.astype(int))
    first = np.concatenate([[True], rows[1:] != rows[:-1]])
    each = np.where((kinds[rows] == 2) & first, 1, outcome[rows]).astype(np.int8)
    spelled = replace(votes.take(rows), outcome=each)
    ratings = rate(spelled)

    def asked(these: Votes) -> dict[str, Any]:
        return {"rewards": {"r": sides(these, reward)}} if kind == "fused" else {}

    for rho in (None, 0.4):
        found = gaps(counted, ratings, kind=kind, rho=rho, **asked(counted))
        wanted = gaps(spelled, ratings, kind=kind, rho=rho, **asked(spelled)) * each * outcome[rows]
        assert found[rows] == pytest.approx(wanted, abs=1e-6 if kind == "fused" else 5e-3 * C)
    left, right = gaps_both(counted, ratings, kind=kind, rho=0.4, **asked(counted))
    voted = np.where(outcome > 0, left, right)
    assert voted == pytest.approx(gaps(counted, ratings, kind=kind, rho=0.4, **asked(counted)), abs=1e-9)


def test_with_no_reward_and_a_of_one_it_is_the_image_posterior() -> None:
    votes, _, _ = world(6)
    ratings = rate(votes)
    told = posterior(votes, ratings, rho=0.5)
    fine = image_gaps(votes, ratings, 0.5, prior_mean=told.prior.coefficient["rating"] * model_means(votes, ratings))
    assert votes.outcome * told.difference == pytest.approx(fine, abs=1e-6)
    assert set(told.prior.coefficient) == {"rating"}


def test_one_group_of_images_has_the_error_of_independent_votes() -> None:
    """A single cluster would say that nothing is uncertain."""
    votes = replace(world(10, prompts=1, models=6, votes=300)[0], prompt=None)
    assert fused_prior(votes, rate(votes), {}).error["rating"] > 0.01


def test_votes_that_ratings_foretell_do_not_run_off() -> None:
    votes = Votes.from_columns(
        left=["a"] * 40, right=["b"] * 40, outcome=["left"] * 40, left_image=range(40), right_image=range(40, 80)
    )
    prior = fused_prior(votes, rate(votes), {})
    assert 0.5 < prior.coefficient["rating"] < 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: (s[0][:-1], s[1]), "scores for"),
        (lambda s: (np.full_like(s[0], np.nan), np.full_like(s[1], np.nan)), "no image has a score"),
        (lambda s: (np.ones_like(s[0]), np.ones_like(s[1])), "do not differ within a model"),
        (lambda s: (s[0], s[1] + np.arange(len(s[1]))), "has another score elsewhere"),
    ],
)
def test_rewards_that_say_nothing_are_refused(change: Any, said: str) -> None:
    votes, _, reward = world(7)
    with pytest.raises(InputError, match=said):
        gaps(votes, rate(votes), kind="fused", rewards={"r": change(sides(votes, reward))})


def test_rewards_go_with_the_kinds_that_take_them() -> None:
    votes, _, reward = world(8)
    with pytest.raises(InputError, match="kind fused: it needs rewards"):
        gaps(votes, rate(votes), kind="fused")
    with pytest.raises(InputError, match="kind image: rewards have no effect"):
        gaps(votes, rate(votes), kind="image", rewards={"r": sides(votes, reward)})


def test_an_image_without_a_score_is_its_models_mean_and_counted() -> None:
    votes, _, reward = world(9)
    scores = [side.copy() for side in sides(votes, reward)]
    missing = np.unique(np.concatenate(votes.images))[:7]
    for side, codes in zip(scores, votes.images, strict=True):
        side[np.isin(codes, missing)] = np.nan
    prior = fused_prior(votes, rate(votes), {"r": tuple(scores)})
    assert prior.unscored["r"] >= 7
    lead = prior.coefficient["rating"] * model_means(votes, rate(votes))
    assert prior.mean[missing] == pytest.approx(lead[missing], abs=1e-12)
