"""Margin-aware preference optimisation (MaPO): a bounded link on the errors, no reference."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from finepref.core.options import Options
from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import logit, pair_errors, sigmoid_loss, statistics

SERIES_BELOW = 0.25  # the remainder of the series is below 2e-14 there


class MapoOptions(Options):
    """beta 0.1, snr_value 0.5, 1000 timesteps: the official SDXL code."""

    beta: Annotated[
        float, Field(ge=0, description="beta_mapo: the pair term's share beside L_w (0 is SFT). Not the logit's gain.")
    ] = 0.1
    snr_value: Annotated[float, Field(gt=0, description="k in phi(L) = kL / (exp(kL) - 1).")] = 0.5
    timesteps: Annotated[float, Field(gt=0, description="T, the gain of the pair logit.")] = 1000.0


def phi(loss: Float[Tensor, " B"], *, snr_value: float) -> Float[Tensor, " B"]:
    """phi(L) = x / (exp(x) - 1), x = k L: in (0, 1], 1 at 0, slope -k/2 there.

    A series for small x and a form without overflow for large x keep value and gradient exact in float32 and float64.
    """
    x = loss * snr_value
    small = x < SERIES_BELOW
    y = torch.where(small, x, torch.zeros_like(x))
    y2 = y * y
    series = 1 - y / 2 + y2 * (1 / 12 - y2 * (1 / 720 - y2 * (1 / 30240 - y2 / 1209600)))
    z = torch.where(small, torch.ones_like(x), x)
    return torch.where(small, series, z * torch.exp(-z) / -torch.expm1(-z))


def mapo(
    pred: PairPrediction, signal: PairSignal, *, beta: float, snr_value: float, timesteps: float
) -> ObjectiveOutput:
    """The winner's denoising error plus a reference-free pair term.

        u = T * w * (phi(L_w) - phi(L_l)) - m,  loss = L_w - beta * log sigmoid(u)

    Args:
        pred: policies and targets [B,C,H,W]; no reference.
        signal: margin and weight [B] (0 and 1 in the paper).
        beta: >= 0, beta_mapo. snr_value: > 0, k of phi. timesteps: > 0, T.

    Returns:
        loss [B]; statistics L_w, L_l, u, sigmoid_minus_u.

    References: MaPO (arXiv 2406.06424), repository mapo-t2i/mapo utils.py:286-301.
    Deviations: phi(0) = 1 (the official expression is NaN there).
    """
    errors = pair_errors(pred, reference=False)
    difference = phi(errors.w, snr_value=snr_value) - phi(errors.l, snr_value=snr_value)
    u = logit(difference, signal, gain=timesteps)
    return ObjectiveOutput(loss=errors.w + beta * sigmoid_loss(u), stats=statistics(errors, u))
