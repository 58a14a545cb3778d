"""One pair, from latents to loss: place, predict, guard, objective. No files, no randomness, no host sync.

Shapes: B pairs, R = 2B rows of cat(winners, losers), C channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from finepref.core.batches import ImageBatch, ImagePrediction, ObjectiveOutput, PairBatch, PairPrediction, Placed
from finepref.diffusion.inversion import Denoise, Draw, guided
from finepref.models.protocol import Adapter, Network
from finepref.objectives.core import mean_square
from finepref.train.method import Method

Calls = dict[str, int]


def both(w: Mapping[str, Tensor], l: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: E741
    """Conditions of winners and losers as one batch: the only place where a pair is concatenated for a forward."""
    return {name: torch.cat([w[name], l[name]]) for name in w}


def denoiser(adapter: Adapter, cond: Mapping[str, Tensor], *, network: Network, calls: Calls) -> Denoise:
    """The adapter as a function (x, t, rows) of rows of cat(winners, losers); counts images under `inversion`."""

    def denoise(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        calls["inversion"] += x.shape[0]
        index = rows.to(x.device, non_blocking=True)
        return adapter.predict(x, t, {name: value[index] for name, value in cond.items()}, network=network)

    return denoise


def place_pairs(
    adapter: Adapter,
    method: Method,
    batch: PairBatch,
    *,
    t: Tensor,
    noise: Tensor | None,
    draw: Draw | None,
    calls: Calls,
) -> Placed:
    """Put pairs on their trajectory, at levels t [B] or [B,K]. Where it calls the network it does so without gradient,
    in one ragged batch.
    """
    denoise: Denoise | None = None
    if method.inversion is not None:
        network, scale = method.inversion.network, method.inversion.cfg
        denoise = denoiser(adapter, both(batch.cond_w, batch.cond_l), network=network, calls=calls)
        if scale != 1:
            assert batch.empty_w is not None
            assert batch.empty_l is not None
            empty = denoiser(adapter, both(batch.empty_w, batch.empty_l), network=network, calls=calls)
            denoise = guided(denoise, empty, scale=scale)
    with torch.no_grad():
        return method.trajectory.place(
            batch.x0_w,
            batch.x0_l,
            t,
            path=adapter.path,
            options=method.place_options,
            noise=noise,
            denoise=denoise,
            draw=draw,
        )


def pair_step(
    adapter: Adapter,
    method: Method,
    batch: PairBatch,
    placed: Placed,
    *,
    calls: Calls,
    known: tuple[Tensor, Tensor] | None = None,
) -> ObjectiveOutput:
    """Predict placed pairs, policy once on cat(w, l) and reference once without gradient, and take the objective.

    Args:
        known: reference errors (winner, loser), each [B], from a reference cache; None computes them where needed.

    Returns:
        loss [B] and statistics, each [B].
    """
    needs = method.objective.needs
    pairs = placed.t.shape[0]
    if needs.loser:
        x, t = torch.cat([placed.xt_w, placed.xt_l]), torch.cat([placed.t, placed.t])
        cond: Mapping[str, Tensor] = both(batch.cond_w, batch.cond_l)
    else:
        x, t, cond = placed.xt_w, placed.t, batch.cond_w
    reference: dict[str, Any] = {}
    if known is not None:
        reference = {"ref_error_w": known[0], "ref_error_l": known[1]}
    elif needs.reference != "none":  # before the policy, whose activations stay until backward
        with torch.no_grad():
            ref = adapter.predict(x, t, cond, network="reference")
        calls["reference"] += x.shape[0]
        reference = _reference(placed, ref, tensors=needs.reference == "tensors")
    policy = adapter.predict(x, t, cond)
    calls["policy"] += x.shape[0]
    prediction = PairPrediction(
        policy_w=policy[:pairs],
        policy_l=policy[pairs:] if needs.loser else placed.target_l,
        target_w=placed.target_w,
        target_l=placed.target_l,
        error_scale=_scale(adapter, method, placed.t),
        **reference,
    )
    extra: dict[str, Tensor] = {}
    if method.guard is not None:
        prediction, extra = method.guard.function(prediction, **method.guard_options)
    out = method.objective.function(prediction, batch.signal, **method.options)
    return ObjectiveOutput(loss=out.loss, stats={**out.stats, **extra})


def reference_errors(placed: Placed, ref: Tensor) -> tuple[Tensor, Tensor]:
    """Mean-square errors [B] of a reference prediction on cat(w, l), native space, fp32 or wider."""
    pairs = placed.t.shape[0]
    return mean_square(ref[:pairs], placed.target_w), mean_square(ref[pairs:], placed.target_l)


def predict_images(
    adapter: Adapter,
    method: Method,
    batch: ImageBatch,
    *,
    t: Tensor,
    noise: Tensor,
    calls: Calls,
    known: Tensor | None = None,
) -> ImagePrediction:
    """Unpaired images (KTO) under forward noise: policy, and reference where its errors `known` [B] are not."""
    x_t, target = adapter.path.add_noise(batch.x0, noise, t), adapter.path.target(batch.x0, noise, t)
    if known is None:
        with torch.no_grad():
            known = mean_square(adapter.predict(x_t, t, batch.cond, network="reference"), target)
        calls["reference"] += x_t.shape[0]
    policy = adapter.predict(x_t, t, batch.cond)
    calls["policy"] += x_t.shape[0]
    return ImagePrediction(
        policy=policy,
        target=target,
        label=batch.label,
        ref_error=known,
        error_scale=_scale(adapter, method, t),
    )


def _reference(placed: Placed, ref: Tensor, *, tensors: bool) -> dict[str, Any]:
    pairs = placed.t.shape[0]
    if tensors:
        return {"ref_w": ref[:pairs], "ref_l": ref[pairs:]}
    error_w, error_l = reference_errors(placed, ref)
    return {"ref_error_w": error_w, "ref_error_l": error_l}


def _scale(adapter: Adapter, method: Method, t: Tensor) -> Tensor | None:
    scale = adapter.path.error_scale(t, method.loss_space)
    return None if scale is None else scale.to(t.device, non_blocking=True)
