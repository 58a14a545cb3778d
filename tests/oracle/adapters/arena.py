"""ArenaPO's gap (Eq. 12) and the rating updates of Appendix A and of the package's default settings."""

from __future__ import annotations

from typing import Any

import numpy as np

from finepref.arena.gap import expected_gap
from finepref.arena.normal import SQRT_2, inverse_mills, quantile
from finepref.arena.online import run_votes

IGNORED = {"paper_table1"}  # printed with rounded inputs; tested with the leaderboard


def update(
    winner: tuple[float, float], loser: tuple[float, float], *, drawn: bool = False, **own: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """One vote by the online engine: (mu, sigma) of winner and loser before -> after."""
    options = {"tau": 0.0, "draw_margin": 0.0, **own}
    mu, sigma = run_votes(
        [0], [1], [0 if drawn else 1], np.array([winner[0], loser[0]]), np.array([winner[1], loser[1]]), **options
    )
    return (float(mu[0]), float(sigma[0])), (float(mu[1]), float(sigma[1]))


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    inputs = case["inputs"]
    if case["kind"] == "gap":
        difference = np.array([inputs["mu_w"] - inputs["mu_l"]])
        spread = np.array([np.hypot(inputs["sigma_w"], inputs["sigma_l"])])
        return {
            "expected_gap": float(expected_gap(difference, spread)[0]),
            "inverse_mills": float(inverse_mills(difference / spread)[0]),
        }
    own = {
        "beta": inputs["beta"],
        "tau": inputs["tau"],
        "draw_margin": quantile((inputs["draw_probability"] + 1) / 2) * SQRT_2 * inputs["beta"],
    }
    if case["kind"] == "update":
        winner, loser = update(tuple(inputs["winner"]), tuple(inputs["loser"]), drawn=inputs["drawn"], **own)
        return {"winner": winner, "loser": loser}
    assert case["kind"] == "sequence60"
    pairs, models = inputs["winner_loser_pairs"], inputs["n_models"]
    mu, sigma = run_votes(
        [pair[0] for pair in pairs],
        [pair[1] for pair in pairs],
        [1] * len(pairs),
        np.full(models, inputs["mu0"]),
        np.full(models, inputs["sigma0"]),
        **own,
    )
    return {"mu": mu, "sigma": sigma}


def tolerance(case: dict[str, Any], name: str) -> tuple[float, float]:
    """The package approximates erfc to 1e-7."""
    return (1e-9 if case["kind"] == "gap" else 1e-7), 0.0
