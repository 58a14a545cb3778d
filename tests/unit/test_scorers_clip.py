"""Cosine scorers, the aesthetic scorer and ImageReward on small seeded networks: what a score may depend on."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPModel

from finepref.core.errors import InputError
from finepref.evaluate.scorers import blip, clip
from finepref.evaluate.scorers.families import aesthetic as aesthetic_rater
from finepref.evaluate.scorers.families import cosine as cosine_rater
from finepref.evaluate.scorers.families import reward as reward_rater
from finepref.evaluate.scorers.heads import LinearHead
from finepref.evaluate.scorers.network_scorer import BATCH, NetworkScorer
from finepref.evaluate.scorers.tokenizer import bert_text, clip_text
from finepref.evaluate.scorers.weights import build
from tiny_scorers import (
    PROMPTS,
    TINY_BLIP,
    TINY_CLIP,
    bert_vocabulary,
    clip_vocabulary,
    draw,
    open_clip_state,
    picture,
    pictures,
    reward_state,
)

Maker = Callable[..., Any]


def _clip(state: dict[str, Tensor]) -> CLIPModel:
    config = clip.clip_config(TINY_CLIP)
    return build(lambda: CLIPModel(config), clip.from_open_clip(state), where="tiny", device="cpu")


def _model(dtype: torch.dtype = torch.float32) -> CLIPModel:
    return _clip({name: t.to(dtype) for name, t in open_clip_state().items()})


@pytest.fixture
def cosine(tmp_path: Path) -> Maker:
    text = clip_text(clip_vocabulary(tmp_path), cleaned=True)

    def make(
        *, load: Any = _model, weights: str = "w", text: Any = text, preprocess: str = "pil_round"
    ) -> NetworkScorer[Any]:
        return NetworkScorer("tiny", cosine_rater(weights, text), load, preprocess)

    return make


@pytest.fixture
def aesthetic() -> Maker:
    sizes = (48, 1024, 128, 64, 16, 1)
    state: dict[str, Tensor] = {}
    for index, a, b in zip((0, 2, 4, 6, 7), sizes[:-1], sizes[1:], strict=True):
        state |= {f"layers.{index}.weight": draw((b, a), index) / a**0.5, f"layers.{index}.bias": draw((b,), index)}

    def load() -> Any:
        return _model(), build(lambda: LinearHead(48), state, where="tiny", device="cpu")

    def make(*, load: Any = load, weights: str = "a", preprocess: str = "pil_floor") -> NetworkScorer[Any]:
        return NetworkScorer("aesthetic", aesthetic_rater((weights, "b")), load, preprocess)

    return make


@pytest.fixture
def reward(tmp_path: Path) -> Maker:
    text = bert_text(bert_vocabulary(tmp_path / "bert", ("a", "cat", "dog", "two")))
    state = reward_state()

    def load() -> Any:
        return build(lambda: blip.RewardNetwork(TINY_BLIP), blip.from_imagereward(state), where="tiny", device="cpu")

    def make(*, load: Any = load, weights: str = "w", preprocess: str = "pil_round") -> NetworkScorer[Any]:
        return NetworkScorer("imagereward", reward_rater(weights, text), load, preprocess)

    return make


@pytest.fixture(params=["cosine", "aesthetic", "reward"])
def maker(request: pytest.FixtureRequest) -> Maker:
    return request.getfixturevalue(request.param)


def test_a_score_depends_on_its_own_image_and_prompt_only(maker: Maker) -> None:
    """One by one, by threes, in more than a batch, another order, other company: the same bits."""
    images = pictures(len(PROMPTS))
    whole = maker().score(images, PROMPTS)
    assert whole.dtype == np.float64
    assert whole.shape == (len(PROMPTS),)
    assert np.isfinite(whole).all()
    assert len(set(whole.tolist())) == len(PROMPTS)
    scorer = maker()
    for size in (1, 3):
        parts = [slice(start, start + size) for start in range(0, len(images), size)]
        found = np.concatenate([scorer.score(images[part], PROMPTS[part]) for part in parts])
        np.testing.assert_array_equal(found, whole)
    times = BATCH // len(images) + 1
    np.testing.assert_array_equal(scorer.score(images * times, PROMPTS * times), np.tile(whole, times))
    np.testing.assert_array_equal(scorer.score(images[::-1], PROMPTS[::-1])[::-1], whole)
    np.testing.assert_array_equal(scorer.score(images[4:6], PROMPTS[4:6]), whole[4:6])


def test_image_mode_is_only_a_container(maker: Maker) -> None:
    image = picture(mode="L")
    scorer = maker()
    wanted = scorer.score([image], ["a cat"])
    np.testing.assert_array_equal(scorer.score([image.convert("RGB")], ["a cat"]), wanted)
    np.testing.assert_array_equal(scorer.score([image.convert("RGBA")], ["a cat"]), wanted)


def test_empty_call_and_lengths(maker: Maker) -> None:
    assert maker().score([], []).shape == (0,)
    with pytest.raises(InputError, match="2 images and 1 prompts"):
        maker().score(pictures(2), ["a"])


def test_nothing_is_loaded_before_the_first_image(maker: Maker) -> None:
    def never() -> Any:
        raise AssertionError("loaded")

    scorer = maker(load=never)
    assert len(scorer.fingerprint) == 16


def test_autocast_and_tf32_of_the_caller_do_not_reach_a_score(maker: Maker) -> None:
    wanted = maker().score(pictures(2), PROMPTS[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(maker().score(pictures(2), PROMPTS[:2]), wanted)


def test_a_torchvision_beside_us_changes_nothing(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = maker().score(pictures(2), PROMPTS[:2])

    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torchvision", Broken("torchvision"))
    np.testing.assert_array_equal(maker().score(pictures(2), PROMPTS[:2]), wanted)


def test_fingerprint_follows_weights_and_preprocess(maker: Maker) -> None:
    prints = {
        maker().fingerprint,
        maker(weights="other").fingerprint,
        maker(preprocess="tensor_aa").fingerprint,
    }
    assert len(prints) == 3


def test_a_checkpoint_saved_in_half_precision_scores_in_float32(cosine: Maker) -> None:
    """Equal to the float32 model with the rounded weights, not to a half-precision forward."""
    half = cosine(load=lambda: _model(torch.float16))
    rounded = {name: t.half().float() for name, t in open_clip_state().items()}
    full = cosine(load=lambda: _clip(rounded))
    assert half.network.dtype == torch.float32
    np.testing.assert_array_equal(half.score(pictures(3), PROMPTS[:3]), full.score(pictures(3), PROMPTS[:3]))


def test_cosine_is_bounded_and_the_scale_is_its_own(cosine: Maker) -> None:
    scorer = cosine()
    found = scorer.score(pictures(8), PROMPTS)
    assert (np.abs(found) <= 1).all()
    assert float(scorer.network.logit_scale.exp()) == pytest.approx(np.exp(4.6052), rel=1e-6)
    assert scorer.higher_is_better


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call of the text tower encoded."""
    counts: list[int] = []
    real = clip.text_features

    def counted(model: CLIPModel, ids: Any) -> Tensor:
        counts.append(len(ids))
        return real(model, ids)

    monkeypatch.setattr("finepref.evaluate.scorers.clip.text_features", counted)
    return counts


def test_each_prompt_is_encoded_once(cosine: Maker, encoded: list[int]) -> None:
    scorer = cosine()
    scorer.score(pictures(4), ["a", "b", "a", "b"])
    scorer.score(pictures(3), ["b", "c", "a"])
    assert sum(encoded) == 3


def test_the_prompt_cache_is_bounded(cosine: Maker, encoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four prompts the latest two are known; the other two are encoded again, to the same bits."""
    monkeypatch.setattr("finepref.evaluate.scorers.families.CACHED_PROMPTS", 2)
    scorer = cosine()
    first = scorer.score(pictures(4), ["a", "b", "c", "d"])
    assert sum(encoded) == 4
    np.testing.assert_array_equal(scorer.score(pictures(4), ["a", "b", "c", "d"]), first)
    assert sum(encoded) == 6


def test_cleaning_the_text_is_part_of_the_score(cosine: Maker, tmp_path: Path) -> None:
    raw = cosine(text=clip_text(clip_vocabulary(tmp_path), cleaned=False))
    cleaned = cosine()
    assert raw.fingerprint != cleaned.fingerprint
    texts = ["a &amp; b", "plain"]
    a, b = raw.score(pictures(2), texts), cleaned.score(pictures(2), texts)
    assert a[0] != b[0]
    assert a[1] == b[1]


def test_aesthetic_does_not_look_at_prompts(aesthetic: Maker) -> None:
    images = pictures(2)
    np.testing.assert_array_equal(aesthetic().score(images, ["a", "b"]), aesthetic().score(images, ["", "c"]))


def test_imagereward_cuts_at_35_tokens(reward: Maker) -> None:
    long = " ".join(["a"] * 33)
    image = pictures(1)
    found = [reward().score(image, [long + tail])[0] for tail in ("", " cat", " dog two")]
    assert found[0] == found[1] == found[2]
    assert reward().score(image, [" ".join(["a"] * 32)])[0] != found[0]


def test_unknown_names_are_kept_for_the_strict_load() -> None:
    state = open_clip_state() | {"visual.transformer.resblocks.0.attn.ln_k.weight": torch.zeros(3)}
    with pytest.raises(InputError, match=r"unexpected visual\.transformer\.resblocks\.0\.attn\.ln_k\.weight"):
        _clip(state)


def test_transformers_layout_is_taken_as_it_is() -> None:
    mapped = clip.from_open_clip(open_clip_state())
    old = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    model = _clip(mapped | old)
    assert torch.equal(model.logit_scale, _model().logit_scale)
