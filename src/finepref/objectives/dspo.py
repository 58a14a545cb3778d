"""Direct score preference optimisation: the residual form, and the two forms that its SDXL code switches between."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from finepref.core.options import Options
from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import Beta, advantage_logit, mean_square, pair_errors, statistics, wide


class DspoOptions(Options):
    """The residual form. The official SD1.5 code uses one number (0.001, search 0.001-0.05) for both."""

    beta: Beta = 0.001
    lambda_residual: Annotated[
        float,
        Field(
            ge=0,
            description="Coefficient of the score correction outside the logit (official: equal to beta; 0 is SFT).",
        ),
    ] = 0.001


class DspoLogitOptions(Options):
    """The forms without a residual: beta 5000, the official SDXL launcher."""

    beta: Beta = 5000.0


def dspo(pred: PairPrediction, signal: PairSignal, *, beta: float, lambda_residual: float) -> ObjectiveOutput:
    """The winner's score, shifted by the gradient of the log-sigmoid of the implicit reward gap.

        loss = mean || r_w - lambda_r (1 - sigmoid(u)) d_w ||^2,  r_w = policy_w - target_w,  d_w = policy_w - ref_w

    Gradients flow through r_w, d_w and u (both images), as in the official code.

    Args:
        pred: policies, targets and reference predictions [B,C,H,W].
        signal: margin and weight [B], inside u.
        beta: > 0, of the logit u; 2000-5000 where a margin is meant to act.
        lambda_residual: >= 0; lambda_r. With lambda_r = beta = 5000 the gradient is about 1e6 times SFT's.

    Returns:
        loss [B]; statistics as `dpo`.

    Raises:
        ValueError: the prediction has no reference tensors.

    References: DSPO (ICLR 2025), repository huaishengzhu/DSPO train.py:1141-1160; decoupled form: our reconstruction of
    ArenaPO+DSPO (ArenaPO Table 5).
    Deviations: beta and lambda_r are two numbers; at the official 0.001 the loss is SFT to 0.05 % of the gradient and a
    margin of 2 changes it by 0.04 %.
    """
    if pred.ref_w is None:
        raise ValueError("the residual form of DSPO needs the reference's predictions (ref_w, ref_l)")
    errors = pair_errors(pred)
    u = advantage_logit(errors, signal, beta=beta)
    policy_w = wide(pred.policy_w)
    correction = lambda_residual * torch.sigmoid(-u).view(-1, *[1] * (policy_w.ndim - 1))
    shifted = policy_w - correction * (policy_w - wide(pred.ref_w.detach()))
    return ObjectiveOutput(
        loss=mean_square(shifted, pred.target_w, scale=pred.error_scale), stats=statistics(errors, u)
    )


def dspo_brier(pred: PairPrediction, signal: PairSignal, *, beta: float) -> ObjectiveOutput:
    """The DPO logit under a Brier link: branch C of the official SDXL code, with a margin ArenaPO+DSPO.

        loss = (1 - sigmoid(u))^2

    Args and Returns: as `dpo`.

    References: huaishengzhu/DSPO train.py:1161-1169 (batch-mean shift below 0.1).
    Deviations: chosen by name, never by a batch statistic (that is `published.huaishengzhu_dspo_sdxl`).
    """
    errors = pair_errors(pred)
    u = advantage_logit(errors, signal, beta=beta)
    return ObjectiveOutput(loss=torch.sigmoid(-u).square(), stats=statistics(errors, u))


def dspo_shift(pred: PairPrediction, signal: PairSignal, *, beta: float) -> ObjectiveOutput:
    """The winner's shift from the reference, weighted: branch B of the official SDXL code.

        loss = (1 - sigmoid(u))^2 * mean(d_w^2)

    Args and Returns: as `dspo`.

    References: huaishengzhu/DSPO train.py:1161-1169 (batch-mean shift of 0.1 and more).
    Deviations: chosen by name, never by a batch statistic.
    """
    if pred.ref_w is None:
        raise ValueError("this form of DSPO needs the reference's predictions (ref_w, ref_l)")
    errors = pair_errors(pred)
    u = advantage_logit(errors, signal, beta=beta)
    shift = mean_square(pred.policy_w, pred.ref_w.detach(), scale=pred.error_scale)
    return ObjectiveOutput(loss=torch.sigmoid(-u).square() * shift, stats=statistics(errors, u))
