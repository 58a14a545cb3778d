"""What a run costs, in network forwards: a forward with its backward counts as three, one without gradient as one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from finepref.diffusion.path import scaled_linear
from finepref.diffusion.programme import mean_calls
from finepref.diffusion.trajectory_options import InversionOptions
from finepref.train.method import Method

WEIGHTS = {"policy": 3, "reference": 1, "inversion": 1, "anchor": 1}


def spent(calls: Mapping[str, int]) -> int:
    """Cost of the network calls that a run has counted (images per network)."""
    return sum(WEIGHTS[name] * count for name, count in calls.items())


def per_row(method: Method) -> float:
    """Expected cost of one pair (one image, where the objective takes single images), over uniform t.

    images * (3 policy + 1 reference) + 2 * (mean number of inversion calls) * (2 with guidance, else 1) / share
    """
    needs = method.objective.needs
    images = 2 if needs.paired and needs.loser else 1
    cost = images * (WEIGHTS["policy"] + (WEIGHTS["reference"] if needs.reference != "none" else 0))
    options = method.inversion
    if options is None:
        return float(cost)
    return cost + 2 * options.passes * WEIGHTS["inversion"] * inversion_calls(options) / options.share


def steps_for(budget: int, method: Method, *, per_step: int) -> int:
    """Optimiser steps that the budget pays for, at least one."""
    return max(1, round(budget / (per_step * per_row(method))))


@lru_cache(maxsize=64)
def inversion_calls(options: InversionOptions) -> float:
    """Mean number of calls of one image's trajectory over the levels that are drawn, on the lab's path."""
    return mean_calls(options, scaled_linear())
