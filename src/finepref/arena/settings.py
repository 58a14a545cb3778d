"""What a rating may be told: the one place of its names and defaults. Nothing is imported here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingOptions:
    """How votes become ratings.

    engine: "batch" (all votes at once) or "online" (vote by vote).
    preset: online only: "ksort" (tau = 25/300, ties as draws) or "appendix_a" (tau = 0, ties skipped).
    link: batch only: "probit" or "logit".
    prior: batch only: "normal" (N(25, (25/3)^2) per model), "flat", or "empirical-bayes" (sd fitted).
    ties: batch: "fit", "half", "drop". online: "fit" (the preset's own way), "draw", "skip", "half".
    interval: batch only: "laplace", "sandwich", "bootstrap", or "auto" (sandwich over games, prompts or voters where
    there are effectively at least 30 and 4 per model, else Laplace).
    cluster: "game", "prompt" or "voter": which votes go together, for sandwich and bootstrap; by default as "auto".
    side: batch only: "test" (whether the side that models are shown on decides votes) or "fit" (a side term in the
    model). anchor: the model that intervals are measured from; by default the mean of the rated models.
    order: online only: "given" (by time, where votes have times) or "shuffled" (by `seed`).
    passes: online only: how often to go through the votes, >= 1.
    seed: of the shuffled order and of the bootstrap.
    """

    engine: str = "batch"
    preset: str = "ksort"
    link: str = "probit"
    prior: str = "normal"
    ties: str = "fit"
    interval: str = "auto"
    cluster: str | None = None
    side: str = "test"
    anchor: str | None = None
    order: str = "given"
    passes: int = 1
    seed: int = 0


DEFAULTS = RatingOptions()
