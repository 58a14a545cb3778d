"""Options of the trajectories, and of their grids. Frozen, checked, no unknown key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finepref.core.options import Options

Grid = Literal["exact", "official-0.20", "official-current"]
Renoise = Literal["none", "last", "each"]
Label = Literal["source", "destination"]

_NETWORK = "Which network inverts: the current policy (official code) or the frozen reference (InPO's text)."
_GRID = (
    "exact: levels end at t (paper). official-0.20 / official-current: DDIMInverseScheduler of diffusers 0.20 (pinned "
    "by InPO and SmPO) or of today, whose last level is near t, not at it."
)
_STEPS = (
    "exact: steps of a pair at the highest level, fewer in proportion below; official grids: number of grid entries."
)
_SHARE = "Levels at which a pair is looked at on one trajectory, one in each equal part of the range; paid for once."
_CFG = "Guidance of the inversion: 1 is the conditional prediction, 0 the unconditional one."


class InversionOptions(Options):
    """DDIM inversion. steps 9: SmPO-Diffusion's text; the official grids use 5 (SmPO SD1.5) or 10."""

    network: Annotated[Literal["policy", "reference"], Field(description=_NETWORK)] = "policy"
    grid: Annotated[Grid, Field(description=_GRID)] = "exact"
    steps: Annotated[int, Field(ge=1, le=1000, description=_STEPS)] = 9
    eta: Annotated[
        float, Field(ge=0, description="Fresh noise after every step, in DDPM standard deviations (InPO: 0.1).")
    ] = 0.0
    cfg: Annotated[float, Field(description=_CFG)] = 1.0
    share: Annotated[int, Field(ge=1, le=100, description=_SHARE)] = 1

    @property
    def passes(self) -> int:
        """Network passes of one call: 2 where guidance asks with and without the prompt."""
        return 1 if self.cfg in (0, 1) else 2


class RenoiseOptions(InversionOptions):
    """DDIM inversion with ReNoise. Defaults: SmPO-Diffusion Eq. 13-14 (once, at the end, label of the destination)."""

    renoise: Annotated[
        Literal["last", "each"], Field(description="Refine the last step (paper) or every step (official code).")
    ] = "last"
    label: Annotated[
        Label,
        Field(
            description="Level told to the network when refining: the step's own (official code) or the one reached."
        ),
    ] = "destination"
    average: Annotated[
        bool, Field(description="Step with the mean of the first and the refined prediction (official code).")
    ] = False


def refinement(options: InversionOptions) -> tuple[Renoise, Label, bool]:
    """(which steps are refined, at which label, whether predictions are averaged); none for plain DDIM inversion."""
    if isinstance(options, RenoiseOptions):
        return options.renoise, options.label, options.average
    return "none", "source", False
