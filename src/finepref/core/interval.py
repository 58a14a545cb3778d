"""An estimate with its confidence limits: what statistics return and files hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence limits, nan where one prompt alone speaks: it cannot say how others differ."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """The standard error of which these would be 95 % limits."""
        return (self.high - self.low) / 3.92
