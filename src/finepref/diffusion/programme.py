"""Which network calls each pair of a batch makes on its way from x0 to x_t: a table of steps, made on the CPU.

Shapes: N calls of the longest pair, B pairs, K levels at which each pair's trajectory is read.
A step goes from level `source` to level `destination`; a call is either a step's first prediction or its refinement.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finepref.core import rng
from finepref.core.errors import ConfigError
from finepref.diffusion.path import Path
from finepref.diffusion.trajectory_options import Grid, InversionOptions, Label, Renoise, refinement

Step = tuple[float, float, float]  # source, destination, label: integers on discrete paths


@dataclass(frozen=True, slots=True, eq=False)
class Programme:
    """Per call n and pair i, each [N,B], on the CPU; entries beyond a pair's own number of calls are not read.

    source, destination, label: levels (int64, or float64 on flows; official labels may be negative).
    step: index of the step. refine: whether this call refines a step. final: whether the step is over after it.
    reads: [K,B] number of calls after which a pair is at its k-th level. calls: [B] of each pair, reads' last row.
    """

    source: Tensor
    destination: Tensor
    label: Tensor
    step: Tensor
    refine: Tensor
    final: Tensor
    reads: Tensor

    @property
    def calls(self) -> Tensor:
        """[B] number of calls of each pair."""
        return self.reads[-1]


def exact_levels(t: float, *, steps: int, path: Path, start: float = 0) -> list[float]:
    """s_0 = start .. s_K = t, s_k = start + round(k d / K) with d = t - start, K = max(1, ceil(steps d / highest)).

    K is at most d; halves go to the even number. Level 0 stands for the data (alpha_bar_0 and label 0 on discrete
    paths). On flows s_k = start + k d / K.
    """
    length = t - start
    if path.alpha_bar is None:
        count = max(1, math.ceil(steps * length - 1e-9))
        return [start + k * length / count for k in range(count)] + [t]
    length, highest = int(length), path.alpha_bar.shape[0] - 1
    count = max(1, min(length, -(-steps * length // highest)))
    return [int(start) + round(k * length / count) for k in range(count + 1)]


def steps_to(t: float, *, grid: Grid, steps: int, path: Path, start: float = 0) -> list[Step]:
    """The steps from data, or on the exact grid from level `start`, to level t.

    exact: between `exact_levels`, label of the source. official-0.20: sources 1-K, 1, 1+K, ... strictly below t, label
    of the source (the first is negative). official-current: destinations 1, 1+K, ... strictly below t, label of the
    destination. K = T // steps. References: diffusers DDIMInverseScheduler 0.20.0, and after pull request 5145.

    Raises:
        ConfigError: an official grid on a flow. ValueError: t below `lowest_t`, where no step or target exists.
    """
    if grid == "exact":
        if t < (1 if path.discrete else 1e-6):
            raise ValueError(f"an inversion to t = {t} has no target; draw t from {lowest_t(grid)} on")
        levels = exact_levels(t, steps=steps, path=path, start=start)
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


def _route(levels: Sequence[float], *, grid: Grid, steps: int, path: Path) -> tuple[list[Step], list[int]]:
    """One pair's steps through all its levels, in rising order, and after how many of them it is at each."""
    if grid != "exact":  # a lower level's steps are the first ones of a higher level's
        ways = [steps_to(level, grid=grid, steps=steps, path=path) for level in levels]
        return ways[-1], [len(way) for way in ways]
    made: list[Step] = []
    ends: list[int] = []
    here: float = 0
    for level in levels:
        if level > here or not ends:
            made += steps_to(level, grid=grid, steps=steps, path=path, start=here)
        ends.append(len(made))
        here = level
    return made, ends


Call = tuple[float, float, float, int, bool, bool]  # source, destination, label, step, refine, final


def _calls(steps: list[Step], ends: list[int], *, renoise: Renoise, label: Label) -> tuple[list[Call], list[int]]:
    """The calls of some steps, and after how many calls the steps in `ends` are over."""
    calls: list[Call] = []
    after = [0]
    for index, (source, destination, own) in enumerate(steps):
        refined = renoise == "each" or (renoise == "last" and index + 1 in ends)
        calls.append((source, destination, own, index, False, not refined))
        if refined:
            told = destination if label == "destination" else own
            calls.append((source, destination, told, index, True, True))
        after.append(len(calls))
    return calls, [after[end] for end in ends]


def programme(t: Tensor, *, path: Path, options: InversionOptions) -> Programme:
    """Every pair's calls, one column a pair, padded to the longest. t: [B], or [B,K] levels in rising order.

    A trajectory through several levels is, on the official grids, that of the highest one, read on its way; on the
    exact grid it has each of them as a level of its own, in steps of at most the highest level / `steps`. `last`
    refines the last step before every level that is read.
    """
    renoise, label, _ = refinement(options)
    wanted = [tuple(levels) for levels in t.view(t.shape[0], -1).tolist()]
    known = {
        levels: _calls(*_route(levels, grid=options.grid, steps=options.steps, path=path), renoise=renoise, label=label)
        for levels in set(wanted)
    }
    columns = [known[levels][0] for levels in wanted]
    longest = max(len(column) for column in columns)
    padded = [column + [column[-1]] * (longest - len(column)) for column in columns]
    table = torch.tensor(padded, dtype=torch.float64).permute(2, 1, 0).contiguous()
    source, destination, label_told = table[:3].to(torch.int64 if path.discrete else torch.float64)
    return Programme(
        source=source,
        destination=destination,
        label=label_told,
        step=table[3].to(torch.int64),
        refine=table[4].to(torch.bool),
        final=table[5].to(torch.bool),
        reads=torch.tensor([known[levels][1] for levels in wanted]).T.contiguous(),
    )


def mean_calls(options: InversionOptions, path: Path) -> float:
    """Mean number of network calls of one image's trajectory, over the levels that are drawn (without guidance's)."""
    lowest = lowest_t(options.grid)
    points = 4096 if path.alpha_bar is None else path.alpha_bar.shape[0] - lowest
    u = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    if options.share == 1:
        t = path.draw_t(u, lowest=lowest)
    else:
        drawn = torch.from_numpy(rng.numpy_generator(0, "mean calls").random((points, options.share)))
        parts = (torch.arange(options.share) + drawn) / options.share
        t = path.draw_t(parts.flatten(), lowest=lowest).view(points, -1)
    return programme(t, path=path, options=options).calls.double().mean().item()
