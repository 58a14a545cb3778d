"""lab-reward and lab-true behind the scorer protocol; the reward is better than chance on votes it never saw."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from finepref.core import rng
from finepref.core.errors import InputError
from finepref.lab import ballots as votes
from finepref.lab import scorers, world

PROMPTS = world.prompts("eval")[:60]


@pytest.fixture(scope="module")
def images():
    return {
        name: np.stack([world.draw(prompt, rng.numpy_generator(9, name, prompt)) for prompt in PROMPTS])
        for name in ("a", "b", "c")
    }


@pytest.fixture(scope="module")
def flat(images):
    pictures = [Image.fromarray(image) for image in images["a"]]
    return pictures, list(PROMPTS)


@pytest.mark.parametrize("make", [scorers.lab_reward, scorers.lab_true])
def test_protocol(make, flat):
    scorer = make()
    pictures, prompts = flat
    values = scorer.score(pictures, prompts)
    assert values.shape == (60,)
    assert values.dtype == np.float64
    assert scorer.higher_is_better is True
    assert scorer.fingerprint == make().fingerprint
    np.testing.assert_allclose(
        [scorer.score([p], [q])[0] for p, q in zip(pictures, prompts, strict=True)], values, rtol=1e-9
    )
    assert len(scorer.score([], [])) == 0
    with pytest.raises(InputError, match="one prompt an image"):
        scorer.score(pictures, prompts[:3])


def test_names_and_fingerprints_differ():
    one, other = scorers.lab_reward(), scorers.lab_true()
    assert (one.name, other.name) == ("lab-reward", "lab-true")
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_modes_and_sizes_are_accepted(flat, mode):
    """A picture enlarged by whole factors, in another mode, scores as the picture itself."""
    pictures, prompts = flat
    scorer = scorers.lab_true()
    large = [p.resize((96, 96), Image.Resampling.NEAREST) for p in pictures[:4]]
    large = [p.quantize(256) if mode == "P" else p.convert(mode) for p in large]
    tolerance = 0.2 if mode == "P" else 1e-9
    np.testing.assert_allclose(
        scorer.score(large, prompts[:4]), scorer.score(pictures[:4], prompts[:4]), atol=tolerance
    )


def test_reward_agrees_with_held_out_votes_and_with_the_prompt(images):
    """Votes on evaluation prompts; and right prompts score above wrong ones."""
    scorer = scorers.lab_reward()
    ballots = votes.cast(images, PROMPTS, seed=77, votes=180)
    asked = [prompt for prompt in PROMPTS for _ in images]
    values = scorer.score([Image.fromarray(image) for image in ballots.images], asked)
    decided = ballots.share != 0.5
    right = (values[ballots.left] > values[ballots.right]) == (ballots.share == 1.0)
    assert right[decided].mean() > 0.62
    wrong = scorer.score([Image.fromarray(image) for image in ballots.images], asked[30:] + asked[:30])
    assert np.mean(values > wrong) > 0.58  # chance is 0.5 with a standard error of 0.04


def test_true_quality_is_that_of_the_world(flat):
    pictures, prompts = flat
    wanted = world.judge(np.stack([np.asarray(p) for p in pictures]), prompts).quality
    assert np.array_equal(scorers.lab_true().score(pictures, prompts), wanted)
