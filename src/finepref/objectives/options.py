"""The base of every objective's own options: frozen, checked, no unknown key."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Beta = Annotated[
    float,
    Field(
        gt=0,
        allow_inf_nan=False,
        description="Strength of the pair logit as in the official launchers: u = (beta/2) * w * (A_w - A_l) - m.",
    ),
]


class Options(BaseModel):
    """Options of one row of a table. Every field has a default, a bound and a source."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
