"""MaPO: no reference."""

from __future__ import annotations

from typing import Any

from torch.nn.functional import logsigmoid

from adapters.common import Batch, signal
from finepref.objectives.mapo import mapo


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    batch, own = Batch(case["inputs"]), case["hyperparameters"]
    output = mapo(
        batch.prediction(),
        signal(batch.pairs),
        beta=own["beta_mapo"],
        snr_value=own["snr_value"],
        timesteps=own["T"],
    )
    return batch.results(output) | {
        "mse_w": output.stats["L_w"].tolist(),
        "mse_l": output.stats["L_l"].tolist(),
        "beta_times_logsigmoid": (own["beta_mapo"] * logsigmoid(output.stats["u"])).tolist(),
    }
