"""The path from data to noise, x_t = a(t) x0 + b(t) eps, and the network's parametrisation on it.

Shapes: B images, C channels, H W latent size, T training timesteps.
House convention: x0 is data, time grows toward noise. Discrete paths (SD) take integer t in 0..T-1 with
a = sqrt(alpha_bar_t), b = sqrt(1 - alpha_bar_t); flows take s in (0, 1] with a = 1 - s, b = s and velocity eps - x0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from finepref.core.errors import ConfigError, nearest

Parametrisation = Literal["epsilon", "v_prediction", "flow"]
LossSpace = Literal["native", "epsilon", "x0"]
LOSS_SPACES = ("native", "epsilon", "x0")


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A noise path and what the network predicts on it.

    alpha_bar: [T] float64 cumulative products for a discrete path, None for a flow.
    parametrisation: "epsilon" | "v_prediction" on discrete paths, "flow" (velocity eps - x0) otherwise.
    """

    alpha_bar: Tensor | None
    parametrisation: Parametrisation

    @property
    def discrete(self) -> bool:
        """Whether t is an integer level 0..T-1 (else a real number in (0, 1])."""
        return self.alpha_bar is not None

    def levels(self, t: Shaped[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(a(t), b(t)), float64 [B]."""
        if self.alpha_bar is None:
            s = t.to(torch.float64)
            return 1.0 - s, s
        alpha_bar = self.alpha_bar.to(t.device, non_blocking=True)[t]
        return alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(a(t), b(t)) cast to `like`'s dtype (at least float32) and shaped [B,1,1,...] to multiply it."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        shape = (-1,) + (1,) * (like.ndim - 1)
        a, b = self.levels(t)
        a, b = (value.to(like.device, dtype, non_blocking=True) for value in (a, b))
        return a.view(shape), b.view(shape)

    def add_noise(
        self, x0: Float[Tensor, "B ..."], eps: Float[Tensor, "B ..."], t: Shaped[Tensor, " B"]
    ) -> Float[Tensor, "B ..."]:
        """x_t = a(t) x0 + b(t) eps."""
        a, b = self.coefficients(t, x0)
        return a * x0 + b * eps

    def target(
        self, x0: Float[Tensor, "B ..."], eps: Float[Tensor, "B ..."], t: Shaped[Tensor, " B"]
    ) -> Float[Tensor, "B ..."]:
        """The network's regression target for data x0 and noise eps: eps, a eps - b x0, or eps - x0."""
        if self.parametrisation == "epsilon":
            return eps
        if self.parametrisation == "flow":
            return eps - x0
        a, b = self.coefficients(t, x0)
        return a * eps - b * x0

    def epsilon(
        self, prediction: Float[Tensor, "B ..."], x_t: Float[Tensor, "B ..."], t: Shaped[Tensor, " B"]
    ) -> Float[Tensor, "B ..."]:
        """The noise that a prediction at x_t stands for: itself, a v + b x_t, or x_t + a u."""
        if self.parametrisation == "epsilon":
            return prediction
        a, b = self.coefficients(t, x_t)
        return x_t + a * prediction if self.parametrisation == "flow" else a * prediction + b * x_t

    def implied_noise(
        self, x0: Float[Tensor, "B ..."], x_t: Float[Tensor, "B ..."], t: Shaped[Tensor, " B"]
    ) -> Float[Tensor, "B ..."]:
        """tau with x_t = a(t) x0 + b(t) tau, the target noise of an inverted point (SmPO Eq. 16).

        At b(t) -> 0 it degenerates: trajectories draw t >= 1.
        """
        a, b = self.coefficients(t, x0)
        return (x_t - a * x0) / b

    def error_scale(self, t: Shaped[Tensor, " B"], space: LossSpace) -> Float[Tensor, " B"] | None:
        """Factor [B] that turns a native mean-square error into one of `space`; None for 1.

        epsilon error = a^2 v error = a^2 u error; x0 error = (b/a)^2 eps error = b^2 v error = b^2 u error.
        (On variance-preserving paths a^2 = alpha_bar.)
        """
        if space not in LOSS_SPACES:
            remedy = nearest(space, LOSS_SPACES)
            raise ConfigError(f"unknown loss space {space!r}", where="objective.loss_space", remedy=remedy)
        if space == "native" or (space == "epsilon" and self.parametrisation == "epsilon"):
            return None
        a, b = self.levels(t)
        if space == "epsilon":
            return a**2
        return (b / a) ** 2 if self.parametrisation == "epsilon" else b**2

    def draw_t(self, u: Float[Tensor, " B"], *, lowest: int = 0) -> Shaped[Tensor, " B"]:
        """Map uniform draws u in [0, 1) to levels.

        Discrete: uniform integers lowest..T-1 (all methods of both papers). Flow: logit-normal, sigmoid(Phi^-1(u))
        (the density of the SD3 training recipe), kept inside [1e-4, 1 - 1e-4].
        """
        u = u.to(torch.float64)
        if self.alpha_bar is None:
            return torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12)).sigmoid().clamp(1e-4, 1.0 - 1e-4)
        count = self.alpha_bar.shape[0] - lowest
        return lowest + (u * count).floor().to(torch.int64).clamp(0, count - 1)

    def share_below(self, level: float) -> float:
        """The share of `draw_t`'s draws below a level, itself a share of the path in [0, 1]: Phi(logit s) on flows."""
        if self.alpha_bar is not None:
            return level
        return float(torch.special.ndtr(torch.logit(torch.tensor(level, dtype=torch.float64))))


FLOW = Path(alpha_bar=None, parametrisation="flow")


_BETAS = ("beta_schedule", "beta_start", "beta_end")


def from_scheduler_config(config: Mapping[str, Any]) -> Path:
    """The path of a diffusers scheduler config.

    Discrete: any beta_schedule of DDPMScheduler or trained_betas, with the scheduler's own float32 arithmetic, then
    upcast (a table built in float64 misses the published inversions by up to 4e-4).

    Raises:
        ConfigError: an unknown prediction type, or a schedule that is not given by its betas (EDM's, for one).
    """
    if "FlowMatch" in str(config.get("_class_name", "")):
        return FLOW
    parametrisation = config.get("prediction_type", "epsilon")
    if parametrisation not in ("epsilon", "v_prediction"):
        remedy = nearest(parametrisation, ("epsilon", "v_prediction"))
        raise ConfigError(f"unknown prediction_type {parametrisation!r}", where="scheduler_config.json", remedy=remedy)
    _check_betas(config)
    from diffusers import DDPMScheduler

    known = ("num_train_timesteps", *_BETAS, "trained_betas", "rescale_betas_zero_snr")
    scheduler: Any = DDPMScheduler(**{name: config[name] for name in known if config.get(name) is not None})
    return Path(alpha_bar=scheduler.alphas_cumprod.to(torch.float64), parametrisation=parametrisation)


def _check_betas(config: Mapping[str, Any]) -> None:
    """Refuse a config that does not say its betas: diffusers would fill in its own, a path the model never saw."""
    absent = [name for name in _BETAS if config.get(name) is None]
    given = config.get("trained_betas") is not None or not absent
    if given and config.get("sigma_data") is None:
        return
    why = f"has no {absent[0]}" if not given else "has EDM's sigma_data"
    what = f"{config.get('_class_name') or 'the scheduler'} {why}, so its noise path is not known"
    remedy = "take a base with a DDPM noise path (beta_schedule, beta_start, beta_end) or flow matching"
    raise ConfigError(what, where="scheduler_config.json", remedy=remedy)


def scaled_linear(
    *,
    steps: int = 1000,
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    parametrisation: Parametrisation = "epsilon",
) -> Path:
    """SD1.5's and SDXL's path: torch float32 linspace of sqrt(beta), squared; then upcast."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float32) ** 2
    return Path(alpha_bar=torch.cumprod(1.0 - betas, dim=0).to(torch.float64), parametrisation=parametrisation)
