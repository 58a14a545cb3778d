"""The schedule, x_t and the v target."""

from __future__ import annotations

from typing import Any

import torch

from adapters.common import tensor
from adapters.tiny import TABLE, recorded
from finepref.diffusion.forward import place
from finepref.diffusion.path import scaled_linear


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    inputs, own = case["inputs"], case["hyperparameters"]
    path = scaled_linear(
        steps=own["T"],
        beta_start=own["beta_start"],
        beta_end=own["beta_end"],
        parametrisation="v_prediction",
    )
    assert path.alpha_bar is not None
    table = {level: path.alpha_bar[int(level)].item() for level in case["outputs"]["alphas_cumprod"]}
    path = recorded(case["outputs"]["alphas_cumprod"], path)
    x0, noise, t = tensor(inputs["x0"]), tensor(inputs["noise"]), torch.tensor(inputs["t"])
    placed = place(x0, -x0, t, path=path, noise=noise)
    return {
        "alphas_cumprod": table,
        "x_t": placed.xt_w.tolist(),
        "velocity_target": placed.target_w.tolist(),
    }


def tolerance(case: dict[str, Any], name: str) -> tuple[float, float]:
    """x_t and v are taken with the file's own table."""
    return (TABLE if name == "alphas_cumprod" else 1e-9), 0.0
