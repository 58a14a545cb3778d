"""The diffusers script: its beta has no factor 1/2, so it is half of ours."""

from __future__ import annotations

from typing import Any

from adapters.common import Batch, signal
from finepref.objectives.dpo import dpo, hinge


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    batch = Batch(case["inputs"])
    function = {"sigmoid": dpo, "hinge": hinge}[case["hyperparameters"]["loss_type"]]
    output = function(batch.prediction(), signal(batch.pairs), beta=2 * case["hyperparameters"]["beta"])
    difference = output.stats["A_w"] - output.stats["A_l"]
    return batch.results(output) | {"logits_unscaled": difference.tolist()}
