"""The trajectory of forward noising: one noise and one level for both images of a pair.

Shapes: B pairs, C channels, H W latent size.
"""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor

from finepref.core.tensors import Placed
from finepref.diffusion.path import Path


def place(
    x0_w: Float[Tensor, "B C H W"],
    x0_l: Float[Tensor, "B C H W"],
    t: Shaped[Tensor, " B"],
    *,
    path: Path,
    options: object = None,
    noise: Float[Tensor, "B C H W"] | None = None,
    denoise: object = None,
    draw: object = None,
) -> Placed:
    """Noise winner and loser with the same noise at the same level.

        x_t = a(t) x0 + b(t) eps,  target = eps | a eps - b x0 | eps - x0 by parametrisation

    Args:
        x0_w, x0_l: latents. t: [B] levels. noise: [B,C,H,W], shared by the pair.
        options, denoise, draw: not looked at; the signature is that of every trajectory.

    Returns:
        The placed pair.

    References: Diffusion-DPO train.py:1053-1055 (same t, same noise).
    """
    del options, denoise, draw
    if noise is None:
        raise ValueError("forward noising needs `noise`")
    return noised(x0_w, x0_l, t, noise, noise, path=path)


def noised(
    x0_w: Float[Tensor, "B C H W"],
    x0_l: Float[Tensor, "B C H W"],
    t: Shaped[Tensor, " B"],
    noise_w: Float[Tensor, "B C H W"],
    noise_l: Float[Tensor, "B C H W"],
    *,
    path: Path,
) -> Placed:
    """Noise winner and loser at the same level, each with a noise of its own: x_t = a(t) x0 + b(t) eps."""
    return Placed(
        xt_w=path.add_noise(x0_w, noise_w, t),
        xt_l=path.add_noise(x0_l, noise_l, t),
        t=t,
        target_w=path.target(x0_w, noise_w, t),
        target_l=path.target(x0_l, noise_l, t),
    )
