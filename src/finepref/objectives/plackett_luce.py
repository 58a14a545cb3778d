"""Plackett-Luce: a whole ranking of a prompt's images as a sequence of choices, the best of what is left each time."""

from __future__ import annotations

import torch

from finepref.core.options import Options
from finepref.core.tensors import ListPrediction, ObjectiveOutput
from finepref.objectives.core import Beta, mean_square


class PlackettLuceOptions(Options):
    """beta 5000: that of Diffusion-DPO, which a list of two is."""

    beta: Beta = 5000.0


def plackett_luce(pred: ListPrediction, *, beta: float) -> ObjectiveOutput:
    """The negative log-likelihood of a ranking.

        s_k = (beta/2) A_k,  A = L_ref - L,  loss = -sum_k log( exp s_k / sum_{j >= k} exp s_j ),  k from the best on

    A list of two is `dpo` with margin 0 and weight 1; at policy == reference the loss is log K!.

    Args:
        pred: B lists of K images, the best first, all at one level with one noise a list.
        beta: > 0, as for `dpo`.

    Returns:
        loss [B]; statistics, each [B]: L_w, A_w of the best and L_l, A_l of the worst, u = s_best - s_worst,
        implicit_accuracy, the share of the list's pairs that the policy orders as the ranking does.

    References: Plackett, 1975; Diffusion-LPO (arXiv 2510.01540), abstract; there is no public code.
    Deviations: factor 1/2 and mean over C,H,W as in `dpo`.
    """
    errors = torch.stack(
        [mean_square(p, t, scale=pred.error_scale) for p, t in zip(pred.policy, pred.target, strict=True)]
    )
    reference = pred.ref_error if pred.error_scale is None else pred.ref_error * pred.error_scale
    gained = reference - errors  # [K,B]
    score = beta / 2 * gained
    left = torch.logcumsumexp(score.flip(0), dim=0).flip(0)
    first, second = torch.triu_indices(len(score), len(score), offset=1)
    held = gained.detach()
    stats = {
        "L_w": errors[0].detach(), "L_l": errors[-1].detach(), "A_w": held[0], "A_l": held[-1],
        "u": (score[0] - score[-1]).detach(), "implicit_accuracy": (held[first] > held[second]).to(held.dtype).mean(0),
    }  # fmt: skip
    return ObjectiveOutput(loss=(left - score)[:-1].sum(0), stats=stats)
