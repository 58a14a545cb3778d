"""Combinations that nobody published code for: margins, weights, guards and DSPO forms together."""

from __future__ import annotations

from typing import Any

from adapters.common import Batch, signal
from finepref.objectives.dpo import dpo
from finepref.objectives.dspo import dspo, dspo_brier
from finepref.objectives.guards import sdpo


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    batch, own, inputs = Batch(case["inputs"]), case["hyperparameters"], case["inputs"]
    found: dict[str, Any] = {}
    pred = batch.prediction(tensors=own["objective"] == "dspo_residual")
    if own.get("guard") is not None:
        assert own["guard"] == "sdpo"
        pred, stats = sdpo(pred, mu=own["mu"], scope=own["scope"])
        found["lambda_"] = stats["guard_lambda"].tolist()
    strength = own.get("lambda_", own.get("lambda_margin", 1.0))
    margin = inputs.get("margin", own.get("margin", 0.0))
    scaled = [strength * value for value in margin] if isinstance(margin, list) else strength * margin
    pairs = signal(batch.pairs, margin=scaled, weight=inputs.get("weight", 1.0))
    if own["objective"] == "dpo":
        output = dpo(pred, pairs, beta=own["beta"])
    elif own["objective"] == "dspo_residual":
        output = dspo(pred, pairs, beta=own["beta_logit"], lambda_residual=own["lambda_residual"])
    else:
        assert own["objective"] == "dspo_brier"
        output = dspo_brier(pred, pairs, beta=own["beta"])
    return batch.results(output) | found
