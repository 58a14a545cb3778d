"""Diffusion-KTO: unpaired images."""

from __future__ import annotations

from typing import Any

import torch

from adapters.common import tensor
from finepref.core.tensors import ImagePrediction
from finepref.objectives.core import mean_square
from finepref.objectives.kto import Offset, Utility, kto, utility_of

UTILITIES: dict[str, Utility] = {
    "sigmoid": "sigmoid",
    "loss_averse": "loss_averse",
    "risk_seeking_3": "risk_seeking",
}
OFFSETS: dict[str, Offset] = {"none": "batch", "sigmoid": "class_balanced"}


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    inputs, own = case["inputs"], case["hyperparameters"]
    policy = tensor(inputs["policy_pred"]).requires_grad_(True)
    target = tensor(inputs["target"])
    reference = mean_square(tensor(inputs["reference_pred"]), target)
    pred = ImagePrediction(policy=policy, target=target, label=torch.tensor(inputs["labels"]), ref_error=reference)
    utility = UTILITIES[own["halo"]]
    output = kto(
        pred,
        beta=own["beta"],
        utility=utility,
        lambda_desirable=own["lambda_d"],
        lambda_undesirable=own["lambda_u"],
        offset=OFFSETS[own["bce_offset"]],
    )
    (gradient,) = torch.autograd.grad(output.loss.mean(), policy)
    return {
        "policy_mse": output.stats["L"].tolist(),
        "reference_mse": reference.tolist(),
        "kl": output.stats["anchor"][0].item(),
        "signed_logit": output.stats["u"].tolist(),
        "utility": utility_of(output.stats["u"], utility).tolist(),
        "loss": output.loss.mean().item(),
        "grad_policy_pred": gradient.tolist(),
    }


def tolerance(case: dict[str, Any], name: str) -> tuple[float, float]:
    """The class-balanced offset was divided in float32."""
    return (1e-9 if case["hyperparameters"]["bce_offset"] == "none" else 1e-6), 0.0
