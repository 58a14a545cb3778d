"""What the adapters share: float64 tensors in, one differentiable batch of winners and losers, lists out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import mean_square


def tensor(value: Any) -> Tensor:
    """Nested lists to float64."""
    return torch.tensor(value, dtype=torch.float64)


def signal(pairs: int, *, margin: Any = 0.0, weight: Any = 1.0) -> PairSignal:
    """Margins and weights, numbers repeated for every pair."""
    return PairSignal(margin=tensor(margin).expand(pairs), weight=tensor(weight).expand(pairs))


class Batch:
    """policy_pred [2B,...] as a leaf, winners first, and the records made of it."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self.policy = tensor(inputs["policy_pred"]).requires_grad_(True)
        self.target = tensor(inputs["target"])
        self.reference = tensor(inputs["reference_pred"]) if "reference_pred" in inputs else None
        self.pairs = self.policy.shape[0] // 2

    def prediction(self, *, tensors: bool = False) -> PairPrediction:
        """With the reference's errors, or with its tensors, or without a reference where the case has none."""
        policy_w, policy_l = self.policy.chunk(2)
        target_w, target_l = self.target.chunk(2)
        if self.reference is None:
            return PairPrediction(policy_w=policy_w, policy_l=policy_l, target_w=target_w, target_l=target_l)
        ref_w, ref_l = self.reference.chunk(2)
        return PairPrediction(
            policy_w=policy_w,
            policy_l=policy_l,
            target_w=target_w,
            target_l=target_l,
            ref_w=ref_w if tensors else None,
            ref_l=ref_l if tensors else None,
            ref_error_w=None if tensors else mean_square(ref_w, target_w),
            ref_error_l=None if tensors else mean_square(ref_l, target_l),
        )

    def results(self, output: ObjectiveOutput) -> dict[str, Any]:
        """loss and gradient of the mean, errors, logit and accuracy under the files' names."""
        assert output.loss.shape == (self.pairs,)
        (gradient,) = torch.autograd.grad(output.loss.mean(), self.policy)
        found: dict[str, Any] = {"loss": output.loss.mean().item(), "grad_policy_pred": gradient.tolist()}
        found["policy_mse"] = mean_square(self.policy.detach(), self.target).tolist()
        if self.reference is not None:
            found["reference_mse"] = mean_square(self.reference, self.target).tolist()
        if "u" in output.stats:
            found["logit"] = output.stats["u"].tolist()
        if "implicit_accuracy" in output.stats:
            found["implicit_acc"] = output.stats["implicit_accuracy"].mean().item()
        return found
