"""Divergence minimisation on the pair logit (DMPO)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch.nn.functional import logsigmoid

from finepref.core.options import Options
from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import Beta, advantage_logit, pair_errors, statistics


class DmpoOptions(Options):
    """beta 2000 and alpha 0.01: the SD1.5 launcher of Diffusion-SDPO (SDXL: 6000)."""

    beta: Beta = 2000.0
    alpha: Annotated[
        float, Field(gt=0, lt=1, description="Assumed probability that the label is wrong; q = 1 - alpha.")
    ] = 0.01


def dmpo(pred: PairPrediction, signal: PairSignal, *, beta: float, alpha: float) -> ObjectiveOutput:
    """The divergence of the model's preference from a smoothed label.

        p = sigmoid(u),  q = 1 - alpha,  loss = p ln(p/q) + (1-p) ln((1-p)/(1-q))

    Args:
        pred, signal, beta: as `dpo`.
        alpha: 0 < alpha < 1.

    Returns:
        loss [B] >= 0, zero where sigmoid(u) = 1 - alpha; statistics as `dpo`.

    References: the dmpo method of AIDC-AI/Diffusion-SDPO train.py:1182-1237; KL(p || q), not KL(q || p).
    Deviations: written with log-sigmoids, finite for every finite u.
    """
    errors = pair_errors(pred)
    u = advantage_logit(errors, signal, beta=beta)
    for_w = torch.sigmoid(u) * (logsigmoid(u) - math.log1p(-alpha))
    for_l = torch.sigmoid(-u) * (logsigmoid(-u) - math.log(alpha))
    return ObjectiveOutput(loss=for_w + for_l, stats=statistics(errors, u))
