"""Diffusion-DPO: margin 0, weight 1."""

from __future__ import annotations

from typing import Any

from adapters.common import Batch, signal
from finepref.objectives.dpo import dpo


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    batch = Batch(case["inputs"])
    return batch.results(dpo(batch.prediction(), signal(batch.pairs), beta=case["hyperparameters"]["beta"]))
