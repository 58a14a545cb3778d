"""Scorers' parts on drawn input: token rows, image sizes, ratings."""

from __future__ import annotations

import functools
import html
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from drawn import FACTOR, examples
from finepref.arena.freeforall import rank_game
from finepref.evaluate.scorers.ksort import agreement, update
from finepref.evaluate.scorers.preprocess import MEAN, STD, VARIANTS, pixels
from finepref.evaluate.scorers.tokenizer import ClipText, clean, clip_text
from published_files import clip_bpe, original
from tiny_scorers import picture

letters = st.text(st.characters(exclude_categories=()), max_size=60)  # unassigned ones and half surrogates too
garbled = letters.map(lambda text: text.encode("utf-8", "replace").decode("latin-1"))  # what ftfy puts together again
entities = st.integers(0, 0x11FFFF).map(lambda number: f"&#{number};")
typed = st.lists(
    st.one_of(letters, garbled, entities, st.sampled_from(["'S", " ", "&amp;", "\u2019s", "<|"])), max_size=6
)
ratings = st.tuples(st.floats(0, 50), st.floats(0.3, 9))
# Spaces and controls of all kinds, letters that change with case, marks, digits that are no digits, halves, beginnings.
SUSPICIOUS = (
    "\0\t\n\x0b\x1b\x1c\x1f\x7f\x85\x8b\xa0\xad\xd6\xc3\u00aa\u00b2\u0130\u0131\u017f\u01c5\u0300\u0345\u0558\u058b"
    "\u03a3\u0660\u1680\u180e\u1e9e\u200b\u200d\u2028\u202e\u212a\u2160\u2460\u3000\uac00\ud800\udfff\ufe0f\ufeff\ufb01\uff33\ufffd"
    "\U0001f600\U000e0041\U0010ffff&;#'s1<|"
)


@functools.cache
def both() -> tuple[Any, ClipText]:
    bpe = clip_bpe()
    if bpe is None:
        pytest.skip("the package openai-clip is not installed")
    return original("simple_tokenizer").SimpleTokenizer(), clip_text(bpe, cleaned=True)


def check(texts: list[str]) -> None:
    """Our ids are OpenAI's, cut at 77 with the end token last."""
    theirs, ours = both()
    for text, ids in zip(texts, ours.ids(texts), strict=True):
        wanted = [49406, *theirs.encode(text), 49407]
        assert ids == (wanted if len(wanted) <= 77 else [*wanted[:76], 49407]), ascii(text)


@examples(150)
@given(typed.map("".join))
@example("ΟΔΟΣ")
@example("“curly” &amp;amp; ＦＵＬＬ　ｗｉｄｔｈ")
@example("a" * 400)
@example(":\u00d6\u008b")  # garbled: together an unassigned character, U+058B
@example("it'\u017f")  # a long s is an s where case does not count
def test_cleaned_ids_are_openais(text: str) -> None:
    """Whatever is typed, special tokens aside: OpenAI's tokenizer knows them, open_clip's does not."""
    assume("<|" not in clean(text) or "text|>" not in clean(text))
    check([text])


def test_every_character_is_read_as_openai_does() -> None:
    """Each between a letter and a sign: the first 1,000, then every 97th; all 1,114,112 in a random run."""
    codes = range(0x110000) if FACTOR else [*range(1000), *range(1000, 0x110000, 97)]
    for start in range(0, len(codes), 4096):
        check([f"a{chr(code)}:" for code in codes[start : start + 4096]])


def test_pairs_of_suspicious_characters_are_read_as_openai_does() -> None:
    check([f"a{first}{second}S" for first, second in itertools.product(SUSPICIOUS, repeat=2)])
    check([f"a&#{ord(first)};{second}:" for first, second in itertools.product(SUSPICIOUS, repeat=2)])
    check([html.escape(html.escape(first)) for first in SUSPICIOUS])


@examples(60)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(VARIANTS))
def test_every_size_gives_a_square_in_range(width: int, height: int, variant: str) -> None:
    found = pixels(picture(width, height), variant, size=28)
    assert found.shape == (3, 28, 28)
    value = found * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    slack = 1e-5 if variant.startswith("pil") else 0.6  # bicubic overshoot is not clamped
    assert -slack <= value.min()
    assert value.max() <= 1 + slack


@examples(60)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["tensor_aa", "tensor_noaa"]))
def test_turning_the_image_turns_the_result(width: int, height: int, variant: str) -> None:
    """Rows and columns are treated alike (but for strips of one pixel, which torch's antialiasing does not resize)."""
    assume(28 * min(width, height) > 2 * max(width, height))
    image = picture(width, height)
    other = image.transpose(Image.Transpose.TRANSPOSE)
    found, turned = pixels(image, variant, size=28), pixels(other, variant, size=28)
    torch.testing.assert_close(turned, found.transpose(1, 2), rtol=0, atol=1e-5)


@examples(100)
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


@examples(100)
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
