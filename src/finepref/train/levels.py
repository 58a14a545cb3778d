"""Which levels of noise a run trains on, and how much each counts: for models of few steps, or parts of the path.

Shapes: B draws, K levels that share a trajectory.
"""

from __future__ import annotations

from pydantic import model_validator
from torch import Tensor

from finepref.core.options import Options, told
from finepref.diffusion.path import Path


class LevelOptions(Options):
    """A window of the noise path and weights in it. Levels are shares of the path: 0 is the picture, 1 is noise."""

    low: float = told(0.0, "where the window begins: 0 is the picture, 1 is noise", ge=0, lt=1)
    high: float = told(1.0, "where the window ends: 0 is the picture, 1 is noise", gt=0, le=1)
    weights: list[float] | None = told(
        None, "factors of the loss in as many equal parts of the window, from low to high; null = 1", min_length=1
    )

    @model_validator(mode="after")
    def _window(self) -> LevelOptions:
        if self.low >= self.high:
            raise ValueError("low must lie below high")
        if self.weights is not None and (min(self.weights) < 0 or max(self.weights) == 0):
            raise ValueError("weights must not be negative, and not all zero")
        return self

    @property
    def whole(self) -> bool:
        """Whether every level counts alike, as without these options."""
        return self.low == 0.0 and self.high == 1.0 and self.weights is None


def windowed(u: Tensor, options: LevelOptions, path: Path) -> Tensor:
    """Uniform draws u [...] as those that `Path.draw_t` turns into levels of the window, with its own density there."""
    low, high = (float(path.share_below(value)) for value in (options.low, options.high))
    return low + (high - low) * u


def level_weights(t: Tensor, options: LevelOptions, path: Path) -> Tensor:
    """Factors of the loss at levels t [B], float32."""
    assert options.weights is not None
    share = t.double() if path.alpha_bar is None else t.double() / len(path.alpha_bar)
    part = (share - options.low) / (options.high - options.low) * len(options.weights)
    return t.new_tensor(options.weights, dtype=share.dtype)[part.long().clamp(0, len(options.weights) - 1)].float()
