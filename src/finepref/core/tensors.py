"""The records that travel between the parts. Frozen; torch is not imported at run time.

Shapes: B pairs (or images), C channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

ReferenceNeed = Literal["none", "errors", "tensors"]


@dataclass(frozen=True, slots=True)
class PairSignal:
    """What the offline signal says of each pair, for the winner that is actually used.

    margin: [B] float32, already scaled (lambda * gap); enters the pair logit with a minus sign.
    weight: [B] float32, multiplies the implicit score difference; 1 for hard labels.
    """

    margin: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Paired training data: latents of winner and loser, one prompt condition per pair.

    x0_w, x0_l: [B,C,H,W]. cond, cond_l: name -> [B,...], the conditions of winner and loser (they differ only
    where image sizes enter, as in SDXL). visit: [B] how often each pair was drawn before; with pair_id it keys a draw.
    empty_w, empty_l: the conditions of the empty prompt, only for trajectories with guidance.
    """

    pair_id: tuple[str, ...]
    visit: tuple[int, ...]
    x0_w: Tensor
    x0_l: Tensor
    cond_w: Mapping[str, Tensor]
    cond_l: Mapping[str, Tensor]
    signal: PairSignal
    empty_w: Mapping[str, Tensor] | None = None
    empty_l: Mapping[str, Tensor] | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """What a draw's random numbers are keyed by, beside its visit."""
        return self.pair_id


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Unpaired training data (KTO): x0 [B,C,H,W], label [B] in {0, 1}, cond name -> [B,...]."""

    image_id: tuple[str, ...]
    visit: tuple[int, ...]
    x0: Tensor
    cond: Mapping[str, Tensor]
    label: Tensor

    @property
    def ids(self) -> tuple[str, ...]:
        """What a draw's random numbers are keyed by, beside its visit."""
        return self.image_id


@dataclass(frozen=True, slots=True)
class ListBatch:
    """Ranked training data: x0 [K,B,C,H,W], the best image of every list first; cond name -> [K B,...], k slowest."""

    list_id: tuple[str, ...]
    visit: tuple[int, ...]
    x0: Tensor
    cond: Mapping[str, Tensor]

    @property
    def ids(self) -> tuple[str, ...]:
        """What a draw's random numbers are keyed by, beside its visit."""
        return self.list_id


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a trajectory put a pair: x_t and the regression target in the network's own parametrisation.

    xt_w, xt_l, target_w, target_l: [B,C,H,W]; t: [B], the level (int64 for discrete paths, float for flows).
    """

    xt_w: Tensor
    xt_l: Tensor
    t: Tensor
    target_w: Tensor
    target_l: Tensor


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """What the networks said about a placed pair; everything an objective may look at.

    policy_w, policy_l, target_w, target_l: [B,C,H,W].
    ref_w, ref_l: [B,C,H,W], only where the objective needs reference "tensors".
    ref_error_w, ref_error_l: [B] float32 mean-square errors of the reference; present for "errors" and "tensors".
    error_scale: [B] factor on every mean-square error (loss space), None for 1.
    penalty: [B] what a guard adds to the loss, None for 0.
    """

    policy_w: Tensor
    policy_l: Tensor
    target_w: Tensor
    target_l: Tensor
    ref_w: Tensor | None = None
    ref_l: Tensor | None = None
    ref_error_w: Tensor | None = None
    ref_error_l: Tensor | None = None
    error_scale: Tensor | None = None
    penalty: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """The unpaired counterpart: policy, target [B,C,H,W]; ref_error [B] float32 or None; label [B]."""

    policy: Tensor
    target: Tensor
    label: Tensor
    ref_error: Tensor | None = None
    error_scale: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ListPrediction:
    """The listwise counterpart: policy, target [K,B,C,H,W]; ref_error [K,B] float32; error_scale [B] or None."""

    policy: Tensor
    target: Tensor
    ref_error: Tensor
    error_scale: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ObjectiveOutput:
    """loss: [B], unreduced; stats: name -> [B] detached, what the log shows per step and per t-bucket.

    applies: name -> [B] in {0, 1}, the rows that a statistic's mean is taken over; all where it is not named.
    """

    loss: Tensor
    stats: Mapping[str, Tensor]
    applies: Mapping[str, Tensor] = field(default_factory=dict)
