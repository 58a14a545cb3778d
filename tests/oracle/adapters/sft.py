"""SFT: every row is a winner."""

from __future__ import annotations

from typing import Any

import torch

from adapters.common import signal, tensor
from finepref.core.tensors import PairPrediction
from finepref.objectives.sft import sft


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    policy = tensor(case["inputs"]["policy_pred"]).requires_grad_(True)
    target = tensor(case["inputs"]["target"])
    loser = torch.full_like(target, float("nan"))  # must not be looked at
    pred = PairPrediction(policy_w=policy, policy_l=loser, target_w=target, target_l=loser)
    loss = sft(pred, signal(policy.shape[0])).loss.mean()
    (gradient,) = torch.autograd.grad(loss, policy)
    return {"loss": loss.item(), "grad_policy_pred": gradient.tolist()}
