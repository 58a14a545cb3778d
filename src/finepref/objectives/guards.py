"""Guards: what the loser's gradient may not do to the winner; the rows are in `table`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from finepref.core.options import Options, told
from finepref.core.tensors import PairPrediction
from finepref.objectives.core import wide
from finepref.objectives.published import aidc_ai_sdpo_scale

Scope = Literal["sample", "batch"]


class GuardOptions(Options):
    """mu 0.9: Diffusion-SDPO's SD1.5 launchers for DPO and DMPO (0.2 for DSPO, 0.6 for everything on SDXL)."""

    mu: float = told(0.9, "Share of the winner's own descent that must survive.", ge=0, le=1)
    scope: Scope = told("sample", "sample: one lambda per pair; batch: the published micro-batch scalar (parity only).")


def pair_scale(pred: PairPrediction, *, mu: float) -> Float[Tensor, " B"]:
    """lambda per pair, in [0, 1].

        lambda = clip((1-mu) <r_w, r_w> / <r_l, r_w>, 0, 1) if <r_l, r_w> > 0 else 1,  r = policy - target

    It follows from (-g_w + lambda g_l) . g_w <= -mu |g_w|^2 for output gradients g proportional to r. It does not
    depend on the batch and is the same for epsilon- and v-prediction.
    """
    with torch.no_grad():
        r_w = (wide(pred.policy_w) - wide(pred.target_w)).flatten(1)
        r_l = (wide(pred.policy_l) - wide(pred.target_l)).flatten(1)
        ww, lw = (r_w * r_w).sum(1), (r_l * r_w).sum(1)
        return torch.where(lw > 0, ((1 - mu) * ww / lw).clamp(0, 1), torch.ones_like(lw))


def none(pred: PairPrediction) -> tuple[PairPrediction, dict[str, Float[Tensor, " B"]]]:
    """Every gradient as it is."""
    return pred, {}


class NormOptions(Options):
    """weight 1: ours; the paper's is not known here."""

    weight: float = told(1.0, "Of the penalty, beside the loss.", gt=0)


def norm(pred: PairPrediction, *, weight: float) -> tuple[PairPrediction, dict[str, Float[Tensor, " B"]]]:
    """A penalty on predictions that are longer than the reference's.

        penalty = weight * (h_w + h_l) / 2,  h = max(0, |v| / |v_ref| - 1)^2, lengths over C,H,W

    Preference training lengthens predictions by 5 to 15 % (the paper's finding), and pictures look burnt; where no
    prediction is longer than the reference's, nothing is added. The values of the predictions stay.

    Args:
        pred: a placed pair's prediction with the reference's tensors. weight: > 0.

    Returns:
        The prediction with its penalty [B], and {"guard_length": [B]}, the mean of |v| / |v_ref| of the two images.

    Raises:
        ValueError: the prediction has no reference tensors.

    References: NormGuard (arXiv 2606.27771), abstract: a hinge that acts where the length exceeds the reference's.
    Deviations: the square of the relative excess, and its weight, are ours: the paper's formula was not at hand.
    """
    if pred.ref_w is None or pred.ref_l is None:
        raise ValueError("this guard needs the reference's predictions: give ref_w and ref_l")
    lengths = [
        wide(ours).flatten(1).norm(dim=1) / wide(theirs.detach()).flatten(1).norm(dim=1)
        for ours, theirs in ((pred.policy_w, pred.ref_w), (pred.policy_l, pred.ref_l))
    ]
    excess = [(length - 1.0).clamp(min=0.0).square() for length in lengths]
    penalty = weight * (excess[0] + excess[1]) / 2
    return replace(pred, penalty=penalty), {"guard_length": ((lengths[0] + lengths[1]) / 2).detach()}


def sdpo(
    pred: PairPrediction, *, mu: float, scope: Scope = "sample"
) -> tuple[PairPrediction, dict[str, Float[Tensor, " B"]]]:
    """The winner-preserving guard: multiply the gradient of the loser's prediction by lambda; no value changes.

        policy_l <- sg(policy_l) + lambda * (policy_l - sg(policy_l))

    Args:
        pred: a placed pair's prediction. mu: in [0, 1]; 0 only removes what would raise the winner's error.
        scope: see `GuardOptions`.

    Returns:
        The prediction to hand to any paired objective, and {"guard_lambda": [B]}.

    References: Diffusion-SDPO, repository AIDC-AI/Diffusion-SDPO train.py:84-124, 1182-1237.
    Deviations: one lambda per pair by default; scale-free (no 1e-9 in the denominator).
    """
    scale = pair_scale(pred, mu=mu) if scope == "sample" else aidc_ai_sdpo_scale(pred, mu=mu)
    policy_l = wide(pred.policy_l)
    fixed = policy_l.detach()
    shaped = scale.to(policy_l.dtype).view(-1, *[1] * (policy_l.ndim - 1))
    return replace(pred, policy_l=fixed + shaped * (policy_l - fixed)), {"guard_lambda": scale}
