"""Diffusion-SDPO: the batch scalar on the loser's gradient, under DPO, DSPO and DMPO."""

from __future__ import annotations

from typing import Any

from adapters.common import Batch, signal
from finepref.objectives.dmpo import dmpo
from finepref.objectives.dpo import dpo
from finepref.objectives.dspo import dspo
from finepref.objectives.guards import sdpo


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    batch, own = Batch(case["inputs"]), case["hyperparameters"]
    assert own.get("max_lambda", 1.0) == 1.0
    pred, scale = batch.prediction(tensors=own["method"] == "dspo"), 1.0
    if own["safeguard"]:
        pred, stats = sdpo(pred, mu=own["mu"], scope="batch")
        assert stats["guard_lambda"].unique().numel() == 1
        scale = stats["guard_lambda"][0].item()
    beta, plain = own["beta"], signal(batch.pairs)
    if own["method"] == "diffusion-dpo":
        output = dpo(pred, plain, beta=beta)
    elif own["method"] == "dspo":
        output = dspo(pred, plain, beta=beta, lambda_residual=beta)
    else:
        assert own["method"] == "dmpo"
        output = dmpo(pred, plain, beta=beta, alpha=own["dmpo_alpha"])
    return batch.results(output) | {"lambda_": scale}


def tolerance(case: dict[str, Any], name: str) -> tuple[float, float]:
    """The official denominator carries an epsilon that we leave out."""
    return 1e-6, 0.0
