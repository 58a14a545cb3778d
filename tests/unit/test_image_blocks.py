"""Images that no vote connects are inferred block by block: as all at once, in the memory of a block."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from coded_votes import coded
from finepref import Votes, gaps, rate
from finepref.arena import agreement as agreement_module
from finepref.arena import blocks as blocks_module
from finepref.arena.agreement import agreement
from finepref.arena.blocks import image_blocks
from finepref.arena.gap import gaps_both
from finepref.arena.image import duels, image_gaps, image_gaps_both, infer, model_means
from finepref.arena.posterior import posterior
from finepref.core.rng import numpy_generator

MODELS = list("ABCD")
PER_PROMPT = 6


def drawn(prompts: int, votes: int, *, chain: bool = False, seed: int = 0) -> Votes:
    """Votes in random order between the images of a prompt; chain: one more between each image and the next."""
    rng = numpy_generator(seed, "image blocks")
    prompt = rng.integers(0, prompts, votes)
    a = rng.integers(0, PER_PROMPT, votes)
    left, right = prompt * PER_PROMPT + a, prompt * PER_PROMPT + (a + rng.integers(1, PER_PROMPT, votes)) % PER_PROMPT
    if chain:
        ends = np.arange(prompts * PER_PROMPT - 1)
        left, right = np.concatenate([left, ends]), np.concatenate([right, ends + 1])
    order = rng.permutation(len(left))
    name = rng.permutation(prompts * PER_PROMPT)
    left, right = left[order], right[order]
    model = rng.integers(0, len(MODELS), prompts * PER_PROMPT)
    quality = 0.3 * model + rng.normal(size=len(model))
    lead = quality[left] - quality[right] + rng.normal(size=len(left))
    outcome = np.where(np.abs(lead) < 0.2, 0, np.sign(lead))
    return coded(
        model[left], model[right], outcome, models=MODELS, left_image=name[left], right_image=name[right],
        voter=rng.integers(0, 30, len(left)),
    )  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module.slices, "__defaults__", (170,))
    monkeypatch.setattr(blocks_module, "VOTES_PER_BLOCK", 200)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(4))
def test_blocks_are_whole_groups(seed: int) -> None:
    """Every vote is in one block, in order; scipy's groups are never cut."""
    votes = drawn(150, 1500, seed=seed)
    left, right = votes.images
    found = list(image_blocks(votes))
    assert len(found) > 4
    assert np.sort(np.concatenate(found)).tolist() == list(range(len(votes)))
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(votes.image_count,) * 2)
    group = connected_components(graph, directed=False)[1][left]
    number = np.zeros(len(votes), dtype=np.int64)
    for block, rows in enumerate(found):
        assert (np.diff(rows) > 0).all()
        assert 150 <= len(rows) < 450
        number[rows] = block
    assert len({*zip(group.tolist(), number.tolist(), strict=True)}) == len({*group.tolist()})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(3))
def test_many_groups_are_inferred_as_all_at_once(seed: int) -> None:
    """At the fixed point, to what its inference leaves open; a block alone, bit for bit."""
    votes = drawn(150, 1500, seed=seed)
    ratings = rate(votes)
    mean = model_means(votes, ratings)
    fit = infer(duels(votes, mean)[0], 0.6, tolerance=1e-10)
    left, right = votes.images
    at_once = ratings.c * votes.outcome * (fit.mean[left] - fit.mean[right])
    at_once[votes.outcome == 0] = np.nan
    fine = image_gaps(votes, ratings, 0.6, prior_mean=mean)
    assert fine == pytest.approx(at_once, abs=1e-6, nan_ok=True)
    found = image_gaps(votes, ratings, 0.6)
    assert found == pytest.approx(at_once, abs=2e-2, nan_ok=True)
    for rows in image_blocks(votes):
        part = votes.take(rows)
        alone = infer(duels(part, mean)[0], 0.6).mean
        one, other = part.images
        expected = ratings.c * part.outcome * (alone[one] - alone[other])
        decided = part.outcome != 0
        assert found[rows][decided].tolist() == expected[decided].tolist()


@pytest.mark.parametrize("kind", ["gaps", "both", "posterior"])
@pytest.mark.parametrize("chain", [True, False])
def test_blocks_and_memory_agree(kind: str, chain: bool, request: pytest.FixtureRequest) -> None:
    """All entries: one giant group bit for bit, many groups at the fixed point."""
    votes = drawn(120, 1200, chain=chain)
    ratings = rate(votes)
    mean = model_means(votes, ratings)

    def found() -> np.ndarray:
        if kind == "gaps":
            return image_gaps(votes, ratings, 0.5, prior_mean=mean)
        if kind == "both":
            return np.concatenate(image_gaps_both(votes, ratings, 0.5, prior_mean=mean))
        told = posterior(votes, ratings, rho=0.5)
        return np.concatenate([told.difference, told.probability])

    whole = found()
    plain = gaps(votes, ratings, kind="image", rho=0.5), *gaps_both(votes, ratings, kind="image", rho=0.5)
    request.getfixturevalue("small")
    assert (len(list(image_blocks(votes))) == 1) == chain
    again = found()
    if chain and kind != "posterior":  # whose prior is summed slice by slice
        assert np.array_equal(again, whole, equal_nan=True)
        split = gaps(votes, ratings, kind="image", rho=0.5), *gaps_both(votes, ratings, kind="image", rho=0.5)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(plain, split, strict=True))
    else:
        assert again == pytest.approx(whole, abs=1e-6, nan_ok=True)


def test_inference_needs_the_memory_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the votes: at most 24 bytes more a vote; all at once it is 180."""
    monkeypatch.setattr(blocks_module.slices, "__defaults__", (2000,))
    monkeypatch.setattr(blocks_module, "VOTES_PER_BLOCK", 2000)

    def peak(votes: Votes) -> int:
        ratings, out = rate(votes), np.empty(len(votes))
        tracemalloc.start()
        image_gaps(votes, ratings, 0.5, out=out)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = drawn(1500, 15_000), drawn(6000, 60_000)
    assert peak(many) - peak(few) < 24 * 45_000
    monkeypatch.setattr(blocks_module, "VOTES_PER_BLOCK", 10**9)
    assert peak(many) - peak(few) > 100 * 45_000


@pytest.mark.parametrize("unit", ["images", "prompt and models", "models"])
@pytest.mark.parametrize("weight", [None, "whole", "shares"])
def test_agreement_in_passes(unit: str, weight: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons looked at a part after the other give the same record."""
    votes, rng = drawn(40, 1500), numpy_generator(0, "passes")
    if unit != "images":
        votes = replace(votes, left_image=None, right_image=None)
    if unit == "prompt and models":
        votes = replace(votes, prompt=rng.integers(-1, 40, len(votes)))
    if weight is not None:
        held = rng.integers(1, 4, len(votes)).astype(float)
        votes = replace(votes, weight=held if weight == "whole" else held + 0.5)
    expected = agreement(votes)
    assert expected is not None
    assert expected.unit == unit
    monkeypatch.setattr(agreement_module, "TOGETHER", 100)
    assert agreement(votes) == expected
