"""InPO's official grid: DDIM inversion with fresh noise after every step."""

from __future__ import annotations

from typing import Any

from adapters.tiny import Tiny, judged, recorded, walk
from finepref.diffusion.programme import steps_to


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    own, path = case["hyperparameters"], recorded(meta["alphas_cumprod"])
    policy, count = Tiny(meta["networks"]["policy"]), own["num_inference_steps"]
    placed = walk(case, path, policy, trajectory="ddim_inversion", grid="official-0.20", steps=count, eta=own["eta"])
    steps = steps_to(own["t"], grid="official-0.20", steps=count, path=path)
    return judged(case, meta, placed, policy, weight=1.0) | {
        "source_timesteps_used": [step[0] for step in steps],
        "destination_level": steps[-1][1],
    }
