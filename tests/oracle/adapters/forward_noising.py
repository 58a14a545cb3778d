"""The schedule, x_t and the v target."""

from __future__ import annotations

from typing import Any

import torch

from adapters.common import tensor
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
    x0, noise, t = tensor(inputs["x0"]), tensor(inputs["noise"]), torch.tensor(inputs["t"])
    placed = place(x0, -x0, t, path=path, noise=noise)
    assert path.alpha_bar is not None
    return {
        "alphas_cumprod": {level: path.alpha_bar[int(level)].item() for level in case["outputs"]["alphas_cumprod"]},
        "x_t": placed.xt_w.tolist(),
        "velocity_target": placed.target_w.tolist(),
    }
