"""Diffusion-DPO with a margin and a weight per pair: DPO, uniform margin, ArenaPO, InPO, SmPO; and its hinge."""

from __future__ import annotations

from torch.nn.functional import relu

from finepref.core.options import Options, told
from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import Beta, advantage_logit, pair_errors, sigmoid_loss, statistics


class DpoOptions(Options):
    """beta 5000: both official launchers (the paper's SD1.5 text says 2000)."""

    beta: Beta = 5000.0


class ConservativeOptions(DpoOptions):
    """epsilon 0.1: the value that the note on conservative DPO takes as an example."""

    epsilon: float = told(0.1, "Share of the labels that are assumed to be wrong.", ge=0, lt=0.5)


def dpo(pred: PairPrediction, signal: PairSignal, *, beta: float) -> ObjectiveOutput:
    """The logistic loss of the pair logit.

        u = (beta/2) * w * (A_w - A_l) - m        A = L_ref - L        loss = -log sigmoid(u)

    m = 0 and w = 1 is Diffusion-DPO; m = lambda * gap is ArenaPO; w = gamma (2p - 1) is SmPO.

    Args:
        pred: policies and targets [B,C,H,W], reference errors [B] (or tensors).
        signal: margin and weight [B].
        beta: > 0, the official flag; diffusers' SD script writes 2500 for what is 5000 here.

    Returns:
        loss [B]; statistics L_w, L_l, A_w, A_l, implicit_accuracy, u, sigmoid_minus_u, each [B].

    Raises:
        ValueError: the prediction has no reference.

    References: Diffusion-DPO (arXiv 2311.12908) Eq. 14; ArenaPO Eq. 14; SmPO-Diffusion Eq. 15.
    Deviations: both errors in float32 or wider (the official code rounds the reference error to half precision).
    """
    errors = pair_errors(pred)
    u = advantage_logit(errors, signal, beta=beta)
    return ObjectiveOutput(loss=sigmoid_loss(u), stats=statistics(errors, u))


def conservative_dpo(pred: PairPrediction, signal: PairSignal, *, beta: float, epsilon: float) -> ObjectiveOutput:
    """Conservative DPO: the label is wrong with probability epsilon.

        loss = -(1 - epsilon) log sigmoid(u) - epsilon log sigmoid(-u),  u as in `dpo`

    It is the cross-entropy of sigmoid(u) with the soft label 1 - epsilon, whose least is at u = log((1 - epsilon) /
    epsilon); DMPO has the divergence the other way round.

    Args:
        pred, signal, beta: as `dpo`. epsilon: in [0, 0.5); 0 is `dpo`.

    Returns:
        loss [B], ln 2 at u = 0; statistics as `dpo`.

    References: E. Mitchell, "A note on DPO with noisy preferences & relationship to IPO" (2023), Eq. 3; TRL's
    DPOTrainer, label_smoothing.
    Deviations: on the errors of a diffusion model.
    """
    errors = pair_errors(pred)
    u = advantage_logit(errors, signal, beta=beta)
    loss = (1.0 - epsilon) * sigmoid_loss(u) + epsilon * sigmoid_loss(-u)
    return ObjectiveOutput(loss=loss, stats=statistics(errors, u))


def hinge(pred: PairPrediction, signal: PairSignal, *, beta: float) -> ObjectiveOutput:
    """The hinge loss of the pair logit.

        loss = max(0, 1 - u),  u as in `dpo`

    Args and Returns: as `dpo`.

    References: diffusers examples/research_projects/diffusion_dpo/train_diffusion_dpo.py, loss_type hinge.
    Deviations: beta is the official Diffusion-DPO value, twice the number of that script.
    """
    errors = pair_errors(pred)
    u = advantage_logit(errors, signal, beta=beta)
    return ObjectiveOutput(loss=relu(1 - u), stats=statistics(errors, u))
