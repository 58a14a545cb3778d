"""The tiny networks of the inversion files, as denoisers that count their calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adapters.common import signal, tensor
from finepref.core.tensors import PairPrediction, Placed
from finepref.diffusion.path import Path, scaled_linear
from finepref.diffusion.trajectories import TRAJECTORIES
from finepref.objectives.core import mean_square
from finepref.objectives.dpo import dpo
from tolerance import SINGLE

TABLE = 8 * SINGLE  # four units in the last place; a table of float64 is off by 13


class Tiny:
    """eps(x, t) = tanh(W x + (t/1000) b + c), pixel by pixel; `calls` lists the t of every call."""

    def __init__(self, weights: dict[str, Any]) -> None:
        self.W, self.b, self.c = (tensor(weights[name]) for name in ("W", "b", "c"))
        self.calls: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        assert t.unique().numel() == 1
        self.calls.append(int(t[0]))
        level = (t.to(x.dtype) / 1000).view(-1, 1) * self.b + self.c
        return torch.tanh(torch.einsum("oc,nchw->nohw", self.W, x) + level[:, :, None, None])


def recorded(levels: Mapping[str, float], path: Path | None = None) -> Path:
    """SD's path with the file's own table where it gives it: of a float32 table, processors differ in the last place.

    levels: timestep -> cumulative alpha.
    """
    path = path or scaled_linear()
    assert path.alpha_bar is not None
    table = path.alpha_bar.clone()
    for level, value in levels.items():
        assert abs(table[int(level)] / value - 1) <= TABLE, level
        table[int(level)] = value
    return replace(path, alpha_bar=table)


def walk(case: dict[str, Any], path: Path, policy: Tiny, *, trajectory: str, **own: Any) -> Placed:
    """Place the case's pair (row 0 winner, row 1 loser) at its t."""
    row = TRAJECTORIES[trajectory]
    x0, draws = tensor(case["inputs"]["x0"]), case["inputs"].get("gaussian_draws_in_order")
    noise = None if draws is None else tensor(draws)
    t = torch.tensor([case["hyperparameters"]["t"]])
    return row.place(
        x0[:1],
        x0[1:],
        t,
        path=path,
        options=row.options(**own),
        denoise=policy,
        draw=None if noise is None else lambda rows, steps: noise[steps, rows],
    )


def judged(
    case: dict[str, Any], meta: dict[str, Any], placed: Placed, policy: Tiny, *, weight: float
) -> dict[str, Any]:
    """x_t, tau, predictions, logit and loss of a placed pair (epsilon prediction: the target is tau)."""
    x_t = torch.cat([placed.xt_w, placed.xt_l])
    target = torch.cat([placed.target_w, placed.target_l])
    both = torch.cat([placed.t, placed.t])
    reference = Tiny(meta["networks"]["reference"])(x_t, both)
    predicted = policy(x_t, both)
    pred = PairPrediction(
        policy_w=predicted[:1],
        policy_l=predicted[1:],
        target_w=placed.target_w,
        target_l=placed.target_l,
        ref_error_w=mean_square(reference[:1], placed.target_w),
        ref_error_l=mean_square(reference[1:], placed.target_l),
    )
    output = dpo(pred, signal(1, weight=weight), beta=case["hyperparameters"]["beta"])
    return {
        "x_t": x_t.tolist(),
        "tau": target.tolist(),
        "policy_pred": predicted.tolist(),
        "reference_pred": reference.tolist(),
        "weight": weight,
        "logit": output.stats["u"].tolist(),
        "loss": output.loss.mean().item(),
        "network_calls_t": policy.calls,
    }
