"""Quirks of published code that make one pair's loss depend on its micro-batch.

They exist so that published numbers can be reproduced, are named after their repository, and are never defaults.
Batch-split invariance does not hold for anything in this file.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import mean_square, wide
from finepref.objectives.dpo import dpo
from finepref.objectives.dspo import DspoLogitOptions, dspo_brier, dspo_shift


class HuaishengzhuDspoSdxlOptions(DspoLogitOptions):
    """beta 5000 and threshold 0.1: the official SDXL launcher and code."""

    threshold: Annotated[float, Field(ge=0, description="Batch mean of mean(d_w^2) from which branch B is taken.")] = (
        0.1
    )


def aidc_ai_sdpo_scale(pred: PairPrediction, *, mu: float) -> Float[Tensor, " B"]:
    """One lambda for the whole micro-batch, repeated [B].

        lambda = clip((1-mu) <r_w, r_w> / <r_l, r_w>, 0, 1) if <r_l, r_w> > 0 else 1, inner products over the batch

    References: AIDC-AI/Diffusion-SDPO train.py:84-124.
    Deviations: scale-free; the official 1e-9 in the denominator moves lambda by 0.1 % to 1 % at SDXL sizes.
    """
    with torch.no_grad():
        r_w = wide(pred.policy_w) - wide(pred.target_w)
        r_l = wide(pred.policy_l) - wide(pred.target_l)
        ww, lw = (r_w * r_w).sum(), (r_l * r_w).sum()
        scale = torch.where(lw > 0, ((1 - mu) * ww / lw).clamp(0, 1), torch.ones_like(lw))
        return scale.expand(r_w.shape[0])


def huaishengzhu_dspo_sdxl(
    pred: PairPrediction, signal: PairSignal, *, beta: float, threshold: float
) -> ObjectiveOutput:
    """Branch B (`dspo_shift`) or C (`dspo_brier`), chosen by the batch mean of the winner's shift.

    References: huaishengzhu/DSPO train.py:1161-1169; the threshold is per micro-batch and GPU.
    """
    if pred.ref_w is None:
        raise ValueError("this form of DSPO needs the reference's predictions (ref_w, ref_l)")
    shift = mean_square(pred.policy_w.detach(), pred.ref_w.detach()).mean()
    branch = dspo_shift if bool(shift >= threshold) else dspo_brier
    return branch(pred, signal, beta=beta)


def jaydenlyh_smpo(pred: PairPrediction, signal: PairSignal, *, beta: float) -> ObjectiveOutput:
    """DPO in which the first pair's weight is applied to every pair of the micro-batch.

    References: JaydenLyh/SmPO train.py:1061 (`probs[0]`); equal to `dpo` at micro-batch 1, the only size it ran at.
    """
    first = signal.weight[:1].expand_as(signal.weight)
    return dpo(pred, PairSignal(margin=signal.margin, weight=first), beta=beta)
