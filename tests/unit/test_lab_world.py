"""The lab world: prompts, renderer, and the true quality against a brute-force search and hand cases."""

from __future__ import annotations

import numpy as np
import pytest

from finepref.core import rng
from finepref.core.errors import InputError
from finepref.lab import world


def test_splits_are_disjoint_large_and_fixed():
    train, evaluation = world.prompts("train"), world.prompts("eval")
    assert len(train) >= 240
    assert len(evaluation) >= 220
    assert not set(train) & set(evaluation)
    assert set(train) | set(evaluation) == set(world.prompts("all"))
    assert len(set(world.prompts("all"))) == 7 * 9 * 8
    assert train[:2] == ("a green square on a lavender background", "a green triangle on a gray background")


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_pair_of_words_is_in_both_splits(split):
    asked = [world.scene_of(prompt) for prompt in world.prompts(split)]
    assert len({(s.colour, s.shape) for s in asked}) == 9 * 7
    assert len({(s.colour, s.background) for s in asked}) == 9 * 8
    assert len({(s.shape, s.background) for s in asked}) == 7 * 8


def test_article_follows_the_word():
    assert "an orange ring on a navy background" in world.prompts("all")


def test_drawing_is_deterministic_and_valid():
    prompt = "a red heart on a beige background"
    one = world.draw(prompt, rng.numpy_generator(3, "x"))
    assert np.array_equal(one, world.draw(prompt, rng.numpy_generator(3, "x")))
    assert one.shape == (32, 32, 3)
    assert one.dtype == np.uint8
    assert world.judge(one[None], [prompt]).rms[0] < 0.5 / 255.0


@pytest.mark.parametrize("shape", world.SHAPES)
def test_quality_reads_back_what_was_rendered(shape):
    prompt = f"a pink {shape} on a mint background"
    place = world.placements(shape)
    chosen = [0, len(place.radius) // 2, len(place.radius) - 1]
    images = np.stack([world.render(prompt, placement=k, vivid=0.7) for k in chosen])
    found = world.judge(images, [prompt] * 3)
    np.testing.assert_allclose(found.size, (place.radius[chosen] - 6) / 6, atol=1e-12)
    far = np.hypot(place.centre[chosen, 0] - 16, place.centre[chosen, 1] - 16) / np.hypot(9, 9)
    np.testing.assert_allclose(found.centred, 1 - far, atol=1e-6)
    np.testing.assert_allclose(found.vivid, (0.7 - 0.35) / 0.65, atol=0.01)
    np.testing.assert_allclose(
        found.quality, 1.3 * found.size + 0.7 * found.centred + 1.3 * found.vivid - found.rms / 0.09
    )


def test_best_fit_equals_a_search_over_rendered_pictures():
    """Oracle: draw every placement at 27 vividnesses and take the nearest picture."""
    prompt, shape = "a blue star on a brown background", "star"
    generator = rng.numpy_generator(1, "noise")
    clean = world.render(prompt, placement=300, vivid=0.6).astype(float)
    noisy = np.clip(clean + generator.normal(0, 40, clean.shape), 0, 255).round().astype(np.uint8)
    levels = np.linspace(world.DULL, 1.0, 27)
    best = (np.inf, -1, 0.0)
    for k in range(0, len(world.placements(shape).radius), 3):
        for v in levels:
            difference = (world.render(prompt, placement=k, vivid=v).astype(float) - noisy) / 255.0
            best = min(best, (float(np.sqrt((difference**2).mean())), k, float(v)))
    found = world.judge(noisy[None], [prompt])
    assert found.rms[0] <= best[0] + 1e-4
    assert found.rms[0] == pytest.approx(best[0], rel=2e-3)
    assert found.size[0] == (world.placements(shape).radius[best[1]] - 6) / 6


def test_order_of_hand_cases():
    prompt = "a red circle on a white background"
    place = world.placements("circle")
    largest = int(np.flatnonzero((place.radius == 12) & (place.centre == 16).all(1))[0])
    small = int(np.flatnonzero((place.radius == 6) & (place.centre == 16).all(1))[0])
    corner = int(np.flatnonzero((place.radius == 6) & (place.centre == 7).all(1))[0])
    images = [
        world.render(prompt, placement=largest, vivid=1.0),
        world.render(prompt, placement=largest, vivid=0.4),
        world.render(prompt, placement=small, vivid=0.4),
        world.render(prompt, placement=corner, vivid=0.4),
        world.render("a blue square on a white background", placement=0, vivid=0.4),
        world.render("a blue square on a black background", placement=0, vivid=0.4),
    ]
    quality = world.judge(np.stack(images), [prompt] * 6).quality
    assert (np.diff(quality) < 0).all()
    assert quality[0] == pytest.approx(3.3, abs=0.05)


def test_a_judgement_is_of_its_own_picture_alone():
    prompts = list(world.prompts("eval")[:9])
    images = np.stack([world.draw(p, rng.numpy_generator(0, p)) for p in prompts])
    together = world.judge(images, prompts).quality
    alone = [world.judge(images[i : i + 1], prompts[i : i + 1]).quality[0] for i in range(9)]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_refusals_say_what_is_nearest():
    with pytest.raises(InputError, match="did you mean 'train'"):
        world.prompts("trian")
    with pytest.raises(InputError, match="did you mean 'a red circle on a white background'"):
        world.scene_of("a red circle on a white backgroun")
    with pytest.raises(InputError, match="32x32x3"):
        world.judge(np.zeros((1, 16, 16, 3), dtype=np.uint8), [world.prompts("eval")[0]])
