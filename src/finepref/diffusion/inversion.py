"""Trajectories by inversion: DDIM inversion (InPO) and ReNoise (SmPO), each pair to its own level.

Shapes: B pairs, R = 2B rows of cat(winners, losers), N rows that are still on their way, K levels at which each
trajectory is read, C channels, H W latent size.
Rows whose pair has arrived leave the batch: it costs the longest pair's number of network calls, not the sum.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from finepref.core.errors import ConfigError
from finepref.core.tensors import Placed
from finepref.diffusion.path import Path
from finepref.diffusion.programme import Programme, programme
from finepref.diffusion.trajectory_options import InversionOptions, refinement


@runtime_checkable
class Denoise(Protocol):
    """The network's native prediction at x [N,C,H,W], levels t [N], for rows [N] (int64, CPU) of cat(winners, losers).

    Rows below B are winners of pair `row`, the others losers of pair `row - B`: conditions are gathered with them.
    """

    def __call__(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor: ...


@runtime_checkable
class NoiseDraw(Protocol):
    """Standard normal [N,C,H,W] for rows [N] (int64, CPU, as in `Denoise`) after each row's own step number [N]."""

    def __call__(self, rows: Tensor, steps: Tensor) -> Tensor: ...


def guided(conditional: Denoise, unconditional: Denoise, *, scale: float) -> Denoise:
    """Classifier-free guidance, uncond + scale (cond - uncond), as one `Denoise`; no second call at scale 1 or 0."""
    if scale == 1:
        return conditional
    if scale == 0:
        return unconditional

    def denoise(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        base = unconditional(x, t, rows)
        return base + scale * (conditional(x, t, rows) - base)

    return denoise


def direction(path: Path, prediction: Tensor, x: Tensor, level: Tensor) -> Tensor:
    """What a step is made with: the predicted noise on discrete paths, the velocity on flows.

    level: [N] where a v-prediction at x is read: a step's own source, or the label of a refinement; below 0 (first call
    of the official grid) it stands for 0.
    """
    if not path.discrete:
        return prediction
    return path.epsilon(prediction, x, level.clamp_min(0))


def step(path: Path, x: Tensor, towards: Tensor, source: Tensor, destination: Tensor) -> Tensor:
    """One inversion step from level `source` to `destination`.

        discrete: x' = a_d (x - b_s eps) / a_s + b_d eps        flow: x' = x + (d - s) v

    References: SmPO-Diffusion Eq. 13; diffusers DDIMInverseScheduler.step; Euler's rule on the flow ODE.
    Deviations: Eq. 2, 13 and 14 are misprinted, they lack the factor a_d of the prediction's bracket
        a_d (b_d / a_d - b_s / a_s), and write alpha for its cumulative product; the official code takes this step.
    """
    if not path.discrete:
        length = (destination - source).to(x.device, x.dtype, non_blocking=True)
        return x + length.view(-1, 1, 1, 1) * towards
    a_s, b_s = path.coefficients(source.clamp_min(0), x)
    a_d, b_d = path.coefficients(destination, x)
    return a_d * (x - b_s * towards) / a_s + b_d * towards


def _fresh_noise(path: Path, x: Tensor, source: Tensor, destination: Tensor) -> Tensor:
    """Standard deviation [N,1,1,1] of DDPM's noise between two levels: sqrt((1-A_s)/(1-A_d) (1 - A_d/A_s))."""
    a_s, b_s = path.coefficients(source.clamp_min(0), x)
    a_d, b_d = path.coefficients(destination, x)
    return (b_s / b_d) * (1 - (a_d / a_s) ** 2).clamp_min(0).sqrt()


def _run(
    x: Tensor, plan: Programme, *, path: Path, denoise: Denoise, draw: NoiseDraw | None, eta: float, average: bool
) -> Tensor:
    """Carry rows x [R,C,H,W] through their programme; returns x [K,R,C,H,W] at each row's levels."""
    levels, pairs = plan.reads.shape
    here, point, first = x, x, torch.zeros_like(x)
    found = x.new_zeros(levels * x.shape[0], *x.shape[1:])
    for call in range(int(plan.calls.max())):
        active = (plan.calls > call).nonzero().flatten()
        rows = torch.cat([active, active + pairs])
        column = rows % pairs
        index = rows.to(x.device, non_blocking=True)
        source, destination = plan.source[call, column], plan.destination[call, column]
        label = plan.label[call, column].to(x.device, non_blocking=True)
        refine = plan.refine[call, column].to(x.device, non_blocking=True)
        level = torch.where(refine, label, source.to(x.device, non_blocking=True))
        refine = refine.view(-1, 1, 1, 1)
        final = plan.final[call, column].to(x.device, non_blocking=True).view(-1, 1, 1, 1)

        at, base = point[index], here[index]
        towards = direction(path, denoise(at, label, rows).to(x.dtype), at, level)
        used = torch.where(refine, (first[index] + towards) / 2, towards) if average else towards
        reached = step(path, base, used, source, destination)
        if eta > 0 and draw is not None:
            noise = draw(rows, plan.step[call, column]).to(x.device, x.dtype, non_blocking=True)
            reached = reached + final * (eta * _fresh_noise(path, x, source, destination) * noise)
        point = point.index_copy(0, index, reached)
        now = torch.where(final, reached, base)
        here = here.index_copy(0, index, now)
        first = first.index_copy(0, index, towards) if average else first
        level_read, at_row = (plan.reads[:, column] == call + 1).nonzero(as_tuple=True)
        if len(at_row):
            slot = (level_read * x.shape[0] + rows[at_row]).to(x.device, non_blocking=True)
            found = found.index_copy(0, slot, now[at_row.to(x.device, non_blocking=True)])
    return found.view(levels, *x.shape)


@torch.no_grad()
def place(
    x0_w: Float[Tensor, "B C H W"],
    x0_l: Float[Tensor, "B C H W"],
    t: Shaped[Tensor, "B ..."],
    *,
    path: Path,
    options: InversionOptions,
    noise: Float[Tensor, "B C H W"] | None = None,
    denoise: Denoise | None = None,
    draw: NoiseDraw | None = None,
) -> Placed:
    """Invert winner and loser to level t and take the noise that explains the result as target.

        x_t = the last level's x,  tau = (x_t - a(t) x0) / b(t),  target = tau in the network's parametrisation

    With `RenoiseOptions` a step is refined once: predict at the point that the step reached, step again from its start.

    Args:
        x0_w, x0_l: latents. t: [B] levels, one per pair, at least `lowest_t` of the grid; or [B,K] levels in rising
            order at which one trajectory a pair is read.
        options: grid, steps, eta and, for ReNoise, which steps, label and averaging. (network and cfg are for whoever
            makes `denoise`.)
        noise: not looked at; the signature is that of every trajectory.
        denoise: see `Denoise`; called without gradient, once per step of the longest pair.
        draw: see `NoiseDraw`; needed where eta > 0.

    Returns:
        The placed pairs, detached, in float32 or wider; with [B,K] levels B K of them, the levels of a pair together.

    Raises:
        ValueError: no denoiser, no draws for eta > 0, or t too low. ConfigError: official grid or eta on a flow.

    References: SmPO-Diffusion Eq. 13, 14, 16; DDIM-InPO train.py:992-1052; SmPO train.py:999-1064.
    Deviations: every pair has its own level and depth (the official code uses the first pair's for the batch); exact
        levels by default; float64 schedule (official: tau from a float16 table).
    """
    del noise
    if denoise is None:
        raise ValueError("an inversion needs `denoise`")
    if options.eta > 0 and draw is None:
        raise ValueError("eta > 0 needs `draw`")
    if options.eta > 0 and not path.discrete:
        raise ConfigError("eta is a DDPM noise level", where="trajectory.eta", remedy="use eta: 0 with a flow")
    plan = programme(t, path=path, options=options)
    x0 = torch.cat([x0_w, x0_l]).to(torch.promote_types(x0_w.dtype, torch.float32))
    average = refinement(options)[2]
    x_t = _run(x0, plan, path=path, denoise=denoise, draw=draw, eta=options.eta, average=average)
    x_t = x_t.transpose(0, 1).flatten(0, 1)  # [2 B K,...], the levels of a pair together
    x0 = x0 if t.ndim == 1 else x0.repeat_interleave(t.shape[1], dim=0)
    t = t.flatten()
    both = torch.cat([t, t])
    target = path.target(x0, path.implied_noise(x0, x_t, both), both)
    (xt_w, xt_l), (target_w, target_l) = x_t.chunk(2), target.chunk(2)
    return Placed(xt_w=xt_w, xt_l=xt_l, t=t, target_w=target_w, target_l=target_l)
