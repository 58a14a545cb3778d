"""Diffusion-KTO: unpaired images with a label, measured against an anchor that the whole batch shares."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from finepref.core.options import Options, told
from finepref.core.tensors import ImagePrediction, ObjectiveOutput
from finepref.objectives.core import image_errors

Utility = Literal["sigmoid", "loss_averse", "risk_seeking"]
Offset = Literal["batch", "class_balanced"]


class KtoOptions(Options):
    """beta 5000 is the paper's (the code's default is 1000); the weights are 1."""

    beta: float = told(5000.0, "Gain of an image's advantage; no factor 1/2 here.", gt=0)
    utility: Utility = told("sigmoid", "U: sigmoid (Kahneman-Tversky), loss_averse (log-sigmoid), risk_seeking.")
    lambda_desirable: float = told(1.0, "Weight of desirable images.", ge=0)
    lambda_undesirable: float = told(1.0, "Weight of undesirable images.", ge=0)
    offset: Offset = told("batch", "Anchor z: batch mean clamped at 0, or the mean of both class means, unclamped.")


def kto_sums(pred: ImagePrediction) -> Float[Tensor, "sums=4"]:
    """What the anchor is made of, float64: sum of g and number of the desirable images, then of the undesirable ones.

    Sums of several batches or processes add up to those of all their images.
    """
    with torch.no_grad():
        policy, reference = image_errors(pred)
        gain, chosen = (reference - policy).double(), pred.label.double()
        return torch.stack([(gain * chosen).sum(), chosen.sum(), (gain * (1 - chosen)).sum(), (1 - chosen).sum()])


def kto_anchor(sums: Float[Tensor, "sums=4"], *, offset: Offset) -> Float[Tensor, ""]:
    """z, the reference point: the one quantity that depends on more than one image.

        batch: z = max(0, mean g)    class_balanced: z = (mean g over y=1 + mean g over y=0) / 2    g = L_ref - L

    Args:
        sums: `kto_sums` of everything that shares the anchor. offset: which of the two (official `bce_offset` none and
            sigmoid).

    Returns:
        A float64 scalar without gradient.

    Deviations: class means divide by n + 1e-6 as the official code, in double precision (it used float32). The loop
        takes all images of an optimiser step (official: those of a micro-step, on all processes).
    """
    sum_1, count_1, sum_0, count_0 = sums
    if offset == "batch":
        return ((sum_1 + sum_0) / (count_1 + count_0)).clamp_min(0.0)
    return (sum_1 / (count_1 + 1e-6) + sum_0 / (count_0 + 1e-6)) / 2


def utility_of(q: Float[Tensor, " B"], name: Utility) -> Float[Tensor, " B"]:
    """U(q): sigmoid(q), log sigmoid(q) (loss-averse) or -log sigmoid(-q) (risk-seeking)."""
    if name == "sigmoid":
        return torch.sigmoid(q)
    return logsigmoid(q) if name == "loss_averse" else -logsigmoid(-q)


def kto(
    pred: ImagePrediction,
    *,
    beta: float,
    utility: Utility,
    lambda_desirable: float,
    lambda_undesirable: float,
    offset: Offset,
    anchor: Tensor | None = None,
) -> ObjectiveOutput:
    """The utility that an image misses.

        q = (2y - 1) * beta * (g - z),  g = L_ref - L,  loss = lambda_y * (1 - U(q))

    Args:
        pred: policy, target [B,C,H,W], label [B] in {0, 1}, ref_error [B].
        beta, utility, lambda_desirable, lambda_undesirable, offset: see `KtoOptions`.
        anchor: z, a scalar from `kto_anchor` over everything that shares it; None computes it from this batch.

    Returns:
        loss [B]; statistics L, A, A_desirable, A_undesirable (over the images with that label), u (= q), anchor.

    Raises:
        ValueError: the prediction has no reference error.

    References: Diffusion-KTO (arXiv 2404.04465), repository jacklishufan/diffusion-kto train_kto_sd_v1.5.py:1395-1509.
    Deviations: the paper's anchor uses unrelated image-prompt pairs; as in the code's default it is the batch itself.
        The option `original` (rolled prompts) is not offered.
    """
    policy, reference = image_errors(pred)
    z = kto_anchor(kto_sums(pred), offset=offset) if anchor is None else anchor.detach()
    z, label = z.to(policy.dtype), pred.label.to(policy.dtype)
    q = (2 * label - 1) * beta * (reference - policy - z)
    weight = label * lambda_desirable + (1 - label) * lambda_undesirable
    advantage = (reference - policy).detach()
    stats = {
        "L": policy.detach(),
        "A": advantage,
        "A_desirable": advantage,
        "A_undesirable": advantage,
        "u": q.detach(),
        "anchor": z.expand_as(advantage),
    }
    applies = {"A_desirable": label, "A_undesirable": 1 - label}
    return ObjectiveOutput(loss=weight * (1 - utility_of(q, utility)), stats=stats, applies=applies)
