"""Signals: each kind by hand, their composition, the sidecar, refusals, the command."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from finepref import Ratings, Votes, gaps, rate
from finepref.arena.rho import estimate_rho
from finepref.cli.main import build
from finepref.core import rng
from finepref.core.errors import InputError
from finepref.core.files import parquet_meta
from finepref.formats.rewards import Rewards
from finepref.formats.signals import read_signals, write_signals
from finepref.formats.tables import file_table
from finepref.signals import parts
from finepref.signals.make import check_request, combine, signals_of
from finepref.signals.parts import SignalVotes
from finepref.signals.smooth import PICKSCORE_EXTREMES, extremes, smoothed

COUNT = 60
MODELS = ("A", "B", "C")


@pytest.fixture(scope="module")
def table() -> SignalVotes:
    """60 votes among three makers on seven prompts, ties included, images recurring, one row without a vote."""
    g = rng.numpy_generator(5, "votes")
    left = g.integers(0, 3, COUNT)
    right = (left + 1 + g.integers(0, 2, COUNT)) % 3
    label = g.choice([1.0, 0.0, 0.5], COUNT, p=[0.5, 0.35, 0.15])
    label[11] = np.nan
    return SignalVotes(
        pair_id=[f"r{k}" for k in range(COUNT)],
        label=label,
        model_0=[MODELS[k] for k in left],
        model_1=[MODELS[k] for k in right],
        image_0=[f"{MODELS[k]}{row % 7}" for row, k in enumerate(left)],
        image_1=[f"{MODELS[k]}{row % 7}" for row, k in enumerate(right)],
    )


@pytest.fixture(scope="module")
def votes(table: SignalVotes) -> Votes:
    """The same votes as the arena sees them."""
    rows = ~np.isnan(table.label)
    return Votes.from_columns(
        left=np.array(table.model_0)[rows],
        right=np.array(table.model_1)[rows],
        outcome=table.label[rows],
        left_image=np.array(table.image_0)[rows],
        right_image=np.array(table.image_1)[rows],
    )


@pytest.fixture(scope="module")
def ratings(votes: Votes) -> Ratings:
    return rate(votes)


@pytest.fixture(scope="module")
def rewards() -> Rewards:
    """Scores with one missing and one pair equal."""
    g = rng.numpy_generator(6, "scores")
    first, second = 0.2 + 0.02 * g.normal(size=COUNT), 0.2 + 0.02 * g.normal(size=COUNT)
    first[3] = np.nan
    second[4] = first[4]
    return Rewards(score_0=first, score_1=second, scorer="pickscore", fingerprint="f")


def test_binary(table: SignalVotes) -> None:
    """Winner by vote, margin 0, weight 1; ties and rows without a vote are not there."""
    found = signals_of(table, ["binary"])
    decided = [row for row, label in enumerate(table.label) if label in (0.0, 1.0)]
    assert found.pair_id == tuple(f"r{row}" for row in decided)
    assert found.winner.tolist() == [int(table.label[row] == 0.0) for row in decided]
    assert not found.margin_0.any()
    assert not found.margin_1.any()
    assert (found.weight == 1).all()
    assert (found.label_0 == -1).all()
    assert found.meta["kinds"] == ["binary"]
    assert found.meta["ties"] == int((table.label == 0.5).sum())
    assert found.meta["pairs"] + found.meta["ties"] + found.meta["no_value"] == COUNT == found.meta["votes"]


@pytest.mark.parametrize("margin", [None, 0.0, 2.5])
def test_uniform(table: SignalVotes, margin: float | None) -> None:
    """One number for both sides; 0 is a number."""
    found = signals_of(table, ["uniform"], options={} if margin is None else {"margin": margin})
    assert set(found.margin_0) == set(found.margin_1) == {1.0 if margin is None else margin}


@pytest.mark.parametrize("kind", ["paper", "truncated", "selection", "image"])
def test_arena_margins_are_the_arenas(table: SignalVotes, votes: Votes, ratings: Ratings, kind: str) -> None:
    """The winner's margin is the arena's gap of that vote."""
    found = signals_of(table, [kind], ratings=ratings)
    gap = gaps(votes, ratings, kind=kind)
    np.testing.assert_allclose(found.margin, gap[~np.isnan(gap)], rtol=1e-6)
    assert not np.allclose(found.margin_0, found.margin_1)
    assert found.meta[f"{kind}.engine"] == "batch"


@pytest.mark.parametrize("kind", ["selection", "image"])
def test_rho_acts_and_is_kept(table: SignalVotes, votes: Votes, ratings: Ratings, kind: str) -> None:
    """A given rho is the arena's, an estimated one is written down; without image names it cannot be estimated."""
    given = signals_of(table, [kind], ratings=ratings, options={"rho": 0.25})
    gap = gaps(votes, ratings, kind=kind, rho=0.25)
    np.testing.assert_allclose(given.margin, gap[~np.isnan(gap)], rtol=1e-6)
    assert given.meta[f"{kind}.rho"] == 0.25
    found = signals_of(table, [kind], ratings=ratings)
    assert found.meta[f"{kind}.rho"] == estimate_rho(votes, ratings, seed=0).rho
    assert not np.allclose(found.margin, given.margin)
    nameless = replace(table, image_0=[None] * COUNT)
    with pytest.raises(InputError, match=f"kind {kind}: the votes do not name their images"):
        signals_of(nameless, [kind], ratings=ratings)


def test_relabelling_takes_the_margin_of_the_winner_that_is_used(
    table: SignalVotes, ratings: Ratings, rewards: Rewards
) -> None:
    """Where the reward turns a vote round, the margin is the gap had the other side won."""
    alone, both = (
        signals_of(table, kinds, ratings=ratings, rewards=rewards if "relabel" in kinds else None)
        for kinds in (["paper"], ["paper", "relabel"])
    )
    index = {pair: row for row, pair in enumerate(both.pair_id)}
    turned = 0
    for row, pair in enumerate(alone.pair_id):
        if pair in ("r3", "r4"):
            assert pair not in index
            continue
        other = index[pair]
        wanted = 0 if rewards.score_0[int(pair[1:])] > rewards.score_1[int(pair[1:])] else 1
        assert both.winner[other] == wanted
        assert both.margin[other] == (alone.margin_0 if wanted == 0 else alone.margin_1)[row]
        if wanted != alone.winner[row]:
            turned += 1
            assert both.margin[other] != alone.margin[row]
    assert turned > 5
    assert "r11" in index  # nobody voted, the reward decides


def test_reward_margin(table: SignalVotes, rewards: Rewards) -> None:
    """Human winners, z-scored difference of rewards, negative where they disagree."""
    found = signals_of(table, ["reward-margin"], rewards=rewards)
    known = np.isfinite(rewards.score_0) & np.isfinite(rewards.score_1)
    scores = np.concatenate([rewards.score_0[known], rewards.score_1[known]])
    assert "r3" not in found.pair_id
    for row, pair in enumerate(found.pair_id):
        source = int(pair[1:])
        sides = rewards.score_0[source], rewards.score_1[source]
        winner = found.winner[row]
        assert winner == int(table.label[source] == 0.0)
        assert found.margin[row] == pytest.approx((sides[winner] - sides[1 - winner]) / scores.std(), rel=1e-5)
    assert (found.margin < 0).any()
    assert found.meta["reward-margin.scorer"] == "pickscore"


def test_smoothed_by_hand() -> None:
    """p = softmax of the normalised pair, weight gamma (2p - 1): SmPO Eq. 8-12 by plain exponentials."""
    low, high = 0.1, 0.3
    first, second = np.array([0.22, 0.15, 0.2, 0.3]), np.array([0.18, 0.29, 0.2, 0.1])
    found = smoothed(first, second, low=low, high=high, gamma=10.0)
    assert found.winner.tolist() == [0, 1, 1, 0]
    for row in range(4):
        r = sorted(((first[row] - low) / (high - low), (second[row] - low) / (high - low)), reverse=True)
        p = np.exp(r[0]) / (np.exp(r[0]) + np.exp(r[1]))
        assert found.p_win[row] == pytest.approx(p, rel=1e-12)
        assert found.weight[row] == pytest.approx(10 * (2 * p - 1), rel=1e-9, abs=1e-14)
    assert found.weight[2] == 0
    assert found.weight[3] == pytest.approx(4.621171572600098, rel=1e-12)
    assert (smoothed(first, second, low=low, high=high, gamma=0.0).weight == 0).all()


def test_smoothed_kind(table: SignalVotes, rewards: Rewards) -> None:
    """Extremes over all images, kept in the footer; quantile clipping; published extremes on raw cosines only."""
    found = signals_of(table, ["smoothed"], rewards=rewards)
    scores = np.concatenate([rewards.score_0, rewards.score_1])
    assert found.meta["smoothed.reward_low"] == np.nanmin(scores)
    assert found.meta["smoothed.reward_high"] == np.nanmax(scores)
    assert found.weight.max() <= 4.6212
    assert found.weight.min() >= 0
    assert found.weight[found.pair_id.index("r4")] == 0
    assert "r3" not in found.pair_id
    clipped = signals_of(table, ["smoothed"], rewards=rewards, options={"quantile": 0.1, "gamma": 2.0})
    assert clipped.meta["smoothed.reward_high"] == pytest.approx(np.nanquantile(scores, 0.9))
    assert clipped.weight.max() <= 0.92424
    official = signals_of(table, ["smoothed"], rewards=rewards, options={"extremes": "pickscore"})
    assert (official.meta["smoothed.reward_low"], official.meta["smoothed.reward_high"]) == PICKSCORE_EXTREMES
    scaled = Rewards(score_0=100 * rewards.score_0, score_1=100 * rewards.score_1, scorer="s", fingerprint="f")
    with pytest.raises(InputError, match="far outside PickScore's raw cosines"):
        signals_of(table, ["smoothed"], rewards=scaled, options={"extremes": "pickscore"})


def test_composition(table: SignalVotes, ratings: Ratings, rewards: Rewards) -> None:
    """Margin of one kind and weight of another, for the winner of the second."""
    found = signals_of(table, ["paper", "smoothed"], ratings=ratings, rewards=rewards)
    weight = signals_of(table, ["smoothed"], rewards=rewards)
    assert found.pair_id == weight.pair_id
    assert (found.weight == weight.weight).all()
    assert (found.winner == weight.winner).all()
    assert (found.margin > 0).all()
    with pytest.raises(InputError, match="paper and uniform both set the margin"):
        signals_of(table, ["paper", "uniform"], ratings=ratings)
    with pytest.raises(InputError, match="relabel and smoothed both set the winner"):
        signals_of(table, ["relabel", "smoothed"], rewards=rewards)


def test_kto_labels_by_hand() -> None:
    """a beats b, b beats c, c and d tie, a loses to e: any_win, only_wins and per_pair."""
    label, none = np.array([1.0, 1.0, 0.5, 0.0, np.nan]), [None] * 5
    images = {"image_0": ["a", "b", "c", "a", "f"], "image_1": ["b", "c", "d", "e", "g"]}
    votes = SignalVotes(pair_id="12345", label=label, model_0=none, model_1=none, **images)
    found = {rule: parts.desirable(votes, desirable=rule) for rule in ("any_win", "only_wins", "per_pair")}
    assert found["any_win"].label_0.tolist() == [1, 1, 0, 1, -1]
    assert found["any_win"].label_1.tolist() == [1, 0, -1, 1, -1]
    assert found["only_wins"].label_0.tolist() == [-1, -1, 0, -1, -1]
    assert found["only_wins"].label_1.tolist() == [-1, 0, -1, 1, -1]
    assert found["per_pair"].label_0.tolist() == [1, 1, -1, 0, -1]
    assert found["per_pair"].label_1.tolist() == [0, 0, -1, 1, -1]
    assert found["any_win"].meta == {"desirable": "any_win", "desirable_images": 3, "undesirable_images": 1}


def test_kto_sidecar(table: SignalVotes, tmp_path: Path) -> None:
    """Labels travel as nullable int8; an image has one label wherever it occurs."""
    found = signals_of(table, ["kto"], options={"desirable": "only_wins"})
    write_signals(tmp_path / "s.parquet", found, provenance={})
    back = read_signals(tmp_path / "s.parquet")
    stored = pq.read_table(tmp_path / "s.parquet")
    assert stored["label_0"].null_count == int((found.label_0 == -1).sum()) > 0
    assert stored.schema.field("winner").type == pa.int8()
    assert stored.schema.field("margin_0").type == pa.float32()
    assert back.label_0.tolist() == found.label_0.tolist()
    labels: dict[str, set[int]] = {}
    rows = [int(pair[1:]) for pair in back.pair_id]
    for row, one, two in zip(rows, back.label_0.tolist(), back.label_1.tolist(), strict=True):
        labels.setdefault(str(table.image_0[row]), set()).add(one)
        labels.setdefault(str(table.image_1[row]), set()).add(two)
    assert all(len(values) == 1 for values in labels.values())


def test_sidecar_round_trip(table: SignalVotes, ratings: Ratings, tmp_path: Path) -> None:
    """What is written is read; the footer carries the kinds and the provenance."""
    found = signals_of(table, ["paper"], ratings=ratings)
    write_signals(tmp_path / "s.parquet", found, provenance={"seed": 3})
    back = read_signals(tmp_path / "s.parquet")
    assert back.pair_id == found.pair_id
    for name in ("winner", "margin_0", "margin_1", "weight"):
        assert (getattr(back, name) == getattr(found, name)).all()
    meta = parquet_meta(tmp_path / "s.parquet")
    assert meta["kinds"] == ["paper"]
    assert meta["provenance"] == {"seed": 3}
    taken = back.take(np.array([4, 0]))
    assert taken.pair_id == (back.pair_id[4], back.pair_id[0])
    assert taken.margin.tolist() == [back.margin[4], back.margin[0]]
    assert len(taken) == 2


@pytest.mark.parametrize(
    ("kinds", "own", "given", "fault"),
    [
        (["papr"], {}, {}, "did you mean 'paper'"),
        ([], {}, {}, "name each once"),
        (["binary", "paper"], {}, {"ratings": True}, "binary alone"),
        (["paper", "paper"], {}, {"ratings": True}, "name each once"),
        (["paper"], {}, {}, r"ratings \(--arena\): kind paper needs it"),
        (["smoothed"], {}, {}, r"rewards \(--rewards\): kind smoothed needs it"),
        (["binary"], {}, {"rewards": True}, "no effect on binary"),
        (["uniform"], {"gamma": 0.0}, {}, "gamma: it has no effect"),
        (["paper"], {"margin": 0.0}, {"ratings": True}, "margin: it has no effect"),
        (["binary"], {"desirable": "any_win"}, {}, "desirable: it has no effect"),
        (["uniform"], {"margen": 1.0}, {}, "margen: no kind has such an option; did you mean 'margin'"),
        (["uniform"], {"margin": float("nan")}, {}, "margin: nan is not possible"),
        (["smoothed"], {"quantile": 0.5}, {"rewards": True}, "quantile: 0.5 is not possible"),
    ],
)
def test_requests_refused(kinds: list[str], own: dict[str, Any], given: dict[str, bool], fault: str) -> None:
    """Unknown words, clashes and options without effect are refused before anything is read; 0 counts as given."""
    inputs = {"ratings": False, "rewards": False, **given}
    with pytest.raises(InputError, match=fault):
        check_request(kinds, own, **inputs)


def test_data_refused(table: SignalVotes, ratings: Ratings) -> None:
    """Labels that are none, ids twice, nothing left, no model or image names, scores that say nothing."""
    with pytest.raises(InputError, match=r"row 1.*1\.3 is not in"):
        combine(["a", "b"], [1.0, 1.3], {})
    with pytest.raises(InputError, match="occurs twice"):
        combine(["a", "a"], [1.0, 0.0], {})
    with pytest.raises(InputError, match="no pair is left of 2 votes"):
        combine(["a", "b"], [0.5, 0.5], {})
    nameless = SignalVotes(
        pair_id=table.pair_id,
        label=table.label,
        model_0=[None] * COUNT,
        model_1=table.model_1,
        image_0=[None] * COUNT,
        image_1=table.image_1,
    )
    with pytest.raises(InputError, match="name no models"):
        signals_of(nameless, ["paper"], ratings=ratings)
    with pytest.raises(InputError, match="do not name their images"):
        signals_of(nameless, ["kto"])
    with pytest.raises(InputError, match=r"desirable: 'any_wins' is not possible; .*'any_win'"):
        signals_of(table, ["kto"], options={"desirable": "any_wins"})
    for scores, fault in (([1.0, 1.0], "equal"), ([np.nan], "no image")):
        with pytest.raises(InputError, match=fault):
            extremes(scores)
    with pytest.raises(InputError, match=r"kind mine: it gives \(3,\) values of weight for 2 votes"):
        combine(["a", "b"], [1.0, 0.0], {"mine": parts.Part(weight=np.ones(3))})
    with pytest.raises(InputError, match="negative"):
        smoothed([1.0], [2.0], low=0, high=3, gamma=-1)
    with pytest.raises(InputError, match="not above"):
        smoothed([1.0], [2.0], low=3, high=3)
    with pytest.raises(InputError, match="not finite"):
        smoothed([np.nan], [2.0], low=0, high=3)


def test_a_vote_without_a_model_gets_no_margin(table: SignalVotes, ratings: Ratings) -> None:
    """It is left out of an arena signal and counted, not given a neighbour's margin."""
    row = next(r for r, label in enumerate(table.label) if label in (0.0, 1.0))
    models = list(table.model_0)
    models[row] = None
    holed = SignalVotes(
        pair_id=table.pair_id,
        label=table.label,
        model_0=models,
        model_1=table.model_1,
        image_0=table.image_0,
        image_1=table.image_1,
    )
    full, found = (signals_of(t, ["paper"], ratings=ratings) for t in (table, holed))
    assert f"r{row}" not in found.pair_id
    assert found.meta["no_value"] == full.meta["no_value"] + 1
    rest = full.take(np.array([full.pair_id.index(pair) for pair in found.pair_id]))
    assert (rest.margin == found.margin).all()


def test_a_folder_of_other_votes_is_read_again(table: SignalVotes, tmp_path: Path) -> None:
    """The sidecar of one folder is not taken for that of another, nor for the folder's earlier content."""
    app, out = build(), tmp_path / "s.parquet"
    for name, count in (("a", 3), ("b", 5)):
        (tmp_path / name).mkdir()
        _write_votes(table, tmp_path / name / "votes.parquet", count)
    footers = []
    for folder, pairs in (("a", 3), ("a", 3), ("b", 5)):
        words = ["signals", str(tmp_path / folder), "--out", str(out), "--kind", "uniform"]
        assert CliRunner().invoke(app, words).exit_code == 0
        assert len(read_signals(out)) == pairs
        footers.append(parquet_meta(out)["provenance"])
    assert footers[0] == footers[1]
    assert footers[0]["votes_sha256"] != footers[2]["votes_sha256"]
    _write_votes(table, tmp_path / "b" / "votes.parquet", 4)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(read_signals(out)) == 4


def test_votes_behind_a_pattern_are_read_again(table: SignalVotes, tmp_path: Path) -> None:
    """Exchanged or added files of a quoted pattern are seen; unchanged ones are not read twice."""
    (tmp_path / "votes").mkdir()
    out, words = tmp_path / "s.parquet", ["signals", str(tmp_path / "votes" / "*.parquet"), "--kind", "uniform"]
    written = []
    for name, count, pairs in (("a", 3, 3), ("a", 5, 5), (None, 0, 5), ("b", 2, 7)):
        if name is not None:
            _write_votes(table, tmp_path / "votes" / f"{name}.parquet", count, first=0 if name == "a" else 10)
        assert CliRunner().invoke(build(), [*words, "--out", str(out)]).exit_code == 0
        assert len(read_signals(out)) == pairs
        written.append(out.stat().st_mtime_ns)
    assert written[1] == written[2]


def test_votes_of_the_hub_are_read_again_at_another_commit(
    table: SignalVotes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is the hub's version; the table is read from a file here, which stands for what the hub streams."""
    out, file = tmp_path / "s.parquet", tmp_path / "stream.parquet"
    words = ["signals", "owner/votes", "--kind", "uniform", "--out", str(out)]
    held = {"commit": ""}
    monkeypatch.setattr(
        "finepref.formats.sources.hub_table", lambda name, split: replace(file_table(file), version=held["commit"])
    )
    for commit, count, pairs in (("c1", 3, 3), ("c1", 5, 3), ("c2", 5, 5)):
        held["commit"] = commit
        _write_votes(table, file, count)
        assert CliRunner().invoke(build(), words).exit_code == 0
        assert len(read_signals(out)) == pairs


def _write_votes(table: SignalVotes, file: Path, count: int, *, first: int = 0) -> None:
    """Decided votes, as a Pick-a-Pic file."""
    rows = [row for row in range(COUNT) if table.label[row] in (0.0, 1.0)][first : first + count]
    columns: dict[str, Any] = {
        "ranking_id": [table.pair_id[row] for row in rows],
        "caption": ["a prompt"] * count,
        "jpg_0": [b"0"] * count,
        "jpg_1": [b"1"] * count,
        "label_0": [table.label[row] for row in rows],
        "label_1": [1 - table.label[row] for row in rows],
    }
    pq.write_table(pa.table(columns), file)


def test_command(table: SignalVotes, tmp_path: Path) -> None:
    """A Pick-a-Pic file to its sidecar; a second run is skipped, a wrong word exits 2 and writes nothing."""
    label = np.where(np.isnan(table.label), 0.5, table.label)
    data = pa.table(
        {
            "ranking_id": list(table.pair_id),
            "caption": ["a prompt"] * COUNT,
            "jpg_0": [b"0"] * COUNT,
            "jpg_1": [b"1"] * COUNT,
            "label_0": label,
            "label_1": 1 - label,
            "image_0_uid": list(table.image_0),
            "image_1_uid": list(table.image_1),
            "model_0": list(table.model_0),
            "model_1": list(table.model_1),
        }
    )
    pq.write_table(data, tmp_path / "votes.parquet")

    words = ["signals", str(tmp_path / "votes.parquet"), "--out", str(tmp_path / "s.parquet"), "--kind"]
    wrong = subprocess.run([sys.executable, "-m", "finepref", *words, "unifrom"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "did you mean 'uniform'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert not (tmp_path / "s.parquet").exists()

    app = build()
    assert CliRunner().invoke(app, [*words, "uniform", "--margin", "0.5", "--kind", "kto"]).exit_code == 0
    found = read_signals(tmp_path / "s.parquet")
    assert set(found.margin) == {0.5}
    assert found.pair_id == signals_of(table, ["binary"]).pair_id
    written = (tmp_path / "s.parquet").stat().st_mtime_ns
    assert CliRunner().invoke(app, [*words, "uniform", "--margin", "0.5", "--kind", "kto"]).exit_code == 0
    assert (tmp_path / "s.parquet").stat().st_mtime_ns == written
    assert CliRunner().invoke(app, [*words, "uniform", "--margin", "0"]).exit_code == 0
    assert set(read_signals(tmp_path / "s.parquet").margin) == {0.0}
