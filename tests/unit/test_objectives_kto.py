"""Diffusion-KTO: values against numpy, the anchor and who shares it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit as sigmoid
from torch import Tensor

from finepref.core import rng
from finepref.core.tensors import ImagePrediction
from finepref.objectives.core import mean_square
from finepref.objectives.kto import kto, kto_anchor, kto_sums


def normal(*words: object, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=rng.torch_generator(3, *words), dtype=torch.float64)


@pytest.fixture
def images() -> ImagePrediction:
    policy = normal("image", shape=(4, 3, 2, 2))
    target = policy + 0.3 * normal("image target", shape=(4, 3, 2, 2))
    reference = mean_square(policy + 0.05 * normal("image reference", shape=(4, 3, 2, 2)), target)
    return ImagePrediction(policy=policy, target=target, label=torch.tensor([1, 0, 1, 1]), ref_error=reference)


KTO: dict[str, Any] = {
    "beta": 80.0,
    "utility": "sigmoid",
    "lambda_desirable": 1.3,
    "lambda_undesirable": 0.7,
    "offset": "batch",
}


@pytest.mark.parametrize("utility", ["sigmoid", "loss_averse", "risk_seeking"])
@pytest.mark.parametrize("offset", ["batch", "class_balanced"])
def test_kto_value(utility: str, offset: str, images: ImagePrediction) -> None:
    """Weights, utilities and both anchors against numpy."""
    gain = (images.ref_error - mean_square(images.policy, images.target)).numpy()
    y = images.label.numpy()
    of_class = [gain[y == c].sum() / ((y == c).sum() + 1e-6) for c in (0, 1)]
    z = max(0.0, gain.mean()) if offset == "batch" else sum(of_class) / 2
    q = (2 * y - 1) * 80.0 * (gain - z)
    u = {"sigmoid": sigmoid(q), "loss_averse": -np.logaddexp(0, -q), "risk_seeking": np.logaddexp(0, q)}[utility]
    wanted = np.where(y == 1, 1.3, 0.7) * (1 - u)
    output = kto(images, **{**KTO, "utility": utility, "offset": offset})
    np.testing.assert_allclose(output.loss, wanted, rtol=1e-10)
    np.testing.assert_allclose(output.stats["anchor"], np.full(4, z), rtol=1e-10)


def test_kto_with_a_given_anchor_is_per_image(images: ImagePrediction) -> None:
    """With the anchor fixed, an image's loss depends on that image only."""
    anchor = torch.tensor(0.004, dtype=torch.float64)
    whole = kto(images, **KTO, anchor=anchor).loss
    for row in range(4):
        one = ImagePrediction(
            policy=images.policy[row : row + 1],
            target=images.target[row : row + 1],
            label=images.label[row : row + 1],
            ref_error=images.ref_error[row : row + 1],
        )
        assert torch.equal(kto(one, **KTO, anchor=anchor).loss, whole[row : row + 1])


def test_kto_anchor_of_parts(images: ImagePrediction) -> None:
    """Sums of parts, over micro-batches or processes, give the anchor of the whole; one class alone stays finite."""
    parts = [
        ImagePrediction(
            policy=images.policy[part],
            target=images.target[part],
            label=images.label[part],
            ref_error=images.ref_error[part],
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    joint = kto_sums(parts[0]) + kto_sums(parts[1])
    for offset in ("batch", "class_balanced"):
        found = kto_anchor(joint, offset=offset)
        torch.testing.assert_close(found, kto_anchor(kto_sums(images), offset=offset), rtol=1e-12, atol=0)
        assert torch.isfinite(kto_anchor(kto_sums(parts[0]), offset=offset))


def test_kto_needs_a_reference(images: ImagePrediction) -> None:
    """No reference error, no advantage."""
    with pytest.raises(ValueError, match="reference"):
        kto(replace(images, ref_error=None), **KTO)
