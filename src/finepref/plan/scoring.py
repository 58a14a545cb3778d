"""What scoring costs, counted as the denoiser's work is: on fake tensors, no weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from finepref.evaluate.scorers import clip
from finepref.evaluate.scorers.families import FAMILIES
from finepref.evaluate.scorers.scorer_rows import SCORERS
from finepref.plan.needs import GB, StageMemory
from finepref.plan.skeleton import Flops, Peak

SCORER = "pickscore"  # that most of the papers use, as large as the other CLIP-H
AT_ONCE = 16
"""Images that `finepref score` takes at once."""
TOKENS = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Parameters of the scorer, operations of an image with its prompt, most bytes alive at once of an image."""

    parameters: int
    image_flop: float
    image_bytes: float

    def memory(self) -> StageMemory:
        """In float32; it is one network, so that nothing is put apart."""
        held = 4.0 * self.parameters + AT_ONCE * self.image_bytes
        return StageMemory(batch=AT_ONCE, together_gb=held / GB, apart_gb=held / GB)


@cache
def scoring() -> Scoring:
    """What the scorer costs."""
    row = SCORERS[SCORER]
    with FakeTensorMode(), torch.no_grad():
        network: Any = FAMILIES[str(row.family)].network(row, None).eval()
        side, _ = clip.takes(network)
        pixels = torch.zeros(1, 3, side, side)
        with Peak([*network.parameters(), *network.buffers(), pixels]) as peak, Flops() as work:
            clip.image_features(network, pixels)
            network.text_model(input_ids=torch.zeros(1, TOKENS, dtype=torch.long))
    parameters = sum(p.numel() for p in network.parameters())
    return Scoring(parameters=parameters, image_flop=float(work.total), image_bytes=float(peak.highest))
