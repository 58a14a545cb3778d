"""Kinds fused and posterior, controls, and what the command prints and keeps of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from typer.testing import CliRunner

from finepref import gaps, posterior, rate
from finepref.cli.main import build
from finepref.core import rng
from finepref.core.errors import InputError
from finepref.core.files import parquet_meta
from finepref.formats.rewards import Reward, Rewards, read_rewards, write_rewards
from finepref.formats.scores import ScoredBy
from finepref.formats.signals import Signals, read_signals
from finepref.formats.votes import Votes
from finepref.signals.control import controlled
from finepref.signals.make import check_request, rewards_for, signals_of
from finepref.signals.parts import SignalVotes

MODELS = tuple("ABCD")
PROMPTS, COUNT = 40, 400


def columns() -> dict[str, Any]:
    """400 votes on 160 images of 40 prompts, a few of them ties, and a reward that follows the images' quality."""
    g = rng.numpy_generator(3, "posterior votes")
    quality = g.normal(size=(PROMPTS, 4)) * 0.6 + np.array([0.0, 0.3, -0.2, 0.5])
    reward = quality + g.normal(size=quality.shape) * 0.4
    prompt, left = g.integers(0, PROMPTS, COUNT), g.integers(0, 4, COUNT)
    right = (left + g.integers(1, 4, COUNT)) % 4
    lead = quality[prompt, left] - quality[prompt, right] + g.normal(size=COUNT) * 0.6
    return {
        "label": np.where(abs(lead) < 0.05, 0.5, (lead > 0).astype(float)), "left": left, "right": right,
        "prompt": prompt, "reward": [reward[prompt, left], reward[prompt, right]],
    }  # fmt: skip


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    held = columns()
    image = [[f"{MODELS[m]}{p}" for m, p in zip(held[side], held["prompt"], strict=True)] for side in ("left", "right")]
    model = [[MODELS[m] for m in held[side]] for side in ("left", "right")]
    table = SignalVotes([f"r{k}" for k in range(COUNT)], held["label"], *model, *image)
    votes = Votes.from_columns(
        left=model[0], right=model[1], outcome=held["label"], left_image=image[0], right_image=image[1]
    )
    scored = Rewards(*held["reward"], "follows", "f", 2.0)
    noise = rng.numpy_generator(4, "noise").normal(size=(PROMPTS, 4))
    other = Rewards(*(noise[held["prompt"], held[side]] for side in ("left", "right")), "noise", "g", 1.0)
    return {"table": table, "votes": votes, "ratings": rate(votes), "scored": scored, "other": other}


def test_fused_is_the_gap_of_the_arena(given: dict[str, Any]) -> None:
    scored = given["scored"]
    rewards = {"follows": (scored.score_0, scored.score_1)}
    found = signals_of(given["table"], ["fused"], ratings=given["ratings"], rewards=scored)
    wanted = gaps(given["votes"], given["ratings"], kind="fused", rewards=rewards)
    decided = given["table"].label != 0.5
    assert found.margin == pytest.approx(wanted[decided], rel=1e-6)
    assert (found.weight == 1).all()
    assert found.meta["fused.coefficients"]["follows"]["interval"][0] > 0.1
    assert found.rewards == ("follows",)
    assert found.device_seconds == 2.0


@pytest.mark.parametrize("form", ["gap", "share", "margin"])
@pytest.mark.parametrize("scorers", [(), ("scored",), ("scored", "other")])
def test_posterior_decides_the_winner(given: dict[str, Any], form: str, scorers: tuple[str, ...]) -> None:
    rewards = tuple(given[name] for name in scorers)
    options = {"form": form} | ({"mean_weight": 2.5} if form != "margin" else {})
    found = signals_of(given["table"], ["posterior"], ratings=given["ratings"], rewards=rewards, options=options)
    told = posterior(
        given["votes"], given["ratings"], rewards={each.scorer: (each.score_0, each.score_1) for each in rewards}
    )
    decided = given["table"].label != 0.5
    difference = told.difference[decided]
    assert (found.winner == np.where(difference > 0, 0, 1)).all()
    if form == "margin":
        assert found.margin == pytest.approx(abs(difference), rel=1e-6)
        assert (found.weight == 1).all()
    else:
        shape = abs(difference) if form == "gap" else abs(2 * told.probability[decided] - 1)
        assert found.weight == pytest.approx(2.5 * shape / shape.mean(), rel=1e-5)
        assert (found.margin == 0).all()
    assert found.meta["posterior.overruled"] == told.overruled
    assert {*found.meta["posterior.coefficients"]} == {"rating", *(given[name].scorer for name in scorers)}
    assert found.rewards == tuple(given[name].scorer for name in scorers)


def test_what_a_kind_takes_it_may_lack(given: dict[str, Any]) -> None:
    check_request(["posterior"], {}, ratings=True, rewards=False)
    check_request(["posterior"], {}, ratings=True, rewards=True)
    with pytest.raises(InputError, match=r"rewards \(--rewards\): kind fused needs it"):
        check_request(["fused"], {}, ratings=True, rewards=False)
    check_request(["posterior"], {}, ratings=False, rewards=True)


def test_pictures_whose_models_are_not_known(given: dict[str, Any]) -> None:
    """A pair a prompt and no model names: by scipy from the coefficient; without a reward all votes weigh alike."""
    table: SignalVotes = given["table"]
    nobody, count = [None] * COUNT, range(COUNT)
    alone = replace(
        table, model_0=nobody, model_1=nobody, image_0=[f"a{k}" for k in count], image_1=[f"b{k}" for k in count]
    )
    plain = signals_of(alone, ["posterior"], options={"rho": 1.0})
    np.testing.assert_allclose(plain.weight, 1.0)
    decided = table.label != 0.5
    assert (plain.winner == (table.label[decided] < 0.5)).all()
    found = signals_of(alone, ["posterior"], options={"rho": 1.0}, rewards=given["scored"])
    assert list(found.meta["posterior.coefficients"]) == ["follows"]
    assert found.meta["posterior.engine"] == "none"
    b = found.meta["posterior.coefficients"]["follows"]["value"]
    assert b > 0.3
    first, second = given["scored"].score_0, given["scored"].score_1
    lead = b * (first - second) / np.concatenate([first, second]).std()
    won = np.where(table.label > 0.5, 1.0, -1.0)
    gap = stats.truncnorm.mean(-won * lead, np.inf, loc=won * lead)[decided]
    np.testing.assert_allclose(found.weight, gap / gap.mean(), rtol=1e-5)
    assert (found.winner == plain.winner).all()


@pytest.mark.parametrize("kinds", [["fused"], ["posterior"], ["truncated", "shares"]])
def test_controls_keep_what_they_say(given: dict[str, Any], kinds: list[str]) -> None:
    """permute: the same margins and weights, together, on other pairs; constant: the means; the winner stays."""
    rewards = given["scored"] if "shares" not in kinds else None
    plain = signals_of(given["table"], kinds, ratings=given["ratings"], rewards=rewards)
    plain = replace(plain, weight=plain.weight * np.linspace(0.5, 1.5, len(plain)).astype(np.float32))
    dealt, again, other = (controlled(plain, "permute", seed=seed) for seed in (0, 0, 1))

    def rows(signals: Signals) -> np.ndarray:
        lost = np.where(signals.winner == 0, signals.margin_1, signals.margin_0)
        return np.stack([signals.margin, lost, signals.weight], axis=1)

    assert sorted(map(tuple, rows(dealt).tolist())) == sorted(map(tuple, rows(plain).tolist()))
    assert (rows(dealt) == rows(again)).all()
    assert (rows(dealt) != rows(other)).any()
    assert abs(np.corrcoef(rows(dealt)[:, 2], rows(plain)[:, 2])[0, 1]) < 0.2
    flat = controlled(plain, "constant")
    for values, own in zip(rows(flat).T, rows(plain).T, strict=True):
        assert np.ptp(values) == 0
        assert values[0] == pytest.approx(own.astype(np.float64).mean(), rel=1e-7, abs=1e-7)
    for made, name in ((dealt, "permute"), (flat, "constant")):
        assert (made.winner == plain.winner).all()
        assert made.pair_id == plain.pair_id
        assert made.meta["control"] == name
    with pytest.raises(InputError, match="unknown control 'shuffle'"):
        controlled(plain, "shuffle")


@pytest.fixture
def files(tmp_path: Path, given: dict[str, Any]) -> Path:
    table = given["table"]
    pq.write_table(
        pa.table({
            "ranking_id": table.pair_id, "caption": [name[1:] for name in table.image_0], "label_0": table.label,
            "model_0": table.model_0, "model_1": table.model_1, "image_0_uid": table.image_0,
            "image_1_uid": table.image_1, "jpg_0": [b"x"] * COUNT, "jpg_1": [b"y"] * COUNT,
        }),
        tmp_path / "votes.parquet",
    )  # fmt: skip
    rows = [
        Reward(pair, side, each.scorer, each.fingerprint, float(values[k]), "", "", "")
        for each in (given["scored"], given["other"])
        for side, values in enumerate((each.score_0, each.score_1))
        for k, pair in enumerate(table.pair_id)
    ]
    write_rewards(
        tmp_path / "rewards.parquet", rows, {n: ScoredBy(f, True, 1.0) for n, f in (("follows", "f"), ("noise", "g"))}
    )
    return tmp_path


def run(*words: object) -> Any:
    return CliRunner().invoke(build(), [str(word) for word in words])


def test_the_command(files: Path) -> None:
    """All scorers of the file, or those that are named; the card is printed and kept; controls are other files."""
    votes, arena, out = files / "votes.parquet", files / "arena", files / "out.parquet"
    assert run("arena", votes, "--out", arena).exit_code == 0
    asked = ("signals", votes, "--kind", "posterior", "--arena", arena, "--rewards", files / "rewards.parquet")
    done = run(*asked, "--out", out)
    assert done.exit_code == 0, done.output
    assert "posterior: " in done.output
    for word in ("; rho ", "rating ", "follows ", "noise ", "overruled"):
        assert word in done.output, done.output
    assert read_signals(out).rewards == ("follows", "noise")
    one = run(*asked, "--scorer", "follows", "--out", files / "one.parquet")
    assert one.exit_code == 0, one.output
    assert read_signals(files / "one.parquet").rewards == ("follows",)
    dealt = run(*asked, "--control", "permute", "--seed", 3, "--out", files / "dealt.parquet")
    assert dealt.exit_code == 0, dealt.output
    meta = parquet_meta(files / "dealt.parquet")
    assert (meta["control"], meta["control_seed"]) == ("permute", 3)
    assert sorted(read_signals(files / "dealt.parquet").weight) == sorted(read_signals(out).weight)
    assert "is finished" in run(*asked, "--control", "permute", "--seed", 3, "--out", files / "dealt.parquet").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kind", "fused"), "kind fused needs it"),
        (("--kind", "posterior", "--control", "shuffle"), "unknown control 'shuffle'"),
        (("--kind", "posterior", "--seed", "2"), "no effect without --control permute"),
        (("--kind", "posterior", "--form", "both"), "form"),
        (("--kind", "posterior", "--mean-weight", "0"), "mean_weight"),
        (("--kind", "posterior", "--rho", "1.2"), "rho is 1.2"),
    ],
)
def test_what_the_command_refuses(files: Path, words: tuple[str, ...], said: str) -> None:
    votes, arena = files / "votes.parquet", files / "arena"
    assert run("arena", votes, "--out", arena).exit_code == 0
    done = run("signals", votes, "--arena", arena, "--out", files / "out.parquet", *words)
    assert isinstance(done.exception, InputError | SystemExit), done.output
    assert said in str(done.exception) + done.output
    assert not (files / "out.parquet").exists()


@pytest.mark.parametrize("kind", ["posterior", "fused", "image", "truncated"])
def test_a_row_that_stands_for_several_votes(given: dict[str, Any], kind: str) -> None:
    """Counted rows say what as many rows say; a row of no votes says nothing."""
    table: SignalVotes = given["table"]
    count = np.array([1.0, 3.0, 2.0, 1.0] * (COUNT // 4))
    again = np.repeat(np.arange(COUNT), count.astype(int))
    columns = ("model_0", "model_1", "image_0", "image_1")
    repeated = SignalVotes(
        [f"s{k}" for k in range(len(again))], table.label[again],
        *([getattr(table, name)[row] for row in again] for name in columns),
    )  # fmt: skip
    how: dict[str, Any] = {"ratings": given["ratings"], "options": {} if kind == "truncated" else {"rho": 0.4}}
    scored: Rewards = given["scored"]
    rewards = (scored, replace(scored, score_0=scored.score_0[again], score_1=scored.score_1[again]))
    with_rewards = kind in ("posterior", "fused")
    counted = signals_of(replace(table, count=count), [kind], **how, rewards=rewards[0] if with_rewards else None)
    whole = signals_of(repeated, [kind], **how, rewards=rewards[1] if with_rewards else None)
    first = np.flatnonzero(np.r_[True, again[1:] != again[:-1]])
    place = {f"s{k}": i for i, k in enumerate(first)}
    rows = [row for row, pair in enumerate(whole.pair_id) if pair in place]
    for name in ("margin", "winner"):  # what the other side would have got flips a whole row, or one of three
        np.testing.assert_allclose(getattr(counted, name), getattr(whole, name)[rows], rtol=1e-4, atol=1e-5)
    ratio = counted.weight / whole.weight[rows]  # weights have mean 1 over rows, of which there are more
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    without = signals_of(
        replace(table, count=np.where(np.arange(COUNT) % 5 == 0, 0.0, 1.0)), [kind], **how,
        rewards=rewards[0] if with_rewards else None,
    )  # fmt: skip
    if kind != "truncated":
        assert not {f"r{k}" for k in range(0, COUNT, 5)} & {*without.pair_id}


def test_the_order_of_rows_is_of_no_effect(given: dict[str, Any]) -> None:
    """A dealt signal is the same whatever order the votes come in; one that has nothing to deal is refused."""
    table: SignalVotes = given["table"]
    order = rng.numpy_generator(5, "order").permutation(COUNT)
    columns = ("pair_id", "model_0", "model_1", "image_0", "image_1")
    turned = SignalVotes(
        label=table.label[order], **{name: [getattr(table, name)[row] for row in order] for name in columns}
    )
    found = [
        controlled(signals_of(each, ["posterior"], ratings=given["ratings"], options={"rho": 0.4}), "permute", seed=3)
        for each in (table, turned)
    ]
    one, other = (dict(zip(each.pair_id, each.weight.tolist(), strict=True)) for each in found)
    assert one.keys() == other.keys()
    assert max(abs(one[pair] - other[pair]) for pair in one) < 1e-5
    for kind in ("binary", "uniform"):
        with pytest.raises(InputError, match="so a control has no effect"):
            controlled(signals_of(table, [kind]), "permute")


def test_a_scorer_without_rewards_is_refused(given: dict[str, Any]) -> None:
    """What is said of rewards has no effect without any; a weight has none on a margin."""
    for kind in ("posterior", "paper"):
        with pytest.raises(InputError, match="it has no effect without rewards"):
            rewards_for(check_request([kind], {}, ratings=True, rewards=False), None, given["table"], "follows")
    with pytest.raises(InputError, match="no effect on form margin"):
        signals_of(
            given["table"], ["posterior"], options={"form": "margin", "mean_weight": 2.0}, ratings=given["ratings"]
        )


@pytest.mark.parametrize("wrong", ["rewards.parquet", Path("rewards.parquet"), 3])
def test_what_is_no_record_is_refused(given: dict[str, Any], wrong: Any) -> None:
    """A path or a number where votes, ratings or rewards are wanted: one sentence each."""
    votes, ratings = given["votes"], given["ratings"]
    for call in (
        lambda: posterior(wrong, ratings), lambda: posterior(votes, wrong),
        lambda: posterior(votes, ratings, rewards=wrong), lambda: gaps(wrong, ratings, kind="truncated"),
        lambda: gaps(votes, wrong, kind="image"), lambda: rate(wrong),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"is given for|no such file"):
            call()


def test_one_scorer_where_a_kind_takes_one(files: Path, given: dict[str, Any]) -> None:
    done = run(
        "signals", files / "votes.parquet", "--kind", "smoothed", "--rewards", files / "rewards.parquet",
        "--scorer", "follows", "--scorer", "noise", "--out", files / "out.parquet",
    )  # fmt: skip
    assert isinstance(done.exception, InputError)
    assert "2 scorers for kind smoothed" in str(done.exception) + done.output
    assert read_rewards(files / "rewards.parquet", given["table"].pair_id, scorer="noise").scorer == "noise"
