"""DSPO: the residual form, and the SDXL branch that the batch mean chooses."""

from __future__ import annotations

from typing import Any

from adapters.common import Batch, signal
from finepref.objectives.core import mean_square
from finepref.objectives.dspo import dspo
from finepref.objectives.published import huaishengzhu_dspo_sdxl


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    batch, beta = Batch(case["inputs"]), case["hyperparameters"]["beta"]
    pred = batch.prediction(tensors=True)
    threshold = meta["hyperparameters"]["sdxl_threshold"]
    assert pred.ref_w is not None
    shift = mean_square(pred.policy_w.detach(), pred.ref_w).mean().item()
    if case["hyperparameters"]["sdxl_branch"]:
        output = huaishengzhu_dspo_sdxl(pred, signal(batch.pairs), beta=beta, threshold=threshold)
    else:
        output = dspo(pred, signal(batch.pairs), beta=beta, lambda_residual=beta)
    return batch.results(output) | {"winner_shift_mse": shift}


IGNORED = {"branch"}  # words; the loss tells the branches apart
