"""Five rounds of K-Sort Eval: the proposal of the rating package and the corrected rating."""

from __future__ import annotations

from typing import Any

import numpy as np

from finepref.evaluate.scorers.ksort import update

PACKAGE_ERROR = 1e-6  # trueskill's own normal distribution function is good to 1e-7


def check(content: dict[str, Any], meta: dict[str, Any]) -> None:
    assert content["sequence"]
    for step in content["sequence"]:
        found = update(
            tuple(step["me"]),
            [tuple(rival) for rival in step["opponents"]],
            human_rank=step["prior_rank"],
            judged_rank=step["observed_rank"],
            sharpness=content["sigmoid_k"],
        )
        np.testing.assert_allclose(
            [found.rho, found.lam, found.gain], [step["spearman"], step["lam"], step["lam2"]], rtol=1e-9
        )
        np.testing.assert_allclose(found.proposal, step["trueskill_new"], rtol=0, atol=PACKAGE_ERROR)
        np.testing.assert_allclose(found.rating, step["corrected"], rtol=0, atol=PACKAGE_ERROR)
