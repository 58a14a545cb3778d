"""Order of accuracy of the inversions on analytic denoisers, whose exact x_t is known by quantiles."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from finepref.diffusion.path import FLOW, scaled_linear


@pytest.fixture(scope="module")
def study() -> ModuleType:
    """The benchmark, with fewer pixels."""
    path = Path(__file__).parents[2] / "benchmarks" / "inversion_accuracy.py"
    spec = importlib.util.spec_from_file_location("inversion_accuracy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["inversion_accuracy"] = module
    spec.loader.exec_module(module)
    module.SHAPE = (1, 1, 8, 8)
    return module


@pytest.mark.parametrize("density", ["GAUSSIAN", "MIXTURE"])
def test_ddim_inversion_is_of_first_order(study: ModuleType, density: str) -> None:
    """Slope 0.95 to 1.05 over K = 64..512, on SD's schedule and on the flow."""
    chosen = getattr(study, density)
    assert 0.95 <= study.order(chosen, scaled_linear(), 512) <= 1.05
    assert 0.95 <= study.order(chosen, FLOW, 0.9) <= 1.05


def test_refined_everywhere_is_of_second_order(study: ModuleType) -> None:
    """Every step, destination's label, averaging: the trapezoidal rule; better than DDIM with twice the steps."""
    path = scaled_linear()
    assert 1.9 <= study.order(study.MIXTURE, path, 512, study.TRAPEZOID) <= 2.1
    for density in (study.GAUSSIAN, study.MIXTURE):
        for t in (100, 250, 500):
            refined, calls = study.invert(density, path, t, study.refined(5, t, path, **study.TRAPEZOID))
            plain, same = study.invert(density, path, t, study.plain(10, t, path))
            assert calls == same == 10
            assert refined < plain


def test_v_prediction_inverts_like_epsilon(study: ModuleType) -> None:
    """The same ideal denoiser, told as velocity, gives the same points."""
    options = study.refined(6, 700, scaled_linear(), **study.PAPER)
    errors = [
        study.invert(study.MIXTURE, scaled_linear(parametrisation=kind), 700, options)[0]
        for kind in ("epsilon", "v_prediction")
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)
