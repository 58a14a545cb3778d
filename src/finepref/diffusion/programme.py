"""Which network calls each pair of a batch makes on its way from x0 to x_t: a table of steps, made on the CPU.

Shapes: N calls of the longest pair, B pairs.
A step goes from level `source` to level `destination`; a call is either a step's first prediction or its refinement.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from finepref.diffusion.options import Grid, Label, Renoise
from finepref.diffusion.path import Path
from finepref.errors import ConfigError

Step = tuple[float, float, float]  # source, destination, label: integers on discrete paths


@dataclass(frozen=True, slots=True, eq=False)
class Programme:
    """Per call n and pair i, each [N,B], on the CPU; entries beyond a pair's own number of calls are not read.

    source, destination, label: levels (int64, or float64 on flows; official labels may be negative).
    step: index of the step. refine: whether this call refines a step. final: whether the step is over after it.
    calls: [B] number of calls of each pair.
    """

    source: Tensor
    destination: Tensor
    label: Tensor
    step: Tensor
    refine: Tensor
    final: Tensor
    calls: Tensor


def exact_levels(t: float, *, steps: int, path: Path) -> list[float]:
    """s_0 = 0 .. s_K = t, s_k = round(k t / K), K = max(1, ceil(steps t / highest level)) and at most t.

    Halves go to the even level. Level 0 stands for the data (alpha_bar_0 and label 0 on discrete paths). On flows
    s_k = k t / K.
    """
    if path.alpha_bar is None:
        count = max(1, math.ceil(steps * t - 1e-9))
        return [k * t / count for k in range(count)] + [t]
    level, highest = int(t), path.alpha_bar.shape[0] - 1
    count = max(1, min(level, -(-steps * level // highest)))
    return [round(k * level / count) for k in range(count + 1)]


def steps_to(t: float, *, grid: Grid, steps: int, path: Path) -> list[Step]:
    """The steps from data to level t.

    exact: between `exact_levels`, label of the source. official-0.20: sources 1-K, 1, 1+K, ... strictly below t, label
    of the source (the first is negative). official-current: destinations 1, 1+K, ... strictly below t, label of the
    destination. K = T // steps. References: diffusers DDIMInverseScheduler 0.20.0, and after pull request 5145.

    Raises:
        ConfigError: an official grid on a flow. ValueError: t below `lowest_t`, where no step or target exists.
    """
    if grid == "exact":
        if t < (1 if path.discrete else 1e-6):
            raise ValueError(f"an inversion to t = {t} has no target; draw t from {lowest_t(grid)} on")
        levels = exact_levels(t, steps=steps, path=path)
        return [(s, d, s) for s, d in itertools.pairwise(levels)]
    if path.alpha_bar is None:
        raise ConfigError(f"grid {grid} is discrete", where="trajectory.grid", remedy="use grid: exact with a flow")
    stride = path.alpha_bar.shape[0] // steps
    if grid == "official-0.20":
        sources = [1 - stride + k * stride for k in range(steps)]
        return [(s, s + stride, s) for s in sources if s < t]
    if t < lowest_t(grid):
        raise ValueError(f"grid {grid} makes no step to t = {t}; draw t from {lowest_t(grid)} on")
    return [(d - stride, d, d) for d in range(1, 1 + steps * stride, stride) if d < t]


def lowest_t(grid: Grid) -> int:
    """The lowest discrete level that a grid can place a pair at: 1, 0 (official-0.20), 2 (official-current)."""
    return {"exact": 1, "official-0.20": 0, "official-current": 2}[grid]


def _calls(steps: list[Step], *, renoise: Renoise, label: Label) -> list[tuple[Step, int, bool, bool]]:
    calls = []
    for index, (source, destination, own) in enumerate(steps):
        refined = renoise == "each" or (renoise == "last" and index == len(steps) - 1)
        calls.append(((source, destination, own), index, False, not refined))
        if refined:
            told = destination if label == "destination" else own
            calls.append(((source, destination, told), index, True, True))
    return calls


def programme(t: Tensor, *, path: Path, grid: Grid, steps: int, renoise: Renoise, label: Label) -> Programme:
    """Every pair's calls, one column a pair, padded to the longest."""
    wanted = t.tolist()
    known = {
        level: _calls(steps_to(level, grid=grid, steps=steps, path=path), renoise=renoise, label=label)
        for level in set(wanted)
    }
    columns = [known[level] for level in wanted]
    longest = max(len(column) for column in columns)
    padded = [column + [column[-1]] * (longest - len(column)) for column in columns]
    dtype = torch.int64 if path.discrete else torch.float64

    def table(values: list[list[float]], kind: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=kind).T.contiguous()

    return Programme(
        source=table([[call[0][0] for call in column] for column in padded], dtype),
        destination=table([[call[0][1] for call in column] for column in padded], dtype),
        label=table([[call[0][2] for call in column] for column in padded], dtype),
        step=table([[call[1] for call in column] for column in padded], torch.int64),
        refine=table([[call[2] for call in column] for column in padded], torch.bool),
        final=table([[call[3] for call in column] for column in padded], torch.bool),
        calls=torch.tensor([len(column) for column in columns]),
    )
