"""Single images (KTO): an optimiser step's images under forward noise, against one anchor for the whole step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from finepref.core import rng
from finepref.core.tensors import ImageBatch, ImagePrediction
from finepref.models.denoiser import Denoiser
from finepref.objectives.core import mean_square, wide
from finepref.objectives.kto import kto_anchor, kto_sums
from finepref.train.method import Method
from finepref.train.step import Calls, Output

Batches = Callable[[], Iterable[tuple[ImageBatch, Tensor]]]  # micro-batches with their levels, from the first each time


def image_losses(
    batches: Batches,
    *,
    single: bool,
    adapter: Denoiser,
    method: Method,
    seed: int,
    calls: Calls,
    total: Callable[[Tensor], Tensor],
) -> Iterator[Output]:
    """The losses of an optimiser step's images on this process.

    Args:
        batches: what is drawn. single: there is at most one micro-batch, which is predicted once; several are predicted
            once before, without gradient, for the anchor and the reference's errors.
        total: sums a tensor over all processes.
    """

    def predict(batch: ImageBatch, t: Tensor, counted: Calls, known: Tensor | None = None) -> ImagePrediction:
        return predict_images(batch, t=t, adapter=adapter, method=method, seed=seed, calls=counted, known=known)

    sums, errors = torch.zeros(4, dtype=torch.float64, device=adapter.device), []
    held: list[tuple[ImagePrediction, Tensor]] = []
    if single:
        held = [(predict(batch, t, calls), t) for batch, t in batches()]
        for prediction, _ in held:
            sums += kto_sums(prediction)
    else:
        first = dict.fromkeys(calls, 0)
        with torch.no_grad():
            for batch, t in batches():
                prediction = predict(batch, t, first)
                sums += kto_sums(prediction)
                errors.append(prediction.ref_error)
        calls["reference"] += first["reference"]
        calls["anchor"] += first["policy"]
    anchor = kto_anchor(total(sums), offset=method.options["offset"])
    again = zip(batches(), errors, strict=True) if errors else ()
    for prediction, t in held or ((predict(batch, t, calls, known), t) for (batch, t), known in again):
        yield method.objective.function(prediction, **method.options, anchor=anchor), t


def predict_images(
    batch: ImageBatch,
    *,
    t: Tensor,
    adapter: Denoiser,
    method: Method,
    seed: int,
    calls: Calls,
    known: Tensor | None = None,
) -> ImagePrediction:
    """Images under forward noise at levels t [B]: policy, and reference where its errors `known` [B] are not."""
    path, x0 = adapter.path, batch.x0
    t = t.to(x0.device, non_blocking=True)
    eps = rng.normals(seed, "noise", batch.image_id, batch.visit, x0.shape[1:]).to(x0.device, non_blocking=True)
    x_t, target = path.add_noise(x0, eps, t), path.target(x0, eps, t)
    if known is None:
        with torch.no_grad():
            known = mean_square(adapter.reference(x_t, t, batch.cond), target)
        calls["reference"] += len(x_t)
    if adapter.drawn is not None:
        adapter.drawn.tell(batch.image_id, batch.visit)
    policy = wide(adapter.policy(x_t, t, batch.cond))
    calls["policy"] += len(x_t)
    scale = path.error_scale(t, method.loss_space)
    return ImagePrediction(policy=policy, target=target, label=batch.label, ref_error=known, error_scale=scale)
