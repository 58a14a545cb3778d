"""What a rating may be told: the one place of its names and defaults. Nothing is imported here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingOptions:
    """How votes become ratings; `rate` explains every option and takes its defaults from here."""

    engine: str = "batch"
    preset: str = "ksort"
    link: str = "probit"
    prior: str = "normal"
    ties: str = "fit"
    interval: str = "auto"
    cluster: str | None = None
    order: str = "given"
    passes: int = 1
    seed: int = 0


DEFAULTS = RatingOptions()
