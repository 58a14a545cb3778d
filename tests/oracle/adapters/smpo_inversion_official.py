"""SmPO's official grid: ReNoise with averaging at every step, source labels, negative first label."""

from __future__ import annotations

import math
from typing import Any

from adapters.tiny import Tiny, judged, recorded, walk
from finepref.diffusion.programme import steps_to
from finepref.signals.smooth import smoothed


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    own, path = case["hyperparameters"], recorded(meta["alphas_cumprod"])
    policy, count = Tiny(meta["networks"]["policy"]), own["num_inference_steps"]
    placed = walk(
        case,
        path,
        policy,
        trajectory="renoise",
        grid="official-0.20",
        steps=count,
        renoise="each",
        label="source",
        average=True,
    )
    steps = steps_to(own["t"], grid="official-0.20", steps=count, path=path)
    lead = math.log(own["p_win"] / (1 - own["p_win"]))
    weight = float(smoothed([lead], [0.0], low=0.0, high=1.0, gamma=own["gamma"]).weight[0])
    return judged(case, meta, placed, policy, weight=weight) | {
        "grid": [step[0] for step in steps_to(1000, grid="official-0.20", steps=count, path=path)],
        "source_timesteps_used": [step[0] for step in steps],
        "destination_level": steps[-1][1],
    }
