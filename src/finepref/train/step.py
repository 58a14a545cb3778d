"""The training step of a pair on one page: draw, noise, predict, guard, loss. No files and no host sync.

The plain case is written out: forward noise at one level, nothing known beforehand. What an inversion, a shared
trajectory or a cache of the frozen reference knows (`placement`, `frozen`) is handed in as `placed`, `t` and `known`.

Shapes: B pairs, R = 2B rows of cat(winners, losers), C channels, H W latent size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from finepref.core import rng
from finepref.core.tensors import ObjectiveOutput, PairBatch, PairPrediction, Placed
from finepref.models.denoiser import Denoiser
from finepref.objectives.core import mean_square, wide
from finepref.train.method import Method

Calls = dict[str, int]  # images that the networks were called for, by purpose
Output = tuple[ObjectiveOutput, Tensor]  # with the levels t [B]


def pair_loss(
    batch: PairBatch,
    *,
    adapter: Denoiser,
    method: Method,
    seed: int,
    calls: Calls,
    t: Tensor | None = None,
    placed: Placed | None = None,
    known: tuple[Tensor, Tensor] | None = None,
) -> Output:
    """The losses of some pairs.

        t, eps ~ (seed, pair_id, visit);  x_t = a(t) x0 + b(t) eps;  reference without gradient, policy with;
        u = s w (A_w - A_l) - m,  A = L_ref - L;  loss = link(u)

    Args:
        t: [B] levels that were drawn elsewhere (stratified over the optimiser step). placed: pairs that a trajectory
            has put somewhere. known: reference errors (winner, loser), each [B] float32, from a cache.

    Returns:
        loss [B] with statistics, each [B]; t [B].

    References: Diffusion-DPO (arXiv 2311.12908) Eq. 14, train.py:1053-1115; ArenaPO Eq. 14; SmPO-Diffusion Eq. 15.
    Deviations: errors and their differences in float32 or wider for policy and reference alike.
    """
    needs, path, x0_w, x0_l = method.objective.needs, adapter.path, batch.x0_w, batch.x0_l
    if placed is None:
        # Draw: every number is a function of (seed, pair_id, visit).
        eps = rng.normals(seed, "noise", batch.pair_id, batch.visit, x0_w.shape[1:]).to(x0_w.device, non_blocking=True)
        if t is None:
            u = rng.uniforms(seed, "t", batch.pair_id, batch.visit)
            t = path.draw_t(torch.from_numpy(u), lowest=method.lowest_t)
        # Noise: winner and loser at the same level with the same noise.
        t = t.to(x0_w.device, non_blocking=True)
        a, b = path.coefficients(t, x0_w)
        target_w, target_l = path.target(x0_w, eps, t), path.target(x0_l, eps, t)
        placed = Placed(xt_w=a * x0_w + b * eps, xt_l=a * x0_l + b * eps, t=t, target_w=target_w, target_l=target_l)
    # Predict: each network once on cat(winners, losers), the reference before the policy's activations take memory.
    x, levels, cond, pairs = placed.xt_w, placed.t, batch.cond_w, len(batch.pair_id)
    if needs.loser:
        x, levels = torch.cat([placed.xt_w, placed.xt_l]), torch.cat([placed.t, placed.t])
        cond = {name: torch.cat([batch.cond_w[name], batch.cond_l[name]]) for name in batch.cond_w}
    ref_w = ref_l = None
    error_w, error_l = (None, None) if known is None else known
    if known is None and method.reference != "none":
        with torch.no_grad():
            ref_w, ref_l = wide(adapter.reference(x, levels, cond)).split([pairs, pairs])
        calls["reference"] += len(x)
        if method.reference == "errors":
            error_w, error_l = mean_square(ref_w, placed.target_w), mean_square(ref_l, placed.target_l)
            ref_w = ref_l = None
    if adapter.drawn is not None:
        adapter.drawn.tell(batch.pair_id, batch.visit)  # LoRA dropout: one mask for both images of a pair
    policy = wide(adapter.policy(x, levels, cond))
    calls["policy"] += len(x)
    prediction = PairPrediction(
        policy_w=policy[:pairs],
        policy_l=policy[pairs:] if needs.loser else placed.target_l,
        target_w=placed.target_w,
        target_l=placed.target_l,
        ref_w=ref_w,
        ref_l=ref_l,
        ref_error_w=error_w,
        ref_error_l=error_l,
        error_scale=None if method.loss_space == "native" else path.error_scale(placed.t, method.loss_space),
    )
    # Guard: what the loser's gradient may not do to the winner.
    guarded: dict[str, Tensor] = {}
    if method.guard is not None:
        prediction, guarded = method.guard(prediction)
    # Loss.
    out = method.objective.function(prediction, batch.signal, **method.options)
    loss = out.loss if prediction.penalty is None else out.loss + prediction.penalty
    return ObjectiveOutput(loss=loss, stats={**out.stats, **guarded}, applies=out.applies), placed.t
