"""Three objectives of papers and tools after ours, each one line on the pair logit: rows of a `--plugin` file.

    finepref methods --plugin examples/objectives_of_others.py
    finepref train -c lab/dpo --plugin examples/objectives_of_others.py objective.name=poly_dpo objective.alpha=0.5 ...

u = (beta/2) w (A_w - A_l) - m is DPO's pair logit, p = sigmoid(u). docs/own_rows.md says what a row is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

import finepref
from finepref.core.options import Options, told
from finepref.core.tensors import ObjectiveOutput, PairPrediction, PairSignal
from finepref.objectives.core import Beta, PairErrors, advantage_logit, pair_errors, sigmoid_loss, statistics
from finepref.objectives.table import ObjectiveRow


class PolyOptions(Options):
    beta: Beta = 5000.0
    alpha: float = told(0.5, "Above 0 for noisy votes, below for trivial ones; 0 is DPO.", ge=-1)


class AlphaOptions(Options):
    beta: Beta = 5000.0
    alpha: float = told(0.5, "Order of the divergence; near 1 the loss is p ln p - p + 1.", gt=0, lt=1)


class SftOptions(Options):
    beta: Beta = 5000.0
    sft: float = told(1.0, "Weight of the winner's own error; 0 is DPO.", ge=0)


def objective(line: Callable[..., Tensor]) -> Callable[..., ObjectiveOutput]:
    """A row's function from `line(u, errors, **options)`, the loss of every pair."""

    def function(pred: PairPrediction, signal: PairSignal, *, beta: float, **options: float) -> ObjectiveOutput:
        errors = pair_errors(pred)
        u = advantage_logit(errors, signal, beta=beta)
        return ObjectiveOutput(loss=line(u, errors, **options), stats=statistics(errors, u))

    return function


def poly_dpo(u: Tensor, errors: PairErrors, *, alpha: float) -> Tensor:
    """Poly-DPO (arXiv 2604.24953): -ln p + alpha (1 - p); its gradient is DPO's times 1 + alpha p."""
    return sigmoid_loss(u) + alpha * torch.sigmoid(-u)


def alpha_dpo(u: Tensor, errors: PairErrors, *, alpha: float) -> Tensor:
    """alpha-DPO (ICLR 2026): (p^alpha - (1 - alpha) - alpha p) / (alpha (alpha - 1)), alpha fixed.

    Its code multiplies alpha by the mean p of all pairs of a step after `--reweight_step`; this is what it does before.
    """
    power = torch.exp(alpha * logsigmoid(u))  # p^alpha, whose gradient is finite at p = 0 too
    return (power - (1 - alpha) - alpha * torch.sigmoid(u)) / (alpha * (alpha - 1))


def dpo_sft(u: Tensor, errors: PairErrors, *, sft: float) -> Tensor:
    """DPO with the winner's own error beside it, against losers pushed away (as TRL's rpo_alpha has it)."""
    return sigmoid_loss(u) + sft * errors.w


for name, line, options in (
    ("poly_dpo", poly_dpo, PolyOptions),
    ("alpha_dpo", alpha_dpo, AlphaOptions),
    ("dpo_sft", dpo_sft, SftOptions),
):
    source = (line.__doc__ or "").splitlines()[0]
    finepref.register(objective=ObjectiveRow(name=name, function=objective(line), options=options, source=source))
