"""Paths: conversions against each other, loss spaces, draws of t."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import norm

from drawn import examples
from finepref.core.errors import ConfigError
from finepref.diffusion.path import FLOW, LOSS_SPACES, Path, scaled_linear
from small_network import latents

PATHS = {
    "epsilon": scaled_linear(),
    "v_prediction": scaled_linear(parametrisation="v_prediction"),
    "flow": FLOW,
}


def level(path: Path, u: float) -> torch.Tensor:
    """Two equal levels at the share u of the path."""
    return torch.tensor([1 + int(u * 998)] * 2) if path.discrete else torch.tensor([0.01 + 0.98 * u] * 2)


@given(u=st.floats(0, 1), kind=st.sampled_from(sorted(PATHS)))
@examples(40)
def test_conversions_agree(u: float, kind: str) -> None:
    """The target read as noise is the noise, and the noise that explains x_t is it too."""
    path, t = PATHS[kind], level(PATHS[kind], u)
    x0, eps = latents(1, 2, "x0"), latents(1, 2, "eps")
    x_t = path.add_noise(x0, eps, t)
    torch.testing.assert_close(path.epsilon(path.target(x0, eps, t), x_t, t), eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(path.implied_noise(x0, x_t, t), eps, rtol=1e-8, atol=1e-8)


@given(u=st.floats(0, 1), kind=st.sampled_from(sorted(PATHS)), space=st.sampled_from(LOSS_SPACES))
@examples(60)
def test_loss_space(u: float, kind: str, space: str) -> None:
    """The factor turns the native error into the error of the noise, or of the data, that the prediction stands for."""
    path, t = PATHS[kind], level(PATHS[kind], u)
    x0, eps = latents(2, 2, "x0"), latents(2, 2, "eps")
    x_t, target = path.add_noise(x0, eps, t), path.target(x0, eps, t)
    guess = target + 0.3 * latents(2, 2, "mistake")
    a, b = path.coefficients(t, x0)
    said = path.epsilon(guess, x_t, t)
    wrong = {"native": guess - target, "epsilon": said - eps, "x0": (x_t - b * said) / a - x0}[space]
    scale = path.error_scale(t, space)  # type: ignore[arg-type]
    native = (guess - target).square().mean((1, 2, 3))
    found = native if scale is None else native * scale
    torch.testing.assert_close(found, wrong.square().mean((1, 2, 3)), rtol=1e-6, atol=1e-12)


def test_no_scale_where_it_is_one() -> None:
    """The native space, and epsilon for an epsilon network, need no factor; an unknown space names the nearest."""
    t = torch.tensor([5])
    assert PATHS["epsilon"].error_scale(t, "native") is None
    assert PATHS["epsilon"].error_scale(t, "epsilon") is None
    unchecked = inspect.unwrap(Path.error_scale)  # without the suite's own type checks, which would come first
    with pytest.raises(ConfigError, match="did you mean 'epsilon'"):
        unchecked(PATHS["epsilon"], t, "epsilom")  # type: ignore[arg-type]


def test_draws_of_discrete_t() -> None:
    """Uniform integers lowest..999, every one with the same share of [0, 1)."""
    u = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:-1]
    for lowest in (0, 1, 2):
        t = PATHS["epsilon"].draw_t(u, lowest=lowest)
        assert t.dtype == torch.int64
        assert int(t.min()) == lowest
        assert int(t.max()) == 999
        counts = np.bincount(t.numpy(), minlength=1000)[lowest:]
        assert counts.max() - counts.min() <= 2  # of 200, by rounding at the borders
        assert int(PATHS["epsilon"].draw_t(torch.tensor([1 - 2**-53]), lowest=lowest)) == 999


def test_draws_of_flow_t() -> None:
    """Logit-normal, from scipy; never 0 and never 1."""
    u = torch.tensor([0.0, 0.01, 0.3, 0.5, 0.99, 1 - 2**-53], dtype=torch.float64)
    s = FLOW.draw_t(u)
    np.testing.assert_allclose(s[1:5], expit(norm.ppf(u[1:5].numpy())), rtol=1e-9)
    assert 0 < s.min() < s.max() < 1


def test_loss_scale_of_terminal_levels() -> None:
    """Levels of a schedule without signal at the end stay finite in the epsilon space of a v network."""
    path = Path(alpha_bar=torch.tensor([0.99, 0.5, 0.0], dtype=torch.float64), parametrisation="v_prediction")
    scale = path.error_scale(torch.tensor([0, 1, 2]), "epsilon")
    assert scale is not None
    assert scale.tolist() == pytest.approx([0.99, 0.5, 0.0])
