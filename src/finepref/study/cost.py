"""What a run costs, in network forwards: a forward with its backward counts as three, one without gradient as one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch

from finepref.diffusion.options import InversionOptions, RenoiseOptions
from finepref.diffusion.path import Path, scaled_linear
from finepref.diffusion.programme import lowest_t, programme
from finepref.train.method import Method

WEIGHTS = {"policy": 3, "reference": 1, "inversion": 1}


def spent(calls: Mapping[str, int]) -> int:
    """Cost of the network calls that a run has counted (images per network)."""
    return sum(weight * calls[name] for name, weight in WEIGHTS.items())


def per_row(method: Method) -> float:
    """Expected cost of one pair (one image, where the objective takes single images), over uniform t.

    images * (3 policy + 1 reference) + 2 * (mean number of inversion calls) * (2 with guidance, else 1)
    """
    needs = method.objective.needs
    images = 2 if needs.paired and needs.loser else 1
    cost = images * (WEIGHTS["policy"] + (WEIGHTS["reference"] if needs.reference != "none" else 0))
    options = method.inversion
    if options is None:
        return float(cost)
    passes = 1 if options.cfg in (0, 1) else 2
    return cost + 2 * passes * WEIGHTS["inversion"] * inversion_calls(options)


def steps_for(budget: int, method: Method, *, per_step: int) -> int:
    """Optimiser steps that the budget pays for, at least one."""
    return max(1, round(budget / (per_step * per_row(method))))


@lru_cache(maxsize=64)
def inversion_calls(options: InversionOptions) -> float:
    """Mean number of calls of one image's inversion over the levels that are drawn."""
    renoise = options.renoise if isinstance(options, RenoiseOptions) else "none"
    label = options.label if isinstance(options, RenoiseOptions) else "source"
    path = _path()
    assert path.alpha_bar is not None
    levels = torch.arange(lowest_t(options.grid), len(path.alpha_bar))
    plan = programme(levels, path=path, grid=options.grid, steps=options.steps, renoise=renoise, label=label)
    return plan.calls.double().mean().item()


@lru_cache(maxsize=1)
def _path() -> Path:
    return scaled_linear()
