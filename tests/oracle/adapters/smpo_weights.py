"""SmPO's smoothed preference from two scores."""

from __future__ import annotations

from typing import Any

from finepref.signals.smooth import smoothed


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    inputs, own = case["inputs"], meta["hyperparameters"]
    found = smoothed(
        [inputs["score_0"]], [inputs["score_1"]], low=own["score_min"], high=own["score_max"], gamma=own["gamma"]
    )
    assert int(found.winner[0]) == 1 - inputs["ps_label_0"]  # label 1: image 0 wins
    return {
        "p_win": float(found.p_win[0]),
        "weight": float(found.weight[0]),
        "weight_closed_form": float(found.weight[0]),
    }


def tolerance(case: dict[str, Any], name: str) -> tuple[float, float]:
    """The official values are float32; the closed form is not."""
    return {"p_win": (0.0, 1e-7), "weight": (0.0, 2e-6), "weight_closed_form": (1e-9, 0.0)}[name]
