"""Voters, sides, weights, times, tiers, agreement: what the arena says, and what it refuses to say."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import studentized_range

from coded_votes import coded
from finepref import Votes, load_ratings, rate, read_votes
from finepref.arena.agreement import agreement, alpha
from finepref.arena.batch import inverse_with_gauge
from finepref.arena.clusters import plan, spread
from finepref.arena.counts import count, count_sides
from finepref.arena.engines import fit_counts
from finepref.arena.gap import gaps
from finepref.arena.intervals import _meat, variance_along
from finepref.arena.ratings import range_quantile, save_ratings
from finepref.arena.selection import merged, read_merges, without_voters
from finepref.arena.settings import RatingOptions
from finepref.arena.validate import validate
from finepref.arena.voters import check_voters
from finepref.core.errors import InputError
from finepref.core.rng import numpy_generator
from finepref.formats.votes import Games

ROOT = Path(__file__).resolve().parents[2]
C = math.sqrt(2.0) * 25.0 / 6.0


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of benchmarks/."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(__import__("sys").modules, name, module)
    found.loader.exec_module(module)
    return module


def simulate(seed: int, n: int = 600, m: int = 4, **named: Any) -> Votes:
    """Votes of the model itself between models of known strength, without bias."""
    rng = numpy_generator(seed, "honesty")
    left = rng.integers(0, m, n)
    right = (left + rng.integers(1, m, n)) % m
    lead = 1.5 * (right - left) + C * rng.standard_normal(n)
    outcome = np.where(np.abs(lead) < 0.7, 0, np.sign(lead)).astype(np.int8)
    return coded(left, right, outcome, models=[f"m{k}" for k in range(m)], **named)


# Voters and prompts without a name


def test_effective_number_by_hand() -> None:
    """Clusters of 3, 1 and two single votes: (3 + 1 + 1 + 1)^2 / (9 + 1 + 1 + 1)."""
    votes = coded([0] * 7, [1] * 6 + [0], [1] * 7, models="ab", voter=[0, 0, 0, 1, -1, -1, 0])
    found = spread(votes, votes.voter)
    assert found.effective == pytest.approx(36 / 12)
    assert (found.named, found.alone, found.largest) == (2, 2.0, (0, 0.5))
    assert not found.dominated  # half is not more than half
    assert spread(replace(votes, weight=np.array([2.0] + [1.0] * 6)), votes.voter).effective == pytest.approx(49 / 19)


@pytest.mark.parametrize("column", ["voter", "prompt"])
def test_unnamed_are_independent(column: str) -> None:
    """With 90 % unnamed the interval is that of independent votes; as one cluster it would be far narrower."""
    votes = simulate(0)
    codes = np.where(np.arange(len(votes)) % 10 == 0, np.arange(len(votes)) % 150, -1)
    named = replace(votes, **{column: codes})
    found = rate(named)
    assert (found.settings.intervals, found.settings.cluster) == ("sandwich", column)
    assert found.sigma == pytest.approx(rate(votes).sigma, rel=0.15)
    assert rate(named, interval="bootstrap").sigma == pytest.approx(found.sigma, rel=0.1)
    nobody = rate(replace(votes, **{column: np.full(len(votes), -1)}))
    assert nobody.settings.intervals == "laplace"


def test_all_unnamed_equals_every_vote_by_itself() -> None:
    votes = simulate(1)
    alone = rate(votes, interval="sandwich").sigma
    nobody = replace(votes, voter=np.full(len(votes), -1))
    assert rate(nobody, interval="sandwich", cluster="voter").sigma == pytest.approx(alone, rel=1e-12)
    each = replace(votes, voter=np.arange(len(votes)))
    assert rate(each, interval="sandwich", cluster="voter").sigma == pytest.approx(alone, rel=1e-12)


def test_missing_names_are_read_as_unnamed(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("left,right,winner,voter,prompt\nA,B,left,,p\nA,B,right,v,\nA,B,left,,p\nB,A,left,w,q\n")
    votes = read_votes([path]).votes
    assert votes.voter is not None
    assert votes.prompt is not None
    assert votes.voters == ("v", "w")
    assert votes.voter.tolist() == [-1, 0, -1, 1]
    assert (votes.prompt < 0).tolist() == [False, True, False, False]
    ratings = rate(votes)
    assert ratings.voters == 2
    assert check_voters(votes, ratings) is not None


def test_a_dominating_voter() -> None:
    """One of several voters with more than half of the votes: no interval unless asked for, and it is said."""
    voter = np.where(np.arange(600) % 10 < 6, 40, np.arange(600) % 40)
    votes = replace(simulate(2), voter=voter, voters=tuple(f"v{k}" for k in range(41)))
    refused = rate(votes)
    assert refused.settings.intervals == "none"
    assert np.isnan(refused.interval()).all()
    assert refused.rank_interval()[1].tolist() == [4] * 4
    assert set(refused.tiers()) == {1}
    assert any("'v40' dominates" in warning for warning in refused.warnings)
    assert all(row.low is None and row.high is None for row in refused.table())
    assert refused.side is not None
    assert refused.side.interval is None
    given = rate(votes, interval="laplace")
    assert np.isfinite(given.interval()).all()
    assert any("'v40' dominates" in warning for warning in given.warnings)
    assert rate(votes, interval="sandwich", cluster="voter").settings.intervals == "none"
    assert gaps(votes, refused, kind="paper") == pytest.approx(gaps(votes, given, kind="paper"), nan_ok=True)
    one = rate(replace(votes, voter=np.zeros(600, dtype=int)))
    assert np.isfinite(one.interval()).all()
    assert any("All votes are by one voter" in warning for warning in one.warnings)
    few = rate(replace(votes, voter=np.arange(600) % 3))
    assert any("count as those of 3.0 voters" in warning for warning in few.warnings)


@pytest.mark.parametrize("interval", ["sandwich", "bootstrap"])
def test_too_few_clusters_give_no_interval(interval: str) -> None:
    """One prompt, or fewer prompts than models: impossible, and never zero wide."""
    for prompts in (1, 3):
        votes = replace(simulate(3), prompt=np.arange(600) % prompts)
        found = rate(votes, interval=interval, cluster="prompt")
        assert np.isnan(found.interval()).all()
        assert any("No interval can be given" in warning for warning in found.warnings)
    assert plan(replace(simulate(3), prompt=np.arange(600) % 3), "auto", None).method == "laplace"


SMALL: dict[str, Callable[[], Votes]] = {
    "only ties": lambda: coded([0] * 6, [1] * 6, [0] * 6, models="ab", voter=[0] * 6),
    "only against itself": lambda: coded([0, 1] * 3, [0, 1] * 3, [1] * 6, models="ab", voter=[0, 1] * 3),
    "one vote": lambda: coded([0], [1], [1], models="ab", voter=[0]),
    "nobody named": lambda: coded([0, 1], [1, 0], [1, 1], models="ab", voter=[-1, -1]),
}


@pytest.mark.parametrize("what", SMALL)
@pytest.mark.parametrize(
    "options",
    [
        {"engine": "online"}, {"ties": "half"}, {"ties": "drop"}, {"interval": "bootstrap", "ties": "half"},
        {"interval": "sandwich", "ties": "half"}, {"interval": "bootstrap", "cluster": "voter", "ties": "half"},
    ],
)  # fmt: skip
def test_small_votes_are_rated(what: str, options: dict[str, Any]) -> None:
    votes = SMALL[what]()
    ratings = rate(votes, **options)
    assert np.isfinite(ratings.mu).all()
    low, high = ratings.interval()
    assert not np.any(low == high)
    check_voters(votes, ratings)
    agreement(votes)
    assert len(ratings.table()) == 2


def test_a_model_that_one_voter_fixes_is_unsure() -> None:
    """20 votes on the new model, all by one voter: that voter's score is 0 there, the uncertainty is not."""
    votes = simulate(14)
    rng = numpy_generator(0, "fixed")
    other = rng.integers(0, 4, 20)
    more = coded(
        np.append(votes.left, np.full(20, 4)), np.append(votes.right, other),
        np.append(votes.outcome, rng.choice([-1, 1], 20)), models=[*votes.models, "new"],
        voter=np.append(np.arange(600) % 50, np.zeros(20, dtype=int)),
    )  # fmt: skip
    clustered, independent = rate(more), rate(more, interval="laplace")
    assert clustered.settings.cluster == "voter"
    assert clustered.sigma[4] >= 0.95 * independent.sigma[4] > 3 * clustered.sigma[0]


# What intervals are measured from


def test_a_newcomer_widens_nobody() -> None:
    votes = simulate(4)
    more = coded(
        np.append(votes.left, 4), np.append(votes.right, 0), np.append(votes.outcome, 1), models=[*votes.models, "new"]
    )
    before, after = rate(votes), rate(more)
    assert after.sigma[:4] == pytest.approx(before.sigma, rel=0.1)
    assert after.sigma[4] > 5 * after.sigma[0]
    assert after.tiers()[:4].tolist() == before.tiers().tolist()  # and heads no tier
    assert after.difference_sd()[:4, :4] == pytest.approx(before.difference_sd(), rel=0.05)
    apart = coded([0, 1, 2, 2] * 30, [1, 0, 3, 3] * 30, [1, 1, 1, -1] * 30, models="abcd")
    pair = rate(coded([0, 1] * 30, [1, 0] * 30, [1, 1] * 30, models="ab"))
    assert rate(apart).sigma[:2] == pytest.approx(pair.sigma, rel=1e-6)  # two groups: around the first


def test_an_anchor() -> None:
    """Intervals of mu minus the anchor's; the anchor itself has none; sigma stays."""
    votes = simulate(5)
    plain, found = rate(votes), rate(votes, anchor="m2")
    low, high = found.interval()
    assert np.isnan(low[2])
    others = [0, 1, 3]
    assert (high - low)[others] == pytest.approx(2 * 1.959964 * found.difference_sd()[others, 2], rel=1e-6)
    assert found.sigma.tolist() == plain.sigma.tolist()
    assert np.isnan(rate(votes, engine="online", anchor="m2").interval()[0][2])
    with pytest.raises(InputError, match="unknown anchor 'm9'; use one of m0, m1, m2, m3"):
        rate(votes, anchor="m9")


# Sides


def test_a_bias_that_all_voters_share() -> None:
    votes = simulate(6, 1500)
    flip = (votes.outcome < 0) & (numpy_generator(0, "turned").random(len(votes)) < 0.25)
    biased = rate(replace(votes, outcome=np.where(flip, 1, votes.outcome).astype(np.int8)))
    assert biased.side is not None
    assert biased.side.warned
    assert any("left side" in warning and "position" in warning for warning in biased.warnings)
    honest = rate(votes).side
    assert honest is not None
    assert not honest.warned


def test_strong_models_on_one_side_are_no_bias() -> None:
    """The stronger model always stands on the left: left wins most votes, and the side has nothing to do with it."""
    votes = simulate(7, 1500)
    turned = votes.left > votes.right  # m0 is the best
    left, right = np.where(turned, votes.right, votes.left), np.where(turned, votes.left, votes.right)
    sorted_ = coded(left, right, np.where(turned, -votes.outcome, votes.outcome), models=votes.models)
    assert (sorted_.outcome > 0).mean() > 0.6
    side = rate(sorted_).side
    assert side is not None
    assert not side.warned


def test_the_side_has_the_sandwich_of_all_unknowns() -> None:
    """Where stronger models stand on the left, so that side and ratings go together; named and unnamed voters."""
    votes = simulate(15, 900)
    turned = (votes.left > votes.right) & (np.arange(900) % 4 > 0)
    voter = np.where(np.arange(900) % 3 == 0, -1, np.arange(900) % 40)
    left, right = np.where(turned, votes.right, votes.left), np.where(turned, votes.left, votes.right)
    held = coded(left, right, np.where(turned, -votes.outcome, votes.outcome), models=votes.models, voter=voter)
    options = RatingOptions(side="fit", interval="sandwich", cluster="voter")
    chosen = plan(held, "sandwich", "voter")
    model = fit_counts(count_sides(held), held.models, options)
    bread, meat = inverse_with_gauge(model.fit.hessian, 4), _meat(held, model, chosen, "fit")
    whole = bread @ (meat + np.diag(model.prior_on_all)) @ bread
    assert len(whole) == 6  # four models, the tie margin, the side
    assert variance_along(held, model, chosen, bread[:, -1], ties="fit") == pytest.approx(whole[-1, -1], rel=1e-9)
    side = rate(held).side
    assert side is not None
    assert side.interval is not None
    reach = float(stdtrit(chosen.effective - 1, 0.975)) * C * math.sqrt(whole[-1, -1])
    assert side.interval[1] - side.interval[0] == pytest.approx(2 * reach, rel=1e-6)


def test_side_term_by_hand() -> None:
    """Equal models, the left wins 60 of 100: Phi(s/c) = 0.6, var(s) = c^2 p(1-p) / (n phi^2); a weak prior on s."""
    votes = coded([0, 1] * 5000, [1, 0] * 5000, ([1] * 6 + [-1] * 4) * 1000, models="ab")
    side = rate(votes, side="fit").side
    assert side is not None
    assert side.interval is not None
    z = 0.2533471031357997
    sd = C * math.sqrt(0.24 / 1e4) / (math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))
    assert side.advantage == pytest.approx(C * z, rel=1e-3)
    assert side.interval[1] - side.interval[0] == pytest.approx(2 * 1.959964 * sd, rel=1e-3)
    assert side.left_wins == pytest.approx(0.6, abs=1e-4)


def test_fitted_and_tested_are_each_others_other() -> None:
    votes = replace(simulate(8), voter=np.arange(600) % 60)
    for options in ({}, {"ties": "half"}, {"prior": "flat"}, {"link": "logit"}, {"prior": "empirical-bayes"}):
        plain, fitted = rate(votes, **options), rate(votes, side="fit", **options)
        assert plain.side is not None
        assert fitted.side is not None
        prior_sd = options.get("prior") != "empirical-bayes"
        assert plain.side.advantage == pytest.approx(fitted.side.advantage, rel=1e-6 if prior_sd else 1e-2)
        assert [*plain.side.beside.values()] == pytest.approx(fitted.mu.tolist(), abs=1e-6)
        assert [*fitted.side.beside.values()] == pytest.approx(plain.mu.tolist(), abs=1e-6)
        assert plain.side.cluster == "voter"


def test_without_sides_there_is_no_test(tmp_path: Path) -> None:
    """The winner is listed first, every vote went left, or the votes are of rankings."""
    (tmp_path / "v.csv").write_text("winner,loser\n" + "A,B\nB,A\nA,B\n" * 30)
    listed = read_votes([tmp_path / "v.csv"])
    assert rate(listed).side is None
    assert rate(listed.votes).side is None
    for votes in (listed, replace(simulate(9), game=np.arange(600))):
        with pytest.raises(InputError, match="do not say which side won"):
            rate(votes, side="fit")
    with pytest.raises(InputError, match="bootstrap does not know"):
        rate(simulate(9), side="fit", interval="bootstrap")


def test_small_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks/arena_coverage.py` and `side_bias.py`, few simulations; the whole is in benchmarks/results."""
    sim = script("arena_coverage", monkeypatch)
    for setting in (sim.SETTINGS[3], sim.SETTINGS[-1]):
        found = sim.coverage(setting, 25)
        assert found["coverage"] is None or found["coverage"] > 0.87
        assert (found["refused"] == 1.0) == (found["coverage"] is None)
    bias = script("side_bias", monkeypatch)
    assert bias.run("25 % turned, 60 voters", 8)["warned"] == 1.0
    assert bias.run("no bias, 60 voters", 8)["warned"] < 0.3


# Agreement


def test_alpha_of_the_published_example() -> None:
    """Krippendorff (2011), nominal data of four observers: 0.743."""
    table = [
        "1 . . . 1", "2 2 3 2", "3 3 3 3", "3 3 3 3", "2 2 2 2", "1 2 3 4", "4 4 4 4", "1 1 2 1", "2 2 2 2",
        ". 5 5 5", ". . 1 1", ". . 3 .",
    ]  # fmt: skip
    table[0] = "1 1 . 1"
    counts = np.array([[row.split().count(str(k)) for k in range(1, 6)] for row in table], dtype=float)
    judged = counts[counts.sum(axis=1) > 1]
    assert float(alpha(judged, np.ones(len(judged)))) == pytest.approx(0.743, abs=5e-4)


def test_alpha_equals_the_package() -> None:
    krippendorff = pytest.importorskip("krippendorff")
    rng = numpy_generator(0, "alpha")
    said = rng.choice([-1.0, 0.0, 1.0, np.nan], (7, 40), p=[0.3, 0.1, 0.4, 0.2])
    voter, unit = np.nonzero(~np.isnan(said))
    order = rng.permutation(len(voter))
    voter, unit = voter[order], unit[order]
    votes = coded(
        unit * 0, unit * 0 + 1, said[voter, unit].astype(int), models="ab", voter=voter, left_image=2 * unit,
        right_image=2 * unit + 1,
    )  # fmt: skip
    found = agreement(votes)
    assert found is not None
    both = np.concatenate([said, -said], axis=1)  # either picture of a comparison may be called the first
    assert found.alpha == pytest.approx(krippendorff.alpha(both, level_of_measurement="nominal"), abs=1e-12)
    turned, shuffled = rng.random(len(votes)) < 0.5, rng.permutation(len(votes))
    other = coded(
        1 * turned, 1 - turned, np.where(turned, -1, 1) * said[voter, unit].astype(int), models="ab", voter=voter,
        left_image=2 * unit + turned, right_image=2 * unit + 1 - turned,
    )  # fmt: skip
    assert agreement(other) == agreement(votes.take(shuffled)) == found


def test_agreement_looks_at_comparisons() -> None:
    """Sides do not matter, repeats of one voter do not count, other prompts are other comparisons."""
    rows = {
        "left": ["A", "B", "A", "A", "A", "B"], "right": ["B", "A", "B", "B", "B", "A"],
        "outcome": ["left", "right", "right", "left", "right", "left"], "voter": ["u", "v", "u", "v", "u", "w"],
        "prompt": ["p", "p", "p", "q", "q", "q"],
    }  # fmt: skip
    found = agreement(Votes.from_columns(**rows))  # p: u and v say A; q: v says A, u and w say B
    assert found is not None
    assert (found.comparisons, found.judgements, found.unit) == (2, 5.0, "prompt and models")
    # both ways round: D_o = 2 (0 + (9 - 1 - 4)/2)/10 = 0.4; D_e = (100 - 25 - 25)/(10 * 9)
    assert found.alpha == pytest.approx(1 - 0.4 * 9 / 5)
    lonely = Votes.from_columns(**{**rows, "prompt": list("abcdef")})
    assert agreement(lonely) is None
    assert agreement(Votes.from_columns(**{**rows, "voter": ["u"] * 6})) is None
    assert agreement(Votes.from_columns(**{**rows, "prompt": [None] * 6})) is None


def test_agreement_of_counted_votes() -> None:
    """3 to 1 and 0 to 2 on two comparisons are the six votes."""
    counted = coded([0, 0], [1, 1], [1, -1], models="ab", prompt=[0, 1], weight=[4.0, 2.0], share=[0.75, 0.0])
    single = coded([0] * 6, [1] * 6, [1, 1, 1, -1, -1, -1], models="ab", prompt=[0, 0, 0, 0, 1, 1])
    one, other = agreement(counted), agreement(single)
    assert one is not None
    assert other is not None
    assert one.alpha == pytest.approx(other.alpha)


# Weights, shares, times


def test_weights_are_repeated_votes() -> None:
    rng = numpy_generator(0, "weights")
    votes = replace(simulate(10), voter=np.where(rng.random(600) < 0.5, -1, rng.integers(0, 80, 600)))
    times = rng.integers(0, 4, 600)
    weighted = replace(votes, weight=times.astype(np.float64))
    repeated = votes.take(np.repeat(np.arange(600), times))
    for options in ({}, {"interval": "laplace"}, {"ties": "half"}, {"side": "fit"}):
        one, other = rate(weighted, **options), rate(repeated, **options)
        assert one.mu == pytest.approx(other.mu, abs=1e-9)
        assert one.sigma == pytest.approx(other.sigma, abs=1e-9)
        assert one.wins.tolist() == other.wins.tolist()
        assert one.settings.clusters == pytest.approx(other.settings.clusters)
    checked = [check_voters(v, rate(v)) for v in (weighted, repeated)]
    assert [v.agreement for v in checked[0].voters] == pytest.approx([v.agreement for v in checked[1].voters])  # type: ignore[union-attr]
    assert rate(weighted, interval="bootstrap").sigma == pytest.approx(rate(weighted).sigma, rel=0.15)
    assert set(validate(weighted, folds=3).log_loss) == {"batch", "batch_drop"}


def test_shares_are_split_votes() -> None:
    """Weight 4, share 0.75: three votes for the left, one for the right; nan: the outcome."""
    shared = coded([0, 1], [1, 0], [1, 0], models="ab", weight=[4.0, 2.0], share=[0.75, np.nan])
    found = count(shared)
    assert (found.i_wins.tolist(), found.j_wins.tolist(), found.ties.tolist()) == ([3.0], [1.0], [2.0])
    split = coded([0] * 4 + [1] * 2, [1] * 4 + [0] * 2, [1, 1, 1, -1, 0, 0], models="ab")
    assert rate(shared).mu == pytest.approx(rate(split).mu, abs=1e-9)
    half = rate(coded([0, 1], [1, 0], [1, -1], models="ab", weight=[2.5, 1.0]))
    assert half.wins.tolist() == [3.5, 0.0]
    with pytest.raises(InputError, match="weights or shares"):
        rate(shared, engine="online")


def test_both_bad_is_counted() -> None:
    votes = coded([0, 0, 0, 1], [1, 1, 2, 2], [0, 1, 0, 1], models="abc", both_bad=[True, False, False, False])
    found = {row.name: row.both_bad for row in rate(votes).table()}
    assert found == {"a": pytest.approx(1 / 3), "b": pytest.approx(1 / 3), "c": 0.0}
    assert rate(replace(votes, both_bad=None)).table()[0].both_bad is None


def test_online_order_is_by_time() -> None:
    votes = simulate(11, 200)
    oldest_first = replace(votes, time=np.arange(200) // 2)
    back = np.arange(200).reshape(-1, 2)[::-1].ravel()  # newest first; votes of one moment as in the file
    newest_first = oldest_first.take(back)
    first, second = rate(oldest_first, engine="online"), rate(newest_first, engine="online")
    assert first.mu.tolist() == second.mu.tolist() == rate(votes, engine="online").mu.tolist()
    assert first.settings.order == "time"
    assert any("times" in warning for warning in first.warnings)
    shuffled = rate(newest_first, engine="online", order="shuffled")
    assert shuffled.settings.order == "shuffled"
    games = Games(np.arange(0, 61, 3), np.tile([0, 1, 2], 20), numpy_generator(0, "rank").random(60))
    a, b, game = games.pairs()
    kwise = coded(games.model[a], games.model[b], games.outcomes(a, b), models="abc", game=game, games=games)
    turned = Games(games.start, games.model[::-1], games.rank[::-1])  # the same games, the last one first
    a, b, game = turned.pairs()
    mirrored = coded(
        turned.model[a], turned.model[b], turned.outcomes(a, b), models="abc", game=game, games=turned, time=-game
    )
    assert rate(mirrored, engine="online").mu == pytest.approx(rate(kwise, engine="online").mu, abs=1e-9)


# Tiers


def test_the_range_of_normals() -> None:
    for m in (2, 5, 40):
        assert range_quantile(0.95, m) == pytest.approx(studentized_range.ppf(0.95, m, np.inf), rel=1e-4)


def test_tiers() -> None:
    """No two of a tier can be told apart; equal models are rarely split (95 %)."""
    ratings = rate(simulate(12, 4000, 5))
    tier, reach = ratings.tiers(), range_quantile(0.95, 5) / math.sqrt(2) * ratings.difference_sd()
    for i in range(5):
        for j in range(5):
            if tier[i] == tier[j]:
                assert abs(ratings.mu[i] - ratings.mu[j]) <= reach[i, j]
    assert tier.max() > 2
    best, worst = ratings.rank_interval()
    assert ((tier == 1) == (best == 1)).all()  # who may be the best can be told apart from no other such
    assert (best[worst < 5] <= worst[worst < 5]).all()
    for i in range(5):
        assert worst[i] == 5 - (ratings.mu[i] - ratings.mu > reach[i]).sum()
    split = 0
    for seed in range(60):
        rng = numpy_generator(seed, "equal")
        left = rng.integers(0, 6, 400)
        votes = coded(left, (left + rng.integers(1, 6, 400)) % 6, rng.choice([-1, 1], 400), models="abcdef")
        split += int(rate(votes).tiers().max() > 1)
    assert split <= 8  # P(more than 8 of 60 at 5 %) = 0.002


# Voters dropped, models merged, what became of the rows


def test_merges_and_drops() -> None:
    votes = coded([0, 1, 2], [1, 2, 0], [1, 1, 1], models=["A", "a", "B=C"], voter=[0, 1, 0], voters=("u", "v"))
    assert read_merges(["a=A", "B=C=D"], votes.models) == {"a": "A", "B=C": "D"}
    joined = merged(votes, {"a": "A"})
    assert joined.models == ("A", "B=C")
    found = rate(joined)
    assert found.counted is not None
    assert (found.counted.read, found.counted.used, found.counted.self) == (3, 2, 1)
    assert merged(votes, {"A": "a", "a": "Z"}).models == ("Z", "B=C")
    for given, says in ((["b=A"], "no model 'b'"), (["A"], "not OLD=NEW"), (["A="], "not OLD=NEW")):
        with pytest.raises(InputError, match=says):
            read_merges(given, votes.models)


def test_drop_voter_keeps_rows_and_games(tmp_path: Path) -> None:
    lines = "".join(f"g{g},m{k},{(g + k) % 3},v{g % 2}\n" for g in range(6) for k in range(3))
    (tmp_path / "k.csv").write_text("group,model,rank,voter\n" + lines)
    table = read_votes([tmp_path / "k.csv"])
    kept, rows = without_voters(table, ["v1"])
    assert rows == {"v1": 9}
    assert len(kept.votes) == len(kept.row) == 9
    assert kept.votes.games is not None
    assert len(kept.votes.games) == 3
    assert rate(kept.votes, engine="online").mu.shape == (3,)
    with pytest.raises(InputError, match="'vv1' did not vote; did you mean 'v1'"):
        without_voters(table, ["vv1"])
    with pytest.raises(InputError, match="no vote is left"):
        without_voters(table, ["v0", "v1"])


def test_the_record_of_both_versions(tmp_path: Path) -> None:
    """All that is new survives the file; a file of version 1 is read."""
    votes = replace(simulate(13, 300), voter=np.arange(300) % 50, both_bad=np.arange(300) % 9 == 0)
    ratings = replace(rate(votes), agreement=agreement(votes))
    save_ratings(tmp_path / "ratings.json", ratings, provenance={}, outcome_words={"x": "left"})
    held = json.loads((tmp_path / "ratings.json").read_text())
    assert held["version"] == 2
    assert held["votes"] == {"read": 300, "used": 300, "self": 0, "left_out": {}, "sources": []}
    assert held["voters"] == 50
    assert held["outcome_words"] == {"x": "left"}
    assert set(held["side"]) >= {"advantage", "interval", "p", "warned"}
    assert all(isinstance(row["wins"], int) and row["tier"] >= 1 for row in held["models"])
    back = load_ratings(tmp_path)
    assert (back.side, back.counted, back.agreement) == (ratings.side, ratings.counted, ratings.agreement)
    order = ratings.order()
    assert back.interval()[0] == pytest.approx(ratings.interval()[0][order])
    assert [row.both_bad for row in back.table()] == pytest.approx([row.both_bad for row in ratings.table()])
    new = ("votes", "voters", "side", "agreement", "outcome_words")
    old = {key: value for key, value in held.items() if key not in new} | {"version": 1}
    old["models"] = [
        {key: value for key, value in row.items() if key not in ("tier", "votes", "both_bad")} for row in held["models"]
    ]
    (tmp_path / "ratings.json").write_text(json.dumps(old))
    assert load_ratings(tmp_path).mu.tolist() == back.mu.tolist()


def clickers(voters: int = 12) -> Votes:
    """Every voter clicks left on all three pairs in both orders, so that each voter's votes cancel each other."""
    left, right = [0, 1, 0, 2, 1, 2] * voters, [1, 0, 2, 0, 2, 1] * voters
    return coded(left, right, [1] * len(left), models="abc", voter=np.repeat(np.arange(voters), 6))


@pytest.mark.parametrize("prior", ["normal", "flat"])
def test_votes_of_a_voter_that_cancel_do_not_make_sure(prior: str) -> None:
    independent = rate(clickers(), prior=prior, interval="laplace")
    found = rate(clickers(), prior=prior)
    assert found.settings.intervals == "laplace"
    assert "cancel" in (found.settings.intervals_why or "")
    assert found.interval()[0] == pytest.approx(independent.interval()[0])
    assert any("Intervals are those of independent votes" in warning for warning in found.warnings)
    for interval in ("sandwich", "bootstrap"):
        asked = rate(clickers(), prior=prior, interval=interval, cluster="voter")
        assert any("cancel" in warning for warning in asked.warnings)
        assert np.isnan(asked.interval()[0]).all() == (prior == "flat")
    assert not rate(simulate(3)).warnings


def test_ties_that_are_dropped_leave_no_interval() -> None:
    votes = coded([0, 1] * 20, [1, 2] * 20, [0] * 40, models="abc", voter=np.arange(40) % 8)
    for interval in ("auto", "laplace", "sandwich", "bootstrap"):
        found = rate(votes, interval=interval, ties="drop")
        assert np.isnan(found.interval()[0]).all()
        assert any("every vote is a tie" in warning for warning in found.warnings)
    for none in (votes, coded([0, 1] * 9, [0, 1] * 9, [1] * 18, models="ab")):
        with pytest.raises(InputError, match="nothing to predict"):
            validate(none, folds=2, chosen=RatingOptions(ties="half"))


def test_voters_without_weight_and_weights_without_measure() -> None:
    """A voter whose votes all weigh 0 is nobody to draw; sums that no number holds are refused."""
    votes = simulate(5)
    voter = np.arange(600) % 30
    weight = np.where(voter < 20, 0.0, 1.0)
    kept = np.flatnonzero(weight)
    options: dict[str, Any] = {"interval": "bootstrap", "cluster": "voter"}
    found = rate(replace(votes, voter=voter, weight=weight), **options)
    alone = rate(replace(votes.take(kept), voter=voter[kept]), **options)
    assert found.sigma == pytest.approx(alone.sigma, rel=1e-6)
    tiny = rate(replace(votes, weight=np.full(600, 1e-2)), interval="bootstrap")
    assert np.isfinite(tiny.interval()).all()
    with pytest.raises(InputError, match="weights are too large"):
        rate(replace(votes, weight=np.where(voter < 20, 1e-9, 1e15)))


def test_one_model_whose_votes_cancel_is_as_unsure_as_by_independent_votes() -> None:
    """The others keep the sandwich: of tastes that differ by more, and a new model with clickers alone."""
    rng = numpy_generator(0, "tastes")
    voters, each = 40, 30
    voter = np.repeat(np.arange(voters), each)
    taste = 6.0 * rng.standard_normal((voters, 3))
    left = rng.integers(0, 3, len(voter))
    right = (left + rng.integers(1, 3, len(voter))) % 3
    lead = taste[voter, left] - taste[voter, right] + rng.standard_normal(len(voter))
    clicks = 2 * 12 * 3
    votes = coded(
        np.append(left, [0, 3, 1, 3, 2, 3] * (clicks // 6)), np.append(right, [3, 0, 3, 1, 3, 2] * (clicks // 6)),
        np.append(np.where(lead > 0, 1, -1), np.ones(clicks, dtype=int)), models="abcd",
        voter=np.append(voter, voters + np.repeat(np.arange(12), 6)),
    )  # fmt: skip
    found, asked = rate(votes), rate(votes, interval="sandwich", cluster="voter")
    independent = rate(votes, interval="laplace")
    assert found.settings.intervals == "sandwich"
    assert asked.sigma[3] < 0.5 * independent.sigma[3]
    assert found.sigma[3] == pytest.approx(independent.sigma[3])
    assert found.sigma[:3] == pytest.approx(asked.sigma[:3])
    assert (found.sigma[:3] > independent.sigma[:3]).all()
