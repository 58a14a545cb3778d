"""What every objective shares: mean-square errors, advantages, the pair logit and its statistics.

Shapes: B pairs (or images), C channels, H W latent size.
The factor 1/2 of beta and the mean over C,H,W are written here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from finepref.core.tensors import ImagePrediction, PairPrediction, PairSignal

Beta = Annotated[
    float,
    Field(
        gt=0,
        allow_inf_nan=False,
        description="Strength of the pair logit as in the official launchers: u = (beta/2) * w * (A_w - A_l) - m.",
    ),
]


@dataclass(frozen=True, slots=True)
class PairErrors:
    """Mean-square errors [B] of a pair in the loss space; ref_w and ref_l are None without a reference."""

    w: Tensor
    l: Tensor  # noqa: E741  (the house suffix of the loser)
    ref_w: Tensor | None
    ref_l: Tensor | None


def wide(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 if it is that already: half-precision differences round the logit away."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mean_square(
    prediction: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"], *, scale: Float[Tensor, " B"] | None = None
) -> Float[Tensor, " B"]:
    """L = scale * mean over C,H,W of (prediction - target)^2, in float32 or wider."""
    error = (wide(prediction) - wide(target)).square().flatten(1).mean(1)
    return error if scale is None else error * scale.to(error.dtype)


def _reference_error(given: Tensor | None, prediction: Tensor | None, target: Tensor, scale: Tensor | None) -> Tensor:
    if prediction is not None and given is None:
        return mean_square(prediction.detach(), target, scale=scale)
    if given is None:
        raise ValueError("this objective needs a reference: give ref_error_w/_l (or ref_w/_l) in the prediction")
    given = wide(given.detach())
    return given if scale is None else given * scale.to(given.dtype)


def pair_errors(pred: PairPrediction, *, reference: bool = True) -> PairErrors:
    """The four errors of a pair, all multiplied by `error_scale`.

    Reference errors are taken as given (native space, unscaled) or computed from ref_w and ref_l, without gradient.

    Args:
        reference: whether the objective needs them; False leaves them None unless the prediction has them.

    Raises:
        ValueError: the reference is needed and the prediction has none.
    """
    scale = pred.error_scale
    has_reference = pred.ref_error_w is not None or pred.ref_w is not None
    ref_w = ref_l = None
    if reference or has_reference:
        ref_w = _reference_error(pred.ref_error_w, pred.ref_w, pred.target_w, scale)
        ref_l = _reference_error(pred.ref_error_l, pred.ref_l, pred.target_l, scale)
    return PairErrors(
        w=mean_square(pred.policy_w, pred.target_w, scale=scale),
        l=mean_square(pred.policy_l, pred.target_l, scale=scale),
        ref_w=ref_w,
        ref_l=ref_l,
    )


def advantages(errors: PairErrors) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """(A_w, A_l), A = L_ref - L: positive where the policy is better than the reference."""
    if errors.ref_w is None or errors.ref_l is None:
        raise ValueError("advantages need reference errors")
    return errors.ref_w - errors.w, errors.ref_l - errors.l


def logit(difference: Float[Tensor, " B"], signal: PairSignal, *, gain: float) -> Float[Tensor, " B"]:
    """u = gain * w * difference - m, the margin after the weight (methods of both papers).

    Args:
        difference: [B] score difference of winner and loser (A_w - A_l, or phi_w - phi_l for MaPO).
        signal: margin m (scaled) and weight w, each [B].
        gain: s, beta / 2 for everything that is built on advantages.
    """
    return gain * difference * signal.weight - signal.margin


def advantage_logit(errors: PairErrors, signal: PairSignal, *, beta: float) -> Float[Tensor, " B"]:
    """u = (beta/2) * w * (A_w - A_l) - m. beta is the value of the official launchers (2000, 5000)."""
    a_w, a_l = advantages(errors)
    return logit(a_w - a_l, signal, gain=beta / 2)


def sigmoid_loss(u: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """-log sigmoid(u), finite for every finite u."""
    return -logsigmoid(u)


def statistics(errors: PairErrors, u: Tensor | None = None) -> dict[str, Tensor]:
    """Detached [B] statistics: L_w, L_l and, where they exist, A_w, A_l, implicit_accuracy, u, sigmoid_minus_u.

    implicit_accuracy is 1 where A_w > A_l (ties count as wrong), before margin and weight. sigmoid_minus_u is a pair's
    weight in the gradient of the sigmoid link.
    """
    stats = {"L_w": errors.w.detach(), "L_l": errors.l.detach()}
    if errors.ref_w is not None:
        a_w, a_l = (a.detach() for a in advantages(errors))
        stats |= {"A_w": a_w, "A_l": a_l, "implicit_accuracy": (a_w > a_l).to(a_w.dtype)}
    if u is not None:
        stats |= {"u": u.detach(), "sigmoid_minus_u": torch.sigmoid(-u.detach())}
    return stats


def image_errors(pred: ImagePrediction) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """(L, L_ref) of unpaired images, both multiplied by `error_scale`.

    Raises:
        ValueError: the prediction has no reference error.
    """
    reference = _reference_error(pred.ref_error, None, pred.target, pred.error_scale)
    return mean_square(pred.policy, pred.target, scale=pred.error_scale), reference
