"""Validation, boards, voter checks, order and next pairs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import studentized_range

from coded_votes import coded
from finepref import Votes, rate
from finepref.arena.boards import PUBLISHED, compare, load_board, plain
from finepref.arena.link import LINKS
from finepref.arena.orders import information, order_sensitivity, votes_to_separate
from finepref.arena.ratings import BETA, save_ratings
from finepref.arena.settings import RatingOptions
from finepref.arena.validate import STANDARD, calibration_bins, in_sample_calibration, validate
from finepref.arena.voters import check_voters
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator

C = math.sqrt(2.0) * BETA


def simulate(seed: int, n: int = 2000, m: int = 6, ties: float = 0.8, voters: int = 20) -> tuple[Votes, np.ndarray]:
    """Votes of the model itself and the true ratings."""
    rng = numpy_generator(seed, "checks")
    mu = rng.normal(25.0, 2.5, m)
    left = rng.integers(0, m, n)
    right = (left + rng.integers(1, m, n)) % m
    lead = mu[left] - mu[right] + C * rng.standard_normal(n)
    outcome = np.where(np.abs(lead) < ties, 0, np.sign(lead)).astype(np.int8)
    names = [f"m{k}" for k in range(m)]
    return coded(left, right, outcome, models=names, voter=np.arange(n) % voters), mu


def test_validation_knows_good_from_bad() -> None:
    votes, _ = simulate(0, 3000)
    found = validate(votes, folds=5)
    assert set(found.log_loss) == set(STANDARD) == set(found.brier)
    assert found.n == int((votes.outcome != 0).sum())
    assert all(0.4 < value < math.log(2) for value in found.log_loss.values())
    assert all(0.1 < value < 0.25 for value in found.brier.values())
    assert found.log_loss["batch"] < found.log_loss["online"]
    assert found.log_loss_3way is not None
    assert set(found.log_loss_3way) == {"batch", "online"}  # the others have no tie margin
    assert found.chosen == "batch"
    assert sum(b.votes for b in found.calibration) == found.n
    assert all(abs(b.predicted - b.observed) < 0.12 for b in found.calibration if b.votes > 100)
    assert validate(votes.take(votes.outcome != 0), folds=2).log_loss_3way is None


def test_validation_never_trains_on_what_it_predicts() -> None:
    """Votes whose winner is a coin, on as many models as votes: memory would beat the coin, honesty cannot."""
    rng = numpy_generator(1, "coin")
    left = np.arange(400) % 40
    right = (left + 1 + rng.integers(0, 39, 400)) % 40
    votes = coded(left, right, rng.choice([-1, 1], 400), models=[f"m{k}" for k in range(40)])
    found = validate(votes, folds=4)
    assert all(value > math.log(2) - 0.01 for value in found.log_loss.values())


def test_validation_of_another_engine_and_of_games() -> None:
    votes, _ = simulate(2, 600)
    assert validate(votes, chosen=RatingOptions(seed=3, interval="bootstrap")).chosen == "batch"
    assert validate(votes, chosen=RatingOptions(engine="online", seed=3)).chosen == "online"
    other = validate(votes, chosen=RatingOptions(link="logit"))
    assert other.chosen == "chosen"
    assert other.log_loss["chosen"] != other.log_loss["batch"]
    with pytest.raises(InputError, match="folds"):
        validate(votes, folds=1)
    few = coded([0, 1], [1, 0], [1, 1], models=["A", "B"], game=[0, 0])
    with pytest.raises(InputError, match="2 folds of 1 votes or games"):
        validate(few, folds=2)


def test_calibration_bins_by_hand() -> None:
    first, last = calibration_bins(np.array([0.12, 0.18, 1.0]), np.array([1.0, 0.0, 1.0]), np.ones(3))
    assert (first.predicted, first.observed, first.votes) == (pytest.approx(0.15), 0.5, 2)
    assert (last.predicted, last.observed, last.votes) == (1.0, 1.0, 1)
    votes, _ = simulate(3)
    ratings = rate(votes)
    bins = in_sample_calibration(votes, ratings.mu, ratings.tie_margin, LINKS["probit"])
    assert sum(b.votes for b in bins) == 2 * int((votes.outcome != 0).sum())


BOARDS = [(PUBLISHED[0], 13, 27.99, 25.89), (PUBLISHED[1], 15, 28.54, 23.42)]


@pytest.mark.parametrize(("name", "models", "first", "mean"), BOARDS)
def test_published_boards(name: str, models: int, first: float, mean: float) -> None:
    """The paper's Table 6; score = mu - 3 sigma within its rounding."""
    import json
    from importlib import resources

    board = load_board(name)
    assert len(board.models) == models
    assert board.mu[0] == first
    assert board.mu.mean() == pytest.approx(mean, abs=0.005)
    rows = json.loads(resources.files("finepref.arena").joinpath("boards", f"{name}.json").read_text())["models"]
    assert all(row["score"] == pytest.approx(row["mu"] - 3 * row["sigma"], abs=0.021) for row in rows)


def test_comparison_with_a_board(tmp_path: Path) -> None:
    votes, mu = simulate(4, 8000)
    ratings = rate(votes)
    lines = "\n".join(f"owner/M-{k},{value}" for k, value in enumerate(mu[:5]))
    (tmp_path / "b.csv").write_text(f"model,mu\n{lines}\nother,1\n")
    found = compare(ratings, load_board(str(tmp_path / "b.csv")))
    assert found.models == ("m0", "m1", "m2", "m3", "m4")
    assert (found.only_ours, found.only_theirs) == (("m5",), ("other",))
    assert found.spearman > 0.85
    assert found.ours.mean() == pytest.approx(0.0, abs=1e-12)
    save_ratings(tmp_path / "ratings.json", ratings, provenance={})
    itself = compare(ratings, load_board(str(tmp_path)))
    assert itself.kendall == pytest.approx(1.0)
    assert itself.ours == pytest.approx(itself.theirs)
    assert plain("stabilityai/SD-XL_beta v2") == "sdxlbetav2"
    (tmp_path / "bad.csv").write_text("model,mu\nm0,high\n")
    for name, says in (
        ("arenapo-pickpic", "did you mean 'arenapo-pickapic'"), (str(tmp_path / "bad.csv"), "valid number"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            load_board(name)
    with pytest.raises(InputError, match="no model is also on the board"):
        compare(ratings, load_board("arenapo-hpdv3"))


def test_voters_who_flip_click_or_love_one_model() -> None:
    """60 votes each: the flipper, the left-clicker and the fan are found for what they are, and nobody else."""
    votes, mu = simulate(5, 6000, 8, ties=0.0, voters=100)
    outcome, left, right = votes.outcome.copy(), votes.left.copy(), votes.right.copy()
    voter = votes.voter
    assert voter is not None
    strong = int(np.argsort(mu)[3])
    outcome[voter == 3] = np.where(mu[left] > mu[right], -1, 1)[voter == 3]
    outcome[voter == 4] = 1
    for row in np.flatnonzero(voter == 5):
        if strong not in (left[row], right[row]):
            left[row] = strong
        outcome[row] = 1 if left[row] == strong else -1
    bad = coded(left, right, outcome, models=votes.models, voter=voter, voters=[f"v{k}" for k in range(100)])
    found = check_voters(bad, rate(bad))
    reasons = {voter.name: voter.reasons for voter in found.flagged}
    assert "votes against the others" in reasons.pop("v3")
    assert "clicks one side" in reasons.pop("v4")
    assert "votes for one model" in reasons.pop("v5")
    assert reasons == {}
    assert found.checked == 100
    fan = next(voter for voter in found.voters if voter.name == "v5")
    assert fan.fan_model == strong


def test_honest_voters_are_not_flagged() -> None:
    """z values of honest voters are centred with standard deviation about 1."""
    votes, _ = simulate(6, 12000, 8, ties=0.7, voters=120)
    found = check_voters(votes, rate(votes))
    assert found.flagged == ()
    for name in ("agreement", "side"):
        z = np.array([getattr(voter, name) for voter in found.voters])
        assert abs(z.mean()) < 0.4
        assert 0.8 < z.std() < 1.2


def test_order_matters_to_the_online_engine() -> None:
    votes, _ = simulate(7, 3000)
    with_walk, without = (order_sensitivity(votes, preset=preset) for preset in ("ksort", "appendix_a"))
    assert with_walk.sd.mean() > 5 * without.sd.mean() > 0
    assert with_walk.swaps >= without.swaps
    assert without.kendall > 0.9
    one = Votes.from_columns(left=["A"], right=["A"], outcome=["left"])
    assert order_sensitivity(one).swaps == 0.0


def test_votes_still_needed() -> None:
    """Exactly those that bring the standard error down to D / z, all pairs tested together; none when it is there."""
    votes, _ = simulate(8, 1500)
    ratings = rate(votes)
    order, z = ratings.order(), ratings.clear
    normal = replace(ratings, settings=replace(ratings.settings, clusters=None)).clear
    assert normal == pytest.approx(studentized_range.ppf(0.95, len(ratings.models), np.inf) / math.sqrt(2), rel=1e-4)
    assert z >= normal > 2.5
    for first, second in pairwise(order):
        n = votes_to_separate(ratings, first, second)
        d, sd = float(ratings.mu[first] - ratings.mu[second]), float(ratings.difference_sd()[first, second])
        if n == 0:
            assert d >= 0.999999 * z * sd
        else:
            after = 1.0 / math.sqrt(1.0 / sd**2 + n * float(information(ratings, np.array(d))))
            assert after == pytest.approx(d / z, rel=1e-6)
    together = votes_to_separate(ratings, order[:-1], order[1:])
    assert together.tolist() == [float(votes_to_separate(ratings, a, b)) for a, b in pairwise(order)]
    assert votes_to_separate(ratings, 0, 0) == math.inf


def test_validation_of_many_votes_takes_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order; games stay whole."""
    monkeypatch.setattr("finepref.arena.validate.MOST_VOTES", 300)
    votes, _ = simulate(10, 900, ties=0.0)
    assert validate(votes, folds=3).n == 300
    game = np.repeat(np.arange(150), 6)
    grouped = coded(votes.left, votes.right, votes.outcome, models=votes.models, game=game)
    found = validate(grouped, folds=3)
    assert found.n % 6 == 0
    assert 200 < found.n <= 300
