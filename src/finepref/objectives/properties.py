"""What every objective and guard holds, checked on a few drawn tensors when one is registered from outside.

A pair's loss and gradient depend on that pair alone, unless the row says that they do not; the loss is one finite
number a pair, and its gradient finite; policy == reference gives u == 0; a guard changes gradients and no value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from finepref.core.errors import InputError
from finepref.core.options import check_function
from finepref.core.rng import torch_generator
from finepref.core.tensors import PairPrediction, PairSignal
from finepref.objectives.core import mean_square

if TYPE_CHECKING:
    from finepref.objectives.table import GuardRow, ObjectiveRow

ALL = [0, 1, 2]


def check_objective(row: ObjectiveRow) -> None:
    """Refuse an objective that cannot be called with its options, or breaks what every objective holds.

    Raises:
        InputError: which of them.
    """
    if not row.needs.paired:
        what = "it takes single images or lists, which only kto and plackett_luce can"
        raise InputError(what, remedy="take pairs (needs=Needs(paired=True))")
    check_function(row.function, row.options, positional=2)
    options = row.options().model_dump()

    def gradients(rows: list[int]) -> tuple[Tensor, ...]:
        pred = _drawn(rows, row.needs.reference)
        said = row.function(pred, _signal(rows), **options)
        loss: Tensor = said.loss
        for name, value in said.stats.items():
            if not isinstance(value, Tensor) or value.shape != (len(rows),):
                remedy = "give each the shape [B], without gradient"
                raise InputError(f"its statistic {name!r} is not one number a pair", remedy=remedy)
        if loss.shape != (len(rows),) or not bool(loss.isfinite().all()) or not loss.requires_grad:
            raise InputError("its loss is not one finite number a pair, with a gradient", remedy="return loss=[B]")
        (slope,) = torch.autograd.grad(loss.sum(), pred.policy_w)
        if not bool(slope.isfinite().all()):
            what = "its gradient is not finite where the logit is far from 0"
            raise InputError(what, remedy="use torch's logsigmoid(u), never log or a power of sigmoid(u)")
        return loss.detach(), slope

    _independent(gradients, allowed=row.batch_dependent)
    same = _drawn(ALL, row.needs.reference, policy="ref")
    u = row.function(same, PairSignal(margin=torch.zeros(3), weight=torch.ones(3)), **options).stats.get("u")
    if row.needs.reference != "none" and u is not None and bool(u.abs().max() > 1e-9):
        raise InputError("u is not 0 where policy equals reference", remedy="compare both with the same reduction")


def check_guard(row: GuardRow) -> None:
    """Refuse a guard that cannot be called with its options, changes a value, or mixes pairs.

    Raises:
        InputError: which of them.
    """
    check_function(row.function, row.options, positional=1)
    options = row.options().model_dump()

    def gradients(rows: list[int]) -> tuple[Tensor, ...]:
        pred = _drawn(rows, "tensors" if row.tensors else "none")
        found, stats = row.function(pred, **options)
        if not (torch.equal(found.policy_w, pred.policy_w) and torch.equal(found.policy_l, pred.policy_l)):
            raise InputError("it changes predictions", remedy="keep values: x.detach() + factor * (x - x.detach())")
        if any(value.shape != (len(rows),) for value in stats.values()):
            raise InputError("a statistic is not one number a pair", remedy="give each the shape [B]")
        errors = mean_square(found.policy_w, pred.target_w) - mean_square(found.policy_l, pred.target_l)
        errors = errors if found.penalty is None else errors + found.penalty
        return torch.autograd.grad(errors.sum(), (pred.policy_w, pred.policy_l))

    _independent(gradients, allowed=row.batch_dependent)


def _independent(found: Callable[[list[int]], tuple[Tensor, ...]], *, allowed: bool) -> None:
    whole, alone = found(ALL), [found([row]) for row in ALL]
    parts = [torch.cat(each) for each in zip(*alone, strict=True)]
    if not allowed and not all(torch.allclose(*each, rtol=1e-9, atol=1e-12) for each in zip(whole, parts, strict=True)):
        remedy = "reduce over C,H,W only, or say batch_dependent=True"
        raise InputError("a pair's loss or gradient depends on the other pairs of its batch", remedy=remedy)


def _signal(rows: list[int]) -> PairSignal:
    margin, weight = torch.rand(2, 3, generator=torch_generator(0, "signal"), dtype=torch.float64)[:, rows]
    return PairSignal(margin=margin, weight=0.5 + weight)


def _drawn(rows: list[int], reference: str = "none", *, policy: str = "policy") -> PairPrediction:
    """Float64 predictions of unlike pairs, with gradient; a reference as far as it is needed."""

    def draw(word: str) -> Tensor:
        return torch.randn((3, 2, 4, 4), generator=torch_generator(0, word), dtype=torch.float64)[rows]

    given = {f"policy_{side}": draw(f"{policy}_{side}").requires_grad_() for side in "wl"}
    given |= {f"target_{side}": draw(f"target_{side}") for side in "wl"}
    if reference == "tensors":
        given |= {f"ref_{side}": draw(f"ref_{side}") for side in "wl"}
    elif reference == "errors":
        given |= {f"ref_error_{side}": mean_square(draw(f"ref_{side}"), given[f"target_{side}"]) for side in "wl"}
    return PairPrediction(**given)
