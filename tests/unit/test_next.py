"""Which votes to ask for next: pairs of uncertain order, once before twice, and images with few votes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from coded_votes import coded
from finepref import Votes, rate
from finepref.arena.nextimages import ImageStock
from finepref.arena.nextpairs import NextPair, largest_first, next_pairs, order_gain
from finepref.arena.orders import information
from finepref.arena.ratings import BETA
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator

C = math.sqrt(2.0) * BETA


def simulate(seed: int, models: int, n: int, spread: float = 3.0) -> Votes:
    """Votes between models at random, one in ten a tie."""
    rng = numpy_generator(seed, "next", models)
    mu = rng.normal(25.0, spread, models)
    left = rng.integers(0, models, n)
    right = (left + rng.integers(1, models, n)) % models
    lead = mu[left] - mu[right] + C * rng.standard_normal(n)
    outcome = np.where(np.abs(lead) < 0.75, 0, np.sign(lead)).astype(np.int8)
    return coded(left, right, outcome, models=[f"m{k}" for k in range(models)])


def expected(votes: Votes, pairs: list[tuple[int, int]]) -> np.ndarray:
    """[M, M] covariance after these votes as if they were cast, conditioned on all of them together."""
    ratings = rate(votes, interval="laplace")
    assert ratings.covariance is not None
    m = len(votes.models)
    informs = information(ratings, np.subtract.outer(ratings.mu, ratings.mu))
    lines = np.zeros((len(pairs), m))
    for row, (i, j) in enumerate(pairs):
        lines[row, [i, j]] = math.sqrt(informs[i, j]), -math.sqrt(informs[i, j])
    middle = np.eye(len(pairs)) + lines @ ratings.covariance @ lines.T
    return ratings.covariance - ratings.covariance @ lines.T @ np.linalg.solve(middle, lines @ ratings.covariance)


def certain(votes: Votes, covariance: np.ndarray) -> np.ndarray:
    """[M, M] whether the chance of the wrong order is at most 5 % / (M - 1)."""
    mu, diagonal, m = rate(votes).mu, np.diag(covariance), len(votes.models)
    sd = np.sqrt(np.maximum(np.add.outer(diagonal, diagonal) - 2 * covariance, 1e-15))
    return np.asarray(norm.cdf(-np.abs(np.subtract.outer(mu, mu)) / sd) <= 0.05 / (m - 1))


@pytest.mark.parametrize(("models", "cast", "number"), [(50, 2000, 1000), (12, 500, 300), (9, 20, 100)])
def test_every_undecided_pair_once_before_any_twice(models: int, cast: int, number: int) -> None:
    """No certain pair; a second time only when every other uncertain one was asked or is certain by then."""
    votes = simulate(0, models, cast)
    found = next_pairs(votes, number=number)
    asked = [(min(p.left, p.right), max(p.left, p.right)) for p in found.pairs]
    now = certain(votes, expected(votes, []))
    assert found.undecided == np.count_nonzero(~np.triu(now, 1)[np.triu_indices(models, 1)])
    assert not any(now[pair] for pair in asked)
    again = next((at for at in range(len(asked)) if asked[at] in asked[:at]), len(asked))
    assert again < len(asked)
    later = certain(votes, expected(votes, asked[:again]))
    missing = {(i, j) for i in range(models) for j in range(i + 1, models) if not now[i, j]} - {*asked[:again]}
    assert all(later[pair] for pair in missing)


def test_each_proposal_counts_the_earlier_ones_as_cast() -> None:
    """More votes than are held back at once; gains from the covariance that plain algebra gives."""
    votes = simulate(1, 8, 120)
    found = next_pairs(votes, number=90).pairs
    ratings = rate(votes, interval="laplace")
    for at in (0, 20, 63, 64, 65, 89):
        i, j = found[at].left, found[at].right
        covariance = expected(votes, [(p.left, p.right) for p in found[:at]])
        variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        d = ratings.mu[i] - ratings.mu[j]
        u, informs = d / math.sqrt(variance), float(information(ratings, np.array(d)))
        explained = norm.pdf(u) ** 2 / (norm.cdf(u) * norm.cdf(-u))
        assert found[at].gain == pytest.approx(0.5 * math.log1p(variance * informs * explained), rel=1e-9)
    again = next(at for at in range(90) if {found[at].left, found[at].right} in [{p.left, p.right} for p in found[:at]])
    for part in (found[:again], found[again:]):
        gains = [p.gain for p in part]
        assert gains == sorted(gains, reverse=True)


def test_the_gain_is_what_a_faint_observation_tells_about_the_order() -> None:
    """Against the mutual information of the sign of D and D + noise, by quadrature."""
    for d, s in ((0.0, 1.0), (1.0, 1.0), (-2.0, 0.9), (3.0, 1.5)):
        noise = 30.0 * s
        total = math.hypot(s, noise)

        def positive(y: float, d: float = d, s: float = s, total: float = total) -> float:
            mean = d + (y - d) * s * s / total**2
            return float(norm.cdf(mean / math.sqrt(s * s - s**4 / total**2)))

        def entropy(p: float) -> float:
            return -p * math.log(p) - (1 - p) * math.log1p(-p)

        after, _ = quad(
            lambda y, d=d, total=total, of=positive: entropy(of(y)) * norm.pdf(y, d, total), d - 8 * total,
            d + 8 * total, epsabs=1e-13,
        )  # fmt: skip
        told = entropy(norm.cdf(d / s)) - after
        gain = order_gain(np.array(noise**-2), np.array(d), np.array(s * s))
        assert float(gain) == pytest.approx(told, rel=0.02)
    far = order_gain(np.array([1.0]), np.array([60.0]), np.array([1.0]))
    assert 0.0 <= far[0] < 1e-300


def test_a_new_model_is_asked_about_first() -> None:
    votes = simulate(9, 5, 4000)
    rare = coded(
        np.append(votes.left, 5), np.append(votes.right, 0), np.append(votes.outcome, 1), models=[*votes.models, "new"]
    )
    pairs = next_pairs(rare, number=5).pairs
    assert {p.left + p.right - 5 for p in pairs[:4]} <= {0, 1, 2, 3, 4}
    assert all(5 in (p.left, p.right) for p in pairs[:4])
    assert next_pairs(rare, number=5).pairs == pairs
    for number, prior, says in ((0, "normal", "at least 1"), (3, "flat", "flat prior")):
        with pytest.raises(InputError, match=says):
            next_pairs(rare, number=number, prior=prior)
    with pytest.raises(InputError, match="only one model"):
        next_pairs(Votes.from_columns(left=["A"], right=["A"], outcome=["left"]), number=1)


def test_certain_orders_are_not_asked_and_equals_always_are() -> None:
    sure = coded([0] * 400 + [1] * 400, [1] * 400 + [2] * 400, [1] * 790 + [-1] * 10, models="abc")
    assert next_pairs(sure, number=9).pairs == ()
    assert next_pairs(sure, number=9).undecided == 0
    even = coded([0, 0], [1, 1], [1, -1], models="ab")
    assert len(next_pairs(even, number=500).pairs) == 500
    nearly = coded([0] * 100 + [1] * 400, [1] * 100 + [2] * 400, [1] * 58 + [-1] * 42 + [1] * 400, models="abc")
    few = next_pairs(nearly, number=5000)
    assert few.undecided == 1
    assert 0 < len(few.pairs) < 200
    assert {frozenset((p.left, p.right)) for p in few.pairs} == {frozenset((0, 1))}


def test_sides_are_balanced() -> None:
    """Every model stands on the left as often as on the right, but for one vote; another seed, other sides."""
    votes = simulate(5, 10, 200)
    pairs = next_pairs(votes, number=333).pairs
    left, right = (np.bincount([getattr(p, side) for p in pairs], minlength=10) for side in ("left", "right"))
    assert np.abs(left - right).max() <= 2
    other = next_pairs(votes, number=333, seed=1).pairs
    assert [p.left for p in other] != [p.left for p in pairs]


def test_votes_that_are_out_count_as_asked() -> None:
    votes = simulate(6, 12, 200)
    undecided = next_pairs(votes, number=1).undecided
    both = next_pairs(votes, number=30).pairs
    assert undecided == 55
    rest = next_pairs(votes, number=14, asked=both).pairs
    assert not {frozenset((p.left, p.right)) for p in rest} & {frozenset((p.left, p.right)) for p in both}
    turned = [NextPair(p.right, p.left, 0.0) for p in both]
    assert {frozenset((p.left, p.right)) for p in next_pairs(votes, number=14, asked=turned).pairs} == {
        frozenset((p.left, p.right)) for p in rest
    }


def with_images() -> Votes:
    """Models a, b, c; prompt 0: all three, prompt 1: a and b, twice each; prompt 2: c alone against itself."""
    rows = [
        (0, 1, 10, 11, 0), (0, 2, 10, 12, 0), (0, 1, 20, 21, 1), (0, 1, 22, 23, 1), (2, 2, 30, 31, 2),
        (0, 1, 10, 11, 0),
    ]  # fmt: skip
    left, right, left_image, right_image, prompt = zip(*rows, strict=True)
    return coded(
        left, right, [1, -1, 1, -1, 1, 0], models="abc", left_image=left_image, right_image=right_image, prompt=prompt
    )


def test_images_of_one_prompt_with_the_fewest_votes() -> None:
    """Those that never met, then those that met once, and last those that met twice."""
    stock = ImageStock(with_images(), seed=0)
    assert stock.meet.tolist() == [[True] * 3] * 3
    first = {stock.choose(0, 1) for _ in range(2)}
    assert first == {(20, 23), (22, 21)}
    assert (10, 11) not in {stock.choose(1, 0)[::-1] for _ in range(4)}
    assert stock.choose(2, 1) == (12, 11)
    again = ImageStock(with_images(), seed=0)
    for left, right in ((23, 20), (21, 22), (20, 23), (22, 21)):
        again.use(left, right)
    assert {again.choose(0, 1) for _ in range(2)} == {(20, 21), (22, 23)}


def test_images_that_share_no_prompt_are_not_asked() -> None:
    votes = with_images().take(np.array([2, 3, 4]))
    found = next_pairs(votes, number=4, images=ImageStock(votes, seed=0))
    assert {frozenset((p.left, p.right)) for p in found.pairs} == {frozenset((0, 1))}
    assert found.apart == 2
    with pytest.raises(InputError, match="under two models"):
        ImageStock(coded([0, 1], [1, 0], [1, 1], models="ab", left_image=[0, 0], right_image=[1, 1]), seed=0)
    without = coded([0, 0], [1, 1], [1, -1], models="ab", left_image=[0, 2], right_image=[1, 3])
    assert {ImageStock(without, seed=0).choose(0, 1), ImageStock(without, seed=1).choose(0, 1)} <= {(0, 3), (2, 1)}


@pytest.mark.parametrize("again", [False, True])
def test_the_largest_gain_at_its_time(again: bool) -> None:
    """Gains that halve for neighbours of what was taken: the same order as looking at all of them every time."""
    rng = numpy_generator(0, "largest")
    for _ in range(20):
        gains = rng.random(30)
        now, plain, taken = gains.copy(), [], []
        left = gains.copy()
        while (left > 0.01).any():
            k = int(np.argmax(left))
            plain.append(k)
            left[k] *= 0.3 if again else 0.0
            left[[(k + 1) % 30, (k + 7) % 30]] *= 0.5
        order = np.argsort(-gains)
        known = lambda k, now=now: float(now[k] * (now[k] > 0.01))  # noqa: E731
        for k, gain in largest_first(order, gains[order], known, again=again):
            assert gain == now[k]
            taken.append(k)
            now[k] *= 0.3 if again else 0.0
            now[[(k + 1) % 30, (k + 7) % 30]] *= 0.5
        assert taken == plain
