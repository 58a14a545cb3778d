"""Scorers' parts on drawn input: token rows, image sizes, ratings."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from finepref.arena.freeforall import rank_game
from finepref.evaluate.scorers.ksort import agreement, update
from finepref.evaluate.scorers.preprocess import MEAN, STD, VARIANTS, pixels
from finepref.evaluate.scorers.tokenizer import ClipText, clean, clip_text
from published_files import clip_bpe, original
from tiny_scorers import picture

ODD = "\u017f\u0345"  # long s, which OpenAI's pattern takes for an s, and a mark that is lower-cased to a letter
letters = st.characters(exclude_categories=("Cs", "Cn", "Co"), exclude_characters=ODD)
ratings = st.tuples(st.floats(0, 50), st.floats(0.3, 9))


@functools.cache
def both() -> tuple[Any, ClipText]:
    bpe = clip_bpe()
    if bpe is None:
        pytest.skip("the package openai-clip is not installed")
    return original("simple_tokenizer").SimpleTokenizer(), clip_text(bpe, cleaned=True)


@settings(max_examples=300, deadline=None)
@given(st.text(letters, max_size=60))
@example("ΟΔΟΣ")
@example("“curly” &amp;amp; ＦＵＬＬ　ｗｉｄｔｈ")
@example("a" * 400)
def test_cleaned_ids_are_openais(text: str) -> None:
    """Whatever is typed (special tokens aside, where the two originals themselves differ)."""
    if "<|" in text:
        return
    theirs, ours = both()
    ids = [49406, *theirs.encode(text), 49407]
    assert ours.ids([text])[0] == (ids if len(ids) <= 77 else [*ids[:76], 49407])


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_cleaning_leaves_no_spaces_to_collapse(text: str) -> None:
    found = clean(text)
    assert found == found.strip()
    assert "  " not in found
    assert unicodedata.is_normalized("NFC", clean(found)) or "&" in text


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(VARIANTS))
def test_every_size_gives_a_square_in_range(width: int, height: int, variant: str) -> None:
    found = pixels(picture(width, height), variant, size=28)
    assert found.shape == (3, 28, 28)
    value = found * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    slack = 1e-5 if variant.startswith("pil") else 0.6  # bicubic overshoot is not clamped
    assert -slack <= value.min()
    assert value.max() <= 1 + slack


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["tensor_aa", "tensor_noaa"]))
def test_turning_the_image_turns_the_result(width: int, height: int, variant: str) -> None:
    """Rows and columns are treated alike (but for strips of one pixel, which torch's antialiasing does not resize)."""
    assume(28 * min(width, height) > 2 * max(width, height))
    image = picture(width, height)
    other = image.transpose(Image.Transpose.TRANSPOSE)
    found, turned = pixels(image, variant, size=28), pixels(other, variant, size=28)
    torch.testing.assert_close(turned, found.transpose(1, 2), rtol=0, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.lists(ratings, min_size=2, max_size=6), st.data())
def test_ratings_move_with_the_result(players: list[tuple[float, float]], data: st.DataObject) -> None:
    """Uncertainty shrinks, the winner does not lose, the last does not gain, order does not matter."""

    def rated(order: Sequence[int]) -> list[tuple[float, float]]:
        mu, var = rank_game(
            [players[i][0] for i in order], [players[i][1] ** 2 for i in order], [ranks[i] for i in order],
            draw_margin=0.74,
        )  # fmt: skip
        return [(m, v**0.5) for m, v in zip(mu, var, strict=True)]

    ranks = data.draw(st.permutations(range(len(players))))
    found = rated(range(len(players)))
    assert all(after[1] <= before[1] + 1e-9 for before, after in zip(players, found, strict=True))
    first, last = ranks.index(0), ranks.index(len(players) - 1)
    assert found[first][0] >= players[first][0] - 1e-9
    assert found[last][0] <= players[last][0] + 1e-9
    order = data.draw(st.permutations(range(len(players))))
    np.testing.assert_array_equal([found[i] for i in order], rated(order))


@settings(max_examples=100, deadline=None)
@given(ratings, st.permutations(range(5)), st.permutations(range(4)))
def test_a_corrected_step_lies_between_staying_and_the_proposal(
    me: tuple[float, float], judged: list[int], human: list[int]
) -> None:
    rivals = [(28.0, 0.8), (26.0, 0.78), (24.0, 0.8), (22.0, 0.79)]
    step = update(me, rivals, human_rank=human, judged_rank=judged)
    assert -1 - 1e-12 <= step.rho <= 1 + 1e-12
    assert 0 < step.lam < 1
    for now, new, old in zip(step.rating, step.proposal, me, strict=True):
        assert min(new, old) - 1e-9 <= now <= max(new, old) + 1e-9
    assert agreement(human, judged[:-1]) == pytest.approx(agreement(judged[:-1], human))
