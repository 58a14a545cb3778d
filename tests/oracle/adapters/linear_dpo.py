"""Linear-DPO's script, full fine-tuning of a UNet."""

from __future__ import annotations

from typing import Any

from adapters.common import Batch, signal
from finepref.objectives.linear_dpo import linear_dpo


def outputs(case: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    batch = Batch(case["inputs"])
    output = linear_dpo(batch.prediction(), signal(batch.pairs), **case["hyperparameters"])
    return batch.results(output) | {"coefficient": output.stats["coefficient"].tolist()}
