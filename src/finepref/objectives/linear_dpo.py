"""Linear-DPO: the gradient of a pair falls on a straight line of its logit, and is cut off at both ends."""

from __future__ import annotations

from finepref.core.options import Options, told
from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import Beta, advantage_logit, pair_errors, statistics


class LinearDpoOptions(Options):
    """beta 100 and eta 0.001: the official launchers."""

    beta: Beta = 100.0
    eta: float = told(0.001, "A pair's coefficient stays within [eta, 1 - eta].", gt=0, lt=0.5)


def linear_dpo(pred: PairPrediction, signal: PairSignal, *, beta: float, eta: float) -> ObjectiveOutput:
    """The difference of the errors, times a coefficient without gradient.

        c = stopgrad(clip(0.5 - 0.4 u, eta, 1 - eta)),  loss = c (L_w - L_l),  u as in `dpo`

    DPO's own gradient is (beta/2) sigmoid(-u) grad (L_w - L_l); c is a line in the place of sigmoid(-u). There is no
    beta before it, so rates of DPO do not carry over.

    Args:
        pred, signal, beta: as `dpo`.
        eta: in (0, 0.5).

    Returns:
        loss [B] of either sign; statistics as `dpo` and coefficient c [B].

    References: Linear-DPO (arXiv 2605.21123), Whynot0101/Linear-DPO 663179c, train/train_sd_dpo.py:1158-1166.
    Deviations: margin and weight of the signal act on u; the reference that moves is `train.reference`.
    """
    errors = pair_errors(pred)
    u = advantage_logit(errors, signal, beta=beta)
    coefficient = (0.5 - 0.4 * u.detach()).clamp(eta, 1.0 - eta)
    stats = {**statistics(errors, u), "coefficient": coefficient}
    return ObjectiveOutput(loss=coefficient * (errors.w - errors.l), stats=stats)
