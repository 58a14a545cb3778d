"""SmPO's equations with exact levels: K steps, then one ReNoise with the destination's label."""

from __future__ import annotations

from typing import Any

from adapters.tiny import Tiny, judged, recorded, walk
from finepref.diffusion.programme import exact_levels


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    own, path = case["hyperparameters"], recorded(meta["alphas_cumprod"])
    count = 999 * own["K"] // own["t"]  # the `steps` at which a pair at level t takes K of them
    policy = Tiny(meta["networks"]["policy"])
    before = walk(case, path, Tiny(meta["networks"]["policy"]), trajectory="ddim_inversion", steps=count)
    assert own["renoise_steps"] in (0, 1)
    placed = walk(case, path, policy, trajectory="renoise" if own["renoise_steps"] else "ddim_inversion", steps=count)
    return judged(case, meta, placed, policy, weight=own["weight"]) | {
        "levels": exact_levels(own["t"], steps=count, path=path),
        "x_hat_ddim": [before.xt_w[0].tolist(), before.xt_l[0].tolist()],
    }
