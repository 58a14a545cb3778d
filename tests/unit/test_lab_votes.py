"""Voters and votes: the Thurstone curve against scipy, the Pick-a-Pic v2 schema, determinism, recurring images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.stats import norm

from finepref.core import rng
from finepref.lab import ballots as votes
from finepref.lab import crowd as voters
from finepref.lab import makers, world
from finepref.models.load import open_pipeline

PROMPTS = world.prompts("train")[:20]
NAMES = ("a", "b", "c", "d")

# The data card of Pick-a-Pic v2: names, order and dtypes.
CARD = """are_different bool, best_image_uid string, caption string, created_at timestamp[ns], has_label bool,
image_0_uid string, image_0_url string, image_1_uid string, image_1_url string, jpg_0 binary, jpg_1 binary,
label_0 double, label_1 double, model_0 string, model_1 string, ranking_id int64, user_id int64,
num_example_per_prompt int64, __index_level_0__ int64"""


def drawn(seed: int = 0) -> dict[str, np.ndarray]:
    return {
        name: np.stack([world.draw(prompt, rng.numpy_generator(seed, name, prompt)) for prompt in PROMPTS])
        for name in NAMES
    }


@pytest.fixture(scope="module")
def table():
    return votes.vote_table(drawn(), PROMPTS, seed=5, votes=200)


def test_schema_is_that_of_the_data_card(table, tmp_path):
    wanted = [tuple(entry.split()) for entry in CARD.replace("\n", " ").split(",")]
    assert [(field.name, str(field.type)) for field in table.schema] == wanted
    pq.write_table(table, tmp_path / "votes.parquet")
    assert pq.read_schema(tmp_path / "votes.parquet").equals(table.schema)


def test_rows_are_consistent(table):
    rows = table.to_pylist()
    assert len({row["ranking_id"] for row in rows}) == len(rows) == 200
    prompts = [row["caption"] for row in rows]
    for row in rows:
        assert row["label_0"] + row["label_1"] == 1.0
        winner = {1.0: row["image_0_uid"], 0.0: row["image_1_uid"], 0.5: "tie"}[row["label_0"]]
        assert row["best_image_uid"] == winner
        assert row["image_0_uid"] != row["image_1_uid"]
        assert row["model_0"] != row["model_1"]
        assert row["num_example_per_prompt"] == prompts.count(row["caption"])
    assert set(prompts) == set(PROMPTS)
    assert {0.0, 0.5, 1.0} == set(table["label_0"].to_pylist())


def test_an_image_recurs_with_the_same_bytes_maker_and_prompt(table):
    seen: dict[str, set] = {}
    count: dict[str, int] = {}
    for row in table.to_pylist():
        for side in "01":
            uid = row[f"image_{side}_uid"]
            seen.setdefault(uid, set()).add((row[f"jpg_{side}"], row[f"model_{side}"], row["caption"]))
            count[uid] = count.get(uid, 0) + 1
    assert len(seen) == len(NAMES) * len(PROMPTS)
    assert all(len(facts) == 1 for facts in seen.values())
    assert np.mean(list(count.values())) == 400 / 80


def test_bytes_decode_to_the_very_pixels(table):
    images = drawn()
    row = table.to_pylist()[7]
    pixels = np.asarray(Image.open(io.BytesIO(row["jpg_0"])))
    assert np.array_equal(pixels, images[row["model_0"]][PROMPTS.index(row["caption"])])


def test_same_seed_same_table_other_seed_other_votes(table):
    assert votes.vote_table(drawn(), PROMPTS, seed=5, votes=200).equals(table)
    assert not votes.vote_table(drawn(), PROMPTS, seed=6, votes=200)["label_0"].equals(table["label_0"])


def test_pairs_cover_every_meeting_before_repeating_one():
    left, right = votes.pairs(3, 4, 18 + 5, seed=0)
    met = [tuple(sorted(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)]
    counts = sorted(met.count(pair) for pair in set(met))
    assert counts == [1] * 13 + [2] * 5
    assert all(a // 4 == b // 4 for a, b in met)


@pytest.mark.parametrize("gap", [0.0, 0.4, 1.3])
def test_thurstone_curve_and_tie_zone(gap):
    """Shares of wins and ties of equal voters equal the normal probabilities (20,000 votes, 5 standard errors)."""
    zeros = np.zeros(2)
    truth = world.Judgement(zeros, zeros, np.array([gap / 1.3, 0.0]), zeros, zeros)
    equal = voters.Crowd(np.array([[1.3, 0.7, 1.3]]), np.array([1.0]), np.array([0.2]))
    n = 20_000
    left, right = np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64)
    _, share = voters.vote(equal, truth, left, right, seed=1)
    for value, wanted in (
        (1.0, norm.sf(0.2 - gap)),
        (0.0, norm.cdf(-0.2 - gap)),
        (0.5, norm.cdf(0.2 - gap) - norm.cdf(-0.2 - gap)),
    ):
        assert np.mean(share == value) == pytest.approx(wanted, abs=5 * np.sqrt(0.25 / n))


def test_voters_differ_a_little():
    people = voters.crowd(0, voters=4_000)
    np.testing.assert_allclose(np.median(people.taste, axis=0), list(world.TASTE.values()), rtol=0.03)
    assert np.std(np.log(people.noise)) == pytest.approx(0.25, rel=0.1)
    assert np.median(people.zone) == pytest.approx(0.2, rel=0.05)


def test_makers_in_threads_share_no_state() -> None:
    """Scheduler and tokenizer, which change while sampling, belong to each thread; networks are shared."""
    pipeline = open_pipeline("lab")
    own = makers.own_state(pipeline)
    assert own.unet is pipeline.unet
    assert own.text_encoder is pipeline.text_encoder
    assert own.scheduler is not pipeline.scheduler
    assert own.tokenizer is not pipeline.tokenizer
    own.tokenizer(["a", "a red circle"], padding="longest")
    length = len(pipeline.tokenizer("", padding="max_length", max_length=16, truncation=True)["input_ids"])
    assert length == 16


def test_other_votes_are_not_replaced(tmp_path: Path) -> None:
    """The same call is done; another seed, count or number of prompts is refused without --overwrite."""
    from typer.testing import CliRunner

    from finepref.cli.main import build

    def call(*words: str) -> str:
        told = CliRunner().invoke(build(["lab"]), ["lab", "votes", "--out", str(tmp_path / "v.parquet"), *words])
        return str(told.exception or told.output)

    call("--count", "6", "--prompts", "2")
    before = (tmp_path / "v.parquet").read_bytes()
    assert "v.parquet" in call("--count", "6", "--prompts", "2")
    for words, said in (
        (("--count", "7", "--prompts", "2"), "votes 6, now 7"),
        (("--count", "6", "--prompts", "3"), "prompts 2, now 3"),
        (("--count", "6", "--prompts", "2", "--seed", "1"), "seed 0, now 1"),
    ):  # fmt: skip
        assert said in call(*words)
        assert (tmp_path / "v.parquet").read_bytes() == before
    call("--count", "7", "--prompts", "2", "--overwrite")
    assert (tmp_path / "v.parquet").read_bytes() != before
