"""Ratings, intervals and gaps: hand algebra, options, refusals, round trips."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coded_votes import coded
from finepref import Votes, gaps, gaps_both, load_ratings, rate
from finepref.arena.clusters import plan
from finepref.arena.gap import gap_table
from finepref.arena.ratings import BETA, Ratings, save_ratings
from finepref.arena.rho import decide, estimate_rho
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Games

C = math.sqrt(2.0) * BETA


def simulate(seed: int, n: int = 600, m: int = 5, ties: float = 1.0, images: int = 0) -> Votes:
    """Votes with prompts, voters and, if asked, images that recur within a prompt (rho = 0.5)."""
    rng = numpy_generator(seed, "simulate")
    prompt = np.repeat(np.arange(n // 10), 10)
    n = len(prompt)
    mu = rng.normal(25.0, 2.0, m)
    if images:
        model = rng.integers(0, m, (n // 10, images))
        quality = mu[model] + BETA * rng.standard_normal(model.shape) * math.sqrt(0.5)
        a = rng.integers(0, images, n)
        b = (a + rng.integers(1, images, n)) % images
        lead = quality[prompt, a] - quality[prompt, b] + BETA * rng.standard_normal(n)
        left, right = model[prompt, a], model[prompt, b]
        named: dict[str, Any] = {"left_image": prompt * images + a, "right_image": prompt * images + b}
    else:
        left = rng.integers(0, m, n)
        right = (left + rng.integers(1, m, n)) % m
        lead, named = mu[left] - mu[right] + C * rng.standard_normal(n), {}
    outcome = np.where(np.abs(lead) < ties, 0, np.sign(lead)).astype(np.int8)
    names = [f"m{k}" for k in range(m)]
    return coded(left, right, outcome, models=names, prompt=prompt, voter=rng.integers(0, 40, n), **named)


def two(wins: int, losses: int, tied: int = 0, **options: Any) -> Ratings:
    """A against B."""
    n = wins + losses + tied
    outcome = ["left"] * wins + ["right"] * losses + ["tie"] * tied
    return rate(Votes.from_columns(left=["A"] * n, right=["B"] * n, outcome=outcome), **options)


def test_two_models_without_prior_by_hand() -> None:
    """Phi(D/c) = 3/4; var(D) = c^2 p(1-p) / (n phi^2)."""
    ratings = two(30, 10, prior="flat", interval="laplace")
    d = float(ratings.mu[0] - ratings.mu[1])
    assert d == pytest.approx(C * 0.6744897501960817, rel=1e-9)
    density = math.exp(-0.5 * 0.6744897501960817**2) / math.sqrt(2 * math.pi)
    assert ratings.difference_sd()[0, 1] == pytest.approx(C * math.sqrt(0.1875 / 40) / density, rel=1e-9)
    assert ratings.sigma == pytest.approx([ratings.difference_sd()[0, 1] / 2] * 2, rel=1e-9)
    assert ratings.mu.mean() == pytest.approx(25.0)


def test_tie_margin_by_hand() -> None:
    """Equal models, 20 % ties: Phi(-m/c) = 0.4."""
    ratings = two(40, 40, 20, prior="flat")
    assert ratings.mu == pytest.approx([25.0, 25.0])
    assert ratings.tie_margin == pytest.approx(C * 0.2533471031357997, rel=1e-8)
    logit = two(40, 40, 20, prior="flat", link="logit")
    assert logit.tie_margin == pytest.approx(C * math.log(1.5) / 1.702, rel=1e-8)


def test_treatments_of_ties() -> None:
    fit, half, drop = (two(30, 10, 40, prior="flat", ties=ties) for ties in ("fit", "half", "drop"))
    assert drop.mu == pytest.approx(two(30, 10, prior="flat").mu, abs=1e-9)
    assert half.mu == pytest.approx(two(50, 30, prior="flat").mu, abs=1e-9)
    assert (half.tie_margin, drop.tie_margin) == (0.0, 0.0)
    assert half.mu[0] < fit.mu[0] < drop.mu[0]
    assert fit.ties.tolist() == half.ties.tolist() == [40, 40]


def test_an_always_winning_model() -> None:
    """Finite under the normal prior, with a warning; refused without one, by name."""
    votes = Votes.from_columns(left=["A"] * 9, right=["B", "C", "D"] * 3, outcome=["left"] * 9)
    ratings = rate(votes)
    assert np.isfinite(ratings.mu).all()
    assert max(ratings.sigma) < 25 / 3
    low, high = ratings.interval()
    assert np.all((low < ratings.mu) & (ratings.mu < high))
    assert any("Always won" in warning for warning in ratings.warnings)
    with pytest.raises(InputError, match=r"only ever won.*'\w'"):
        rate(votes, prior="flat")


def test_a_disconnected_graph() -> None:
    votes = Votes.from_columns(
        left=["A", "A", "C", "C"] * 9, right=["B", "B", "D", "D"] * 9, outcome=["left", "right"] * 18
    )
    with pytest.raises(InputError, match=r"do not connect.*'C', 'D'"):
        rate(votes, prior="flat")
    for prior in ("normal", "empirical-bayes"):
        ratings = rate(votes, prior=prior)
        assert dict(zip(ratings.models, ratings.component.tolist(), strict=True)) == {"A": 0, "B": 0, "C": 1, "D": 1}
        assert any("never met" in warning for warning in ratings.warnings)
    assert rate(votes, engine="online").component.max() == 1


def test_a_model_against_itself() -> None:
    """No update, and a finite gap at difference zero."""
    plain = Votes.from_columns(left=["A", "B"], right=["B", "A"], outcome=["left", "left"])
    more = Votes.from_columns(left=["A", "B", "A"], right=["B", "A", "A"], outcome=["left", "left", "left"])
    for options in ({}, {"engine": "online"}, {"interval": "sandwich"}):
        first, second = rate(plain, **options), rate(more, **options)
        assert second.mu.tolist() == first.mu.tolist()
        assert second.sigma == pytest.approx(first.sigma, rel=1e-12)
        assert gaps(more, second, kind="truncated")[2] == pytest.approx(C * math.sqrt(2 / math.pi))
    only = Votes.from_columns(left=["A"], right=["A"], outcome=["right"])
    assert rate(only).mu.tolist() == [25.0]
    assert gaps(only, rate(only), kind="paper")[0] == 0.0  # nothing is uncertain about one model minus its mean


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine": "elo"}, "unknown engine"),
        ({"engine": "online", "preset": "ksrt"}, "did you mean 'ksort'"),
        ({"engine": "online", "link": "logit"}, "link has no effect"),
        ({"engine": "online", "ties": "drop"}, "unknown treatment of ties"),
        ({"engine": "online", "passes": 0}, "at least 1"),
        ({"engine": "online", "order": "random"}, "unknown order"),
        ({"preset": "appendix_a"}, "preset has no effect"),
        ({"order": "shuffled"}, "order has no effect"),
        ({"passes": 2}, "passes has no effect"),
        ({"prior": "bayes"}, "unknown prior"),
        ({"link": "probits"}, "did you mean 'probit'"),
        ({"ties": "skip"}, "unknown treatment of ties"),
        ({"interval": "exact"}, "unknown interval"),
        ({"interval": "laplace", "cluster": "prompt"}, "cluster has no effect"),
        ({"cluster": "game"}, "name no game"),
    ],
)
def test_unknown_and_idle_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        rate(simulate(0, 50), **options)


def test_all_ties_is_refused() -> None:
    with pytest.raises(InputError, match="tie"):
        two(0, 0, 5)


def test_online_ties_and_passes() -> None:
    votes = simulate(1, 300)
    decided = votes.take(votes.outcome != 0)
    skipped = rate(votes, engine="online", preset="appendix_a")
    assert skipped.mu.tolist() == rate(decided, engine="online", preset="appendix_a").mu.tolist()
    drawn = rate(votes, engine="online", preset="ksort")
    halves = rate(votes, engine="online", preset="ksort", ties="half")
    assert np.abs(drawn.mu - halves.mu).max() > 1e-3
    even = Votes.from_columns(left=["A"], right=["B"], outcome=["tie"])
    half = rate(even, engine="online", preset="appendix_a", ties="half")
    assert half.mu.tolist() == [25.0, 25.0]
    assert half.sigma[0] < 25 / 3
    twice = rate(votes.take(np.tile(np.arange(len(votes)), 2)), engine="online")
    assert rate(votes, engine="online", passes=2).mu == pytest.approx(twice.mu, abs=1e-12)


def test_online_order() -> None:
    """Shuffled by a seed: the same again with it, another without."""
    votes = simulate(2, 300)
    once, again, other = (rate(votes, engine="online", order="shuffled", seed=seed).mu for seed in (1, 1, 2))
    assert once.tolist() == again.tolist()
    assert once.tolist() != other.tolist()
    assert once.tolist() != rate(votes, engine="online").mu.tolist()


def test_online_equals_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = simulate(2, 300)
    whole = rate(votes, engine="online").mu
    monkeypatch.setattr("finepref.arena.engines.CHUNK", 37)
    assert rate(votes, engine="online").mu.tolist() == whole.tolist()


def test_games() -> None:
    """K-wise: ksort rates the game as one, batch rates its pairs with intervals clustered by game."""
    rng = numpy_generator(0, "games")
    truth = rng.normal(25.0, 3.0, 12)
    model = np.stack([rng.permutation(12)[:4] for _ in range(400)])
    perform = truth[model] + BETA * rng.standard_normal(model.shape)
    rank = np.argsort(np.argsort(-perform, axis=1), axis=1).astype(float)
    games = Games(np.arange(0, 1601, 4), model.ravel(), rank.ravel())
    first, second, game = games.pairs()
    assert len(first) == 400 * 6
    outcome = games.outcomes(first, second)
    names = [f"m{k}" for k in range(12)]
    votes = coded(games.model[first], games.model[second], outcome, models=names, game=game, games=games)
    batch = rate(votes)
    assert (batch.settings.intervals, batch.settings.cluster) == ("sandwich", "game")
    laplace = rate(votes, interval="laplace")
    assert batch.mu.tolist() == laplace.mu.tolist()
    assert batch.sigma.mean() > 1.05 * laplace.sigma.mean()  # pairs of one game go together
    online = rate(votes, engine="online")
    assert np.corrcoef(online.mu, truth)[0, 1] > 0.9
    assert online.mu.tolist() != rate(votes.take(np.arange(len(votes))), engine="online").mu.tolist()
    miss = (batch.mu - batch.mu.mean()) - (truth - truth.mean())
    assert np.sqrt(np.mean(miss**2)) < 0.8


def test_intervals_agree_where_votes_are_independent() -> None:
    """Laplace, sandwich over single votes and bootstrap; clusters of one voter widen them when voters differ."""
    votes = simulate(3, 4000, 6)
    laplace, sandwich, boot = (rate(votes, interval=kind).sigma for kind in ("laplace", "sandwich", "bootstrap"))
    # without a column that fits, "sandwich" would cluster by prompt: independent here, so about the same
    assert sandwich == pytest.approx(laplace, rel=0.12)
    assert boot == pytest.approx(laplace, rel=0.12)
    assert rate(votes, interval="bootstrap", seed=1).sigma.tolist() != boot.tolist()
    half = rate(votes, interval="bootstrap", ties="half", cluster="prompt").sigma
    assert half == pytest.approx(rate(votes, interval="sandwich", ties="half", cluster="prompt").sigma, rel=0.15)
    doubled = votes.take(np.repeat(np.arange(len(votes)), 4))
    repeated = Votes(
        **{**{f: getattr(doubled, f) for f in doubled.__slots__}, "prompt": np.repeat(np.arange(len(votes)), 4)}
    )
    clustered = rate(repeated, cluster="prompt").sigma  # four copies of each vote are worth one
    assert clustered == pytest.approx(laplace, rel=0.12)
    assert rate(repeated, interval="laplace").sigma == pytest.approx(laplace / 2, rel=0.05)


def test_flat_bootstrap_and_logit() -> None:
    votes = simulate(4, 3000, 4, ties=0.0)
    found = rate(votes, prior="flat", link="logit", interval="bootstrap").sigma
    assert found == pytest.approx(rate(votes, prior="flat", link="logit", interval="laplace").sigma, rel=0.12)


def test_the_automatic_interval() -> None:
    """Clusters where there are enough: 30 and 4 per model; else Laplace, and it says why."""
    assert plan(simulate(0, 600), "auto", None).cluster == "prompt"
    few = simulate(0, 200)
    assert plan(few, "auto", None).cluster == "voter"
    assert plan(few.take(few.voter < 9), "auto", None).method == "laplace"  # type: ignore[operator]
    assert "30" in plan(few.take(few.voter < 9), "auto", None).why  # type: ignore[operator]


def test_empirical_bayes_finds_the_spread() -> None:
    """40 models whose ratings have sd 2: the fitted prior says so, and pulls a thinly seen model in."""
    rng = numpy_generator(6, "eb")
    truth = rng.normal(25.0, 2.0, 40)
    left = rng.integers(0, 40, 6000)
    right = (left + rng.integers(1, 40, 6000)) % 40
    outcome = np.where(truth[left] - truth[right] + C * rng.standard_normal(6000) > 0, 1, -1)
    votes = coded(left, right, outcome, models=[f"m{k}" for k in range(40)])
    found = rate(votes, prior="empirical-bayes")
    assert found.settings.prior_sd == pytest.approx(2.0, rel=0.25)
    assert np.ptp(found.mu) < np.ptp(rate(votes).mu)


def test_ratings_survive_the_file(tmp_path: Path) -> None:
    for options in ({}, {"engine": "online"}):
        ratings = rate(simulate(5), **options)
        save_ratings(tmp_path / "ratings.json", ratings, provenance={"seed": 1})
        back = load_ratings(tmp_path)
        order = ratings.order()
        assert back.models == tuple(ratings.models[k] for k in order)
        assert back.mu.tolist() == ratings.mu[order].tolist()
        assert back.sigma.tolist() == ratings.sigma[order].tolist()
        assert back.tie_margin == ratings.tie_margin
        assert (back.covariance is None) == (ratings.covariance is None)
        assert back.difference_sd() == pytest.approx(ratings.difference_sd()[np.ix_(order, order)], rel=1e-12)
        votes = simulate(5)
        assert gaps(votes, back, kind="paper") == pytest.approx(gaps(votes, ratings, kind="paper"), nan_ok=True)
    held = json.loads((tmp_path / "ratings.json").read_text())
    (tmp_path / "ratings.json").write_text(json.dumps({key: held[key] for key in held if key != "version"}))
    assert load_ratings(tmp_path).models == back.models  # written before files had versions
    wrong = ({**held, "version": 3}, "version 3 is not known"), ({**held, "settings": {}}, "settings.ties: field req")
    for value, says in (*wrong, ({}, "engine: field required"), ([1], "it: ")):
        (tmp_path / "ratings.json").write_text(json.dumps(value))
        with pytest.raises(InputError, match=says):
            load_ratings(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load_ratings(tmp_path / "no")


def test_rank_intervals() -> None:
    ratings = rate(simulate(7, 3000, 6))
    best, worst = ratings.rank_interval()
    place = np.empty(6, dtype=int)
    place[ratings.order()] = np.arange(1, 7)
    assert np.all((best <= place) & (place <= worst))
    with pytest.raises(InputError, match="between 0 and 1"):
        ratings.interval(95)


KINDS = ("uniform", "paper", "truncated", "selection", "image")


@pytest.mark.parametrize("kind", KINDS)
def test_gaps_are_nan_on_ties_only_and_have_both_sides(kind: str) -> None:
    votes = simulate(8, 2000, images=5)
    ratings = rate(votes)
    values = gaps(votes, ratings, kind=kind)
    assert values.dtype == np.float64
    assert np.array_equal(np.isnan(values), votes.outcome == 0)
    left, right = gaps_both(votes, ratings, kind=kind)
    assert np.isfinite(left).all()
    assert np.isfinite(right).all()
    won = np.where(votes.outcome > 0, left, right)
    decided = votes.outcome != 0
    assert values[decided] == pytest.approx(won[decided], abs=1e-12)
    lost = np.where(votes.outcome > 0, right, left)
    assert kind == "uniform" or won[decided].mean() > lost[decided].mean()
    clipped = gaps(votes, ratings, kind=kind, clip=True)
    assert clipped == pytest.approx(np.maximum(values, 0.0), nan_ok=True)
    even = gaps(votes, ratings, kind=kind, normalise="mean")
    assert np.nanmean(even) == pytest.approx(1.0)


def test_gap_options_that_cannot_be() -> None:
    votes, pictures = simulate(9, 100), simulate(9, 100, images=4)
    ratings = rate(votes)
    for target, options, says in (
        (votes, {"kind": "image"}, "which images"),
        (votes, {"kind": "images"}, "did you mean 'image'"),
        (votes, {"kind": "paper", "rho": 0.5}, "rho has no effect"),
        (pictures, {"kind": "image", "rho": 0.0}, "rho is 0.0"),
        (pictures, {"kind": "image", "rho": 0.97}, "rho is 0.97"),
        (votes, {"kind": "paper", "normalise": "sum"}, "unknown normalisation"),
    ):
        with pytest.raises(InputError, match=says):
            gaps(target, ratings, **options)
    other = Votes.from_columns(left=["new"], right=["m0"], outcome=["left"])
    with pytest.raises(InputError, match="'new' has votes but no rating"):
        gaps(other, ratings, kind="paper")
    twice = Votes.from_columns(
        left=["A", "B"], right=["B", "A"], outcome=["left", "left"], left_image=["x", "x"], right_image=["y", "z"]
    )
    with pytest.raises(InputError, match="listed under two models"):
        gaps(twice, rate(twice), kind="image")


def test_without_images_selection_is_truncated() -> None:
    votes = simulate(10)
    ratings = rate(votes)
    assert np.array_equal(
        gaps(votes, ratings, kind="selection"), gaps(votes, ratings, kind="truncated"), equal_nan=True
    )


def test_not_identified_is_truncated_exactly() -> None:
    """Every image in one vote: rho is 1 and image is truncated."""
    base = simulate(11, 3000)
    n = len(base)
    votes = coded(
        base.left, base.right, base.outcome, models=base.models, prompt=base.prompt,
        left_image=np.arange(n), right_image=np.arange(n, 2 * n),
    )  # fmt: skip
    ratings = rate(votes)
    curve = estimate_rho(votes, ratings)
    assert (curve.rho, curve.identified) == (1.0, False)
    assert max(curve.log_likelihood) - min(curve.log_likelihood) < 1e-2
    for kind in ("image", "selection"):
        assert gaps(votes, ratings, kind=kind) == pytest.approx(
            gaps(votes, ratings, kind="truncated"), abs=1e-9, nan_ok=True
        )


@pytest.mark.parametrize(("rho", "low", "high"), [(0.25, 0.10, 0.35), (0.75, 0.50, 0.85)])
def test_rho_is_found(rho: float, low: float, high: float) -> None:
    rng = numpy_generator(12, "rho", rho)
    prompts, images, per = 500, 4, 12
    model = rng.integers(0, 5, (prompts, images))
    quality = rng.normal(0, 0.2, 5)[model] + math.sqrt(rho / 2) * rng.standard_normal(model.shape)
    a = rng.integers(0, images, (prompts, per))
    b = (a + rng.integers(1, images, a.shape)) % images
    row = np.arange(prompts)[:, None]
    lead = (quality[row, a] - quality[row, b] + math.sqrt(1 - rho) * rng.standard_normal(a.shape)).ravel()
    votes = coded(
        model[row, a].ravel(), model[row, b].ravel(), np.sign(lead).astype(np.int8), models=list("ABCDE"),
        left_image=(row * images + a).ravel(), right_image=(row * images + b).ravel(),
    )  # fmt: skip
    curve = estimate_rho(votes, rate(votes))
    assert curve.identified
    assert low <= curve.rho <= high


def test_the_rule_of_rho_goes_toward_one() -> None:
    grid = (0.25, 0.5, 0.75)
    assert decide(grid, (-10.0, -5.0, -6.9)) == (0.75, True)
    assert decide(grid, (-10.0, -5.0, -7.1)) == (0.5, True)
    assert decide(grid, (-6.0, -5.0, -6.9)) == (1.0, False)


def test_rho_looks_at_no_more_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole prompts (or groups of images) in a seeded order."""
    from finepref.arena import rho as module

    monkeypatch.setattr(module, "MOST_VOTES", 400)
    votes = simulate(13, 3000, images=5)
    ratings = rate(votes)
    first, again, other = (estimate_rho(votes, ratings, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert 350 < first.votes <= 400
    grouped = Votes(**{**{f: getattr(votes, f) for f in votes.__slots__}, "prompt": None})
    assert 350 < estimate_rho(grouped, ratings).votes <= 400


def test_an_image_against_itself_has_no_gap() -> None:
    votes = Votes.from_columns(
        left=["A"] * 30, right=["B"] * 29 + ["A"], outcome=["left"] * 30,
        left_image=["a"] * 30, right_image=["b"] * 29 + ["a"],
    )  # fmt: skip
    values = gaps(votes, rate(votes), kind="image", rho=0.5)
    assert values[-1] == 0.0
    assert values[0] > 0


def test_gap_tables_by_hand() -> None:
    ratings = two(30, 10, interval="laplace")
    d, s = float(ratings.mu[0] - ratings.mu[1]), float(np.hypot(*ratings.sigma))
    z = d / s
    mills = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) / (0.5 * math.erfc(-z / math.sqrt(2)))
    assert gap_table(ratings, "paper")[0, 1] == pytest.approx(d + s * mills, rel=1e-12)
    z = d / C
    mills = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) / (0.5 * math.erfc(-z / math.sqrt(2)))
    assert gap_table(ratings, "truncated")[0, 1] == pytest.approx(d + C * mills, rel=1e-12)
    assert gap_table(ratings, "selection", rho=0.3)[0, 1] == pytest.approx(d + 0.3 * C * mills, rel=1e-12)
    assert gap_table(ratings, "uniform").tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_many_votes_are_scored_by_a_sample_of_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second cluster, counted twice, gives about the same interval."""
    from finepref.arena import intervals as module

    votes = simulate(14, 8000, 4)
    whole = rate(votes, cluster="prompt").sigma
    monkeypatch.setattr(module, "MOST_SCORED", 4000)
    half = rate(votes, cluster="prompt").sigma
    assert half.tolist() != whole.tolist()
    assert half == pytest.approx(whole, rel=0.15)
