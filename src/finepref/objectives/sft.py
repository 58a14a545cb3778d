"""Supervised fine-tuning on the winner."""

from __future__ import annotations

from finepref.core.options import Options
from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import mean_square


class SftOptions(Options):
    """SFT has no options: no reference, no beta, no signal."""


def sft(pred: PairPrediction, signal: PairSignal) -> ObjectiveOutput:
    """The denoising error of the winner.

        loss = L_w

    Args:
        pred: policy_w and target_w [B,C,H,W]; the loser and the reference are not looked at.
        signal: not looked at; the winner is chosen before.

    Returns:
        loss [B] and the statistic L_w [B].

    References: the `--sft` switch of Diffusion-DPO (arXiv 2311.12908), train.py:1119-1120.
    """
    del signal
    loss = mean_square(pred.policy_w, pred.target_w, scale=pred.error_scale)
    return ObjectiveOutput(loss=loss, stats={"L_w": loss.detach()})
