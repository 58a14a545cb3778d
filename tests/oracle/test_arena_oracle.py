"""The arena against numbers that others computed: 40 digits, the rating package, choix, quadrature, the paper."""

from __future__ import annotations

import math

import choix
import mpmath
import numpy as np
import pytest
import trueskill
from adapters.arena import update
from scipy.stats import logistic, norm

from coded_votes import coded
from finepref import Votes, gaps, rate
from finepref.arena.boards import load_board
from finepref.arena.counts import count
from finepref.arena.freeforall import rank_game
from finepref.arena.gap import expected_gap, gap_table
from finepref.arena.image import Duels, infer
from finepref.arena.link import LINKS, LOGIT_SCALE
from finepref.arena.normal import inverse_mills, truncated_mean
from finepref.arena.online import PRESETS, draw_moments, run_votes, start, win_moments
from finepref.arena.orders import information, votes_to_separate
from finepref.arena.ratings import BETA
from finepref.core.rng import numpy_generator

C = math.sqrt(2.0) * BETA


def simulate(rng: np.random.Generator, mu: np.ndarray, n: int, tie_margin: float = 0.0) -> Votes:
    """Votes of the model itself: performance noise beta per side, a tie within the margin."""
    m = len(mu)
    left = rng.integers(0, m, n)
    right = (left + rng.integers(1, m, n)) % m
    lead = mu[left] - mu[right] + C * rng.standard_normal(n)
    outcome = np.where(np.abs(lead) < tie_margin, 0, np.sign(lead)).astype(np.int8)
    return coded(left, right, outcome, models=[f"m{k}" for k in range(m)])


MILLS = {  # 40-digit arithmetic: z -> lambda(z), z + lambda(z)
    0.0: (0.7978845608028654, 0.7978845608028654),
    -1.0: (1.525135276160981, 0.5251352761609812),
    -3.0: (3.283098654930437, 0.2830986549304365),
    -5.0: (5.186503967125842, 0.1865039671258421),
    -10.0: (10.09809323396251, 0.09809323396251196),
    -20.0: (20.04975306852785, 0.04975306852785054),
    -38.0: (38.02627946657587, 0.02627946657586899),
    -40.0: (40.02496884720726, 0.02496884720726372),
    -100.0: (100.0099980009993, 0.009998000999260705),
    -1000.0: (1000.000999998, 9.999980000099999e-4),
}


@pytest.mark.parametrize("z", MILLS)
def test_inverse_mills_and_truncated_mean(z: float) -> None:
    ratio, mean = MILLS[z]
    assert float(inverse_mills(z)) == pytest.approx(ratio, rel=2e-15)
    assert float(truncated_mean(z)) == pytest.approx(mean, rel=3e-13)


@pytest.mark.parametrize("z", [-1e5, -1e4, -333.3, -77.7, -50.0001, -49.9999, -12.34, -0.7, 2.5, 9.0, 30.0])
def test_truncated_mean_against_40_digits(z: float) -> None:
    """From z = -1e5 to 30, on both sides of the switch to the series at -50."""
    with mpmath.workdps(40):
        x = mpmath.mpf(z)
        phi = mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)
        mean = x + phi / (mpmath.erfc(-x / mpmath.sqrt(2)) / 2)
    assert float(truncated_mean(z)) == pytest.approx(float(mean), rel=2e-12)


def test_truncated_mean_above() -> None:
    assert float(truncated_mean(3.0)) == pytest.approx(3.004437839042126, rel=1e-14)
    assert float(truncated_mean(8.0)) == pytest.approx(8.000000000000005, rel=1e-15)


TABLE_1 = [  # ArenaPO Table 1
    ("arenapo-hpdv3", "FLUX.1-dev", "HunyuanDiT", 4.8038),
    ("arenapo-hpdv3", "Kolors", "Real-Images", 3.9928),
    ("arenapo-hpdv3", "HunyuanDiT", "Stable-Diffusion-XL", 1.9662),
    ("arenapo-hpdv3", "Stable-Diffusion-1-1", "Stable-Diffusion-2", 0.9406),
    ("arenapo-hpdv3", "Stable-Diffusion-1-4", "VQ-Diffusion", 0.3211),
]
SIGMA = {
    "FLUX.1-dev": 0.80, "HunyuanDiT": 0.77, "Kolors": 0.81, "Real-Images": 0.78, "Stable-Diffusion-XL": 0.78,
    "Stable-Diffusion-1-1": 0.80, "Stable-Diffusion-2": 0.78, "Stable-Diffusion-1-4": 0.83, "VQ-Diffusion": 0.82,
}  # fmt: skip


@pytest.mark.parametrize(("board", "winner", "loser", "printed"), TABLE_1, ids=lambda value: str(value))
def test_table_1_of_the_paper(board: str, winner: str, loser: str, printed: float) -> None:
    """From the shipped Table 6; its two decimals allow 0.011."""
    mu = {model.name: model.mu for model in load_board(board).models}
    spread = np.hypot(SIGMA[winner], SIGMA[loser])
    assert float(expected_gap(mu[winner] - mu[loser], spread)) == pytest.approx(printed, abs=0.011)


def test_updates_in_40_digits() -> None:
    """Appendix A from the start, an upset, and the package's defaults with wins and a draw."""
    fresh, eps = (25.0, 25.0 / 3.0), PRESETS["ksort"].draw_margin
    assert eps == pytest.approx(0.740466587452147, rel=1e-13)
    winner, loser = update(fresh, fresh)
    assert winner == pytest.approx((29.2052208700336, 7.19448134883108), rel=1e-13)
    assert loser == pytest.approx((20.7947791299664, 7.19448134883108), rel=1e-13)
    winner, loser = update((20.0, 2.0), (30.0, 1.0))
    assert (*winner, *loser) == pytest.approx(
        (21.27737468543, 1.911706381369, 29.68065632864, 0.9891480326703), rel=1e-11
    )
    default = {"tau": 25.0 / 300.0, "draw_margin": eps}
    winner, loser = update(fresh, fresh, **default)
    assert (*winner, loser[0]) == pytest.approx((29.39583169299, 7.171475807009, 20.60416830701), rel=1e-11)
    winner, loser = update((20.0, 2.0), (30.0, 1.0), **default)
    assert (*winner, *loser) == pytest.approx(
        (21.34357476559, 1.912307156268, 29.66235989426, 0.9923909285644), rel=1e-11
    )
    drawn, _ = update(fresh, fresh, drawn=True, **default)
    assert drawn == pytest.approx((25.0, 6.4575156832), rel=1e-10)


@pytest.mark.parametrize(("tau", "draw_probability"), [(0.0, 0.0), (25.0 / 300.0, 0.1), (0.0, 0.1), (0.3, 0.25)])
def test_online_equals_the_rating_package(tau: float, draw_probability: float) -> None:
    """3,000 votes, with ties where there is a draw margin, against trueskill with scipy's normal distribution."""
    rng = numpy_generator(1, "package", draw_probability)
    votes = simulate(rng, rng.normal(25.0, 3.0, 8), 3000, 0.75 if draw_probability else 0.0)
    environment = trueskill.TrueSkill(tau=tau, draw_probability=draw_probability, backend="scipy")
    theirs = [environment.create_rating() for _ in votes.models]
    rows = [column.tolist() for column in (votes.left, votes.right, votes.outcome)]
    for a, b, won in zip(*rows, strict=True):
        first, second = (b, a) if won < 0 else (a, b)
        pair = trueskill.rate_1vs1(theirs[first], theirs[second], drawn=won == 0, env=environment)
        theirs[first], theirs[second] = pair
    eps = trueskill.calc_draw_margin(draw_probability, 2, environment)
    mu, sigma = run_votes(*rows, *start(8), tau=tau, draw_margin=eps)
    assert mu == pytest.approx([r.mu for r in theirs], abs=1e-10)
    assert sigma == pytest.approx([r.sigma for r in theirs], abs=1e-10)


@pytest.mark.parametrize("t", [-30.0, -8.3, -7.9, -2.0, 0.0, 1.5, 6.5])
def test_moments_against_40_digits(t: float) -> None:
    """V and W of a win and of a draw, tails included."""
    k = 0.13
    with mpmath.workdps(50):
        x, e = mpmath.mpf(t), mpmath.mpf(k)
        pdf, cdf = mpmath.npdf, mpmath.ncdf
        v = pdf(x) / cdf(x)
        assert win_moments(t) == pytest.approx((float(v), float(v * (v + x))), rel=1e-12)
        a = abs(x)  # mirrored, so that the mass is a difference of small numbers
        mass = cdf(e - a) - cdf(-e - a)
        dv = (pdf(-e - a) - pdf(e - a)) / mass
        dw = dv**2 + ((e - a) * pdf(e - a) + (e + a) * pdf(e + a)) / mass
        dv = dv if t >= 0 else -dv
        assert draw_moments(t, k) == pytest.approx((float(dv), float(dw)), rel=1e-10, abs=1e-12)
    assert draw_moments(t, 0.0) == (-t, 1.0)


def test_free_for_all_equals_the_package() -> None:
    """The golden game of four, and uneven ones with ties, against the package's factor graph."""
    mu, var = rank_game([25.0] * 4, [(25.0 / 3.0) ** 2] * 4, [0, 1, 2, 3], draw_margin=0.0)
    assert mu == pytest.approx([32.677645, 27.216612, 22.783388, 17.322355], abs=1e-6)
    assert np.sqrt(var) == pytest.approx([6.408805, 5.827221, 5.827221, 6.408805], abs=1e-6)
    environment = trueskill.TrueSkill(backend="scipy", tau=0.0)
    eps = trueskill.calc_draw_margin(0.1, 2, environment)
    for rank in ([1, 1, 0, 2], [3, 0, 0, 0], [0, 1, 2, 3]):
        prior = [(20.0, 2.0), (27.0, 3.0), (24.0, 1.0), (30.0, 4.0)]
        groups = [(environment.create_rating(*p),) for p in prior]
        theirs = [r[0] for r in environment.rate(groups, ranks=rank, min_delta=1e-13)]
        mu, var = rank_game([p[0] for p in prior], [p[1] ** 2 for p in prior], rank, draw_margin=eps)
        assert mu == pytest.approx([r.mu for r in theirs], abs=2e-5)
        assert np.sqrt(var) == pytest.approx([r.sigma for r in theirs], abs=2e-5)


def test_logit_without_prior_is_choix() -> None:
    """Bradley-Terry maximum likelihood from counts: theta = 1.702 (mu - mean)/c."""
    rng = numpy_generator(2, "choix")
    votes = simulate(rng, rng.normal(25.0, 2.0, 9), 4000)
    ratings = rate(votes, link="logit", prior="flat")
    theta = choix.ilsr_pairwise_dense(count(votes).matrix("wins"), tol=1e-12, max_iter=1000)
    assert LOGIT_SCALE * (ratings.mu - ratings.mu.mean()) / C == pytest.approx(theta - theta.mean(), abs=1e-7)


@pytest.mark.parametrize("link", LINKS)
def test_batch_is_the_maximum_and_its_covariance_the_curvature_there(link: str) -> None:
    """The posterior of ratings and tie margin, written down from scipy's distributions, differenced at the result."""
    rng = numpy_generator(3, "curvature")
    votes = simulate(rng, rng.normal(25.0, 4.0, 5), 500, 1.5)
    ratings = rate(votes, link=link, interval="laplace")
    scale, law = (1.0, norm) if link == "probit" else (LOGIT_SCALE, logistic)

    def value(at: np.ndarray) -> float:
        """Log posterior at 5 ratings and a margin."""
        lead = scale * (at[votes.left] - at[votes.right]) / C
        margin = scale * at[5] / C
        tie = law.cdf(margin - lead) - law.cdf(-margin - lead)
        p = np.choose(votes.outcome + 1, [law.cdf(-lead - margin), tie, law.cdf(lead - margin)])
        return float(np.log(p).sum() - 0.5 * (((at[:5] - 25.0) / (25.0 / 3.0)) ** 2).sum())

    found, steps = np.append(ratings.mu, ratings.tie_margin), 1e-3 * np.eye(6)
    slope = np.array([value(found + s) - value(found - s) for s in steps]) / 2e-3
    curvature = np.array(
        [[sum(i * j * value(found + i * a + j * b) for i in (1, -1) for j in (1, -1)) for b in steps] for a in steps]
    ) / (-4e-6)
    assert np.abs(np.linalg.solve(curvature, slope)).max() < 1e-5  # Newton would stay where the result is
    centre = np.eye(5) - 0.2
    expected = centre @ np.linalg.inv(curvature)[:5, :5] @ centre
    assert ratings.covariance == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert ratings.sigma == pytest.approx(np.sqrt(np.diag(expected)), rel=1e-4)


def test_batch_recovers_the_truth() -> None:
    """13 models, 1e5 votes, 20 seeds: RMSE of centred mu, coverage of the 95 % interval, tie margin."""
    errors, covered = [], []
    for seed in range(20):
        rng = numpy_generator(seed, "recover")
        mu = rng.normal(25.0, 1.3, 13)
        ratings = rate(simulate(rng, mu, 100_000))
        miss = (ratings.mu - ratings.mu.mean()) - (mu - mu.mean())
        errors.append(np.sqrt(np.mean(miss**2)))
        covered.append(np.mean(np.abs(miss) <= 1.959964 * ratings.sigma))
    assert np.mean(errors) <= 0.065
    assert 0.90 <= np.mean(covered) <= 0.98
    rng = numpy_generator(0, "recover ties")
    tied = rate(simulate(rng, rng.normal(25.0, 1.3, 13), 100_000, 0.9))
    assert tied.tie_margin == pytest.approx(0.9, abs=0.03)


def test_the_papers_sigma_is_its_random_walk() -> None:
    """Table 6: with 11 % ties as draws the ksort preset settles at 0.76-0.79, without dynamics below 0.025."""
    rng = numpy_generator(4, "steady")
    mu = load_board("arenapo-pickapic").mu
    votes = simulate(rng, mu, 850_000, 0.82)
    assert np.mean(votes.outcome == 0) == pytest.approx(0.11, abs=0.01)
    assert 0.76 <= rate(votes, engine="online").sigma.mean() <= 0.79
    assert rate(votes, engine="online", preset="appendix_a").sigma.max() < 0.025


def test_selection_gap_by_quadrature() -> None:
    """E[q_w - q_l | vote] for q_w - q_l ~ N(D, rho c^2) and a vote with noise (1 - rho) c^2."""
    votes = simulate(numpy_generator(5, "selection"), np.array([25.0, 28.0, 22.0]), 3000)
    ratings = rate(votes)
    table = gap_table(ratings, "selection", rho=0.4)
    d = float(ratings.mu[0] - ratings.mu[1])
    x = np.linspace(-60.0, 60.0, 200_001)
    weight = np.exp(-((x - d) ** 2) / (2 * 0.4 * C * C)) * np.vectorize(math.erfc)(-x / (math.sqrt(2 * 0.6) * C))
    assert table[0, 1] == pytest.approx(float(np.sum(x * weight) / np.sum(weight)), rel=1e-6)


def test_image_inference_against_integration() -> None:
    """Three images, three votes in a circle: expectation propagation within 2 % of c of the exact posterior means."""
    rho, prior = 0.6, np.array([0.1, -0.2, 0.3])
    fight = Duels(np.array([0, 1, 2]), np.array([1, 2, 0]), prior)
    fit = infer(fight, rho)
    grid = np.linspace(-3.2, 3.2, 81)
    axes = np.meshgrid(grid, grid, grid, indexing="ij")
    weight = np.ones_like(axes[0])
    for x, m in zip(axes, prior, strict=True):
        weight = weight * np.exp(-((x - m) ** 2) / rho)
    cdf = np.vectorize(math.erfc)
    for winner, loser in ((0, 1), (1, 2), (2, 0)):
        step = axes[winner] - axes[loser]
        values, back = np.unique(np.round(step, 9), return_inverse=True)
        weight = weight * (0.5 * cdf(-values / math.sqrt(2 * (1 - rho))))[back].reshape(step.shape)
    exact = [float((x * weight).sum() / weight.sum()) for x in axes]
    assert fit.mean == pytest.approx(exact, abs=0.02)


def test_one_vote_per_image_is_exact() -> None:
    """Two images, one vote: the image gap is the selection gap."""
    votes = Votes.from_columns(
        left=["a", "a", "b"] * 40, right=["b", "b", "a"] * 40, outcome=["left", "right", "left"] * 40,
        left_image=range(120), right_image=range(120, 240),
    )  # fmt: skip
    ratings = rate(votes)
    image, selection = (gaps(votes, ratings, kind=kind, rho=0.5) for kind in ("image", "selection"))
    assert image == pytest.approx(selection, abs=1e-3 * C)  # sweeps end when means move by 7e-4 c


@pytest.mark.parametrize(("lead", "votes"), [(0.1, 20955), (0.5, 840), (1.0, 212), (2.0, 55)])
def test_votes_to_separate(lead: float, votes: int) -> None:
    """n = 1.96^2 c^2 / (w D^2), w = phi^2/(Phi (1 - Phi)), from nothing known."""
    drawn = Votes.from_columns(left=["a", "b"], right=["b", "a"], outcome=["left", "left"])
    ratings = rate(drawn)
    needed = 1.959964**2 / (lead * lead * float(information(ratings, np.array(lead))))
    assert needed == pytest.approx(votes, rel=2e-3, abs=0.6)
    assert votes_to_separate(ratings, 0, 1) == math.inf
